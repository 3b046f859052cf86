"""What can be wrong with an utterance: each check once, for preparing, examining and training."""

from __future__ import annotations

import hashlib
import math
import os
import stat
import statistics
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asr.audio import load_audio, probe
from asr.data.manifest import Utterance
from asr.finding import Finding, Kind, describe_error
from asr.lexicon import Lexicon, describe_missing
from asr.text import CharTokenizer, describe_character

# Of one utterance's audio.
DURATION_TOLERANCE_S = 0.1  # [s] between manifest and file; conf/corpus has it, too
FULL_SCALE = 0.999  # samples from here up count as clipped; 16-bit audio reaches 0.99997
MAX_CLIPPED_SHARE = 1e-3  # 16 samples of a second at 16 kHz: more than a peak that just touches
SILENT_DB = -60.0  # [dBFS] below this six bits of sixteen are left to the speech, if there is any
LOWEST_DB = -120.0  # [dBFS] of digital silence: 16-bit audio ends near -90
FRAME_S = 0.01  # [s] in which silence is looked for
EDGE_DB = 40.0  # [dB] below the loudest frame begins the silence at the ends
MAX_EDGE_S = 2.0  # [s] of silence at either end

# Of an utterance among the others of its manifest.
MIN_UTTERANCES = 20  # fewer have no median to speak of
DEVIATIONS = 5.0  # a normal distribution has one of two million beyond that
DURATION_FACTOR = 4.0  # and so far from the median, for corpora whose utterances are all alike
RATE_FACTOR = 3.0
PLAUSIBLE_RATE = (0.5, 40.0)  # [characters/s] no script is spoken slower or faster for a whole clip
MISFIT_DEVIATIONS = 3.0  # of texts from a model's hypotheses: there are more in between
MISFIT_FACTOR = 2.0  # times the shortfall of a good model's texts, however bad the rest is

EXAMPLES = 3  # named of what two manifests share


# --- one utterance, nothing decoded ------------------------------------------------------------


def check_text(utterance: Utterance, written: str | None = None) -> Finding | None:
    """Does the normalised text have a character?

    Args:
        utterance: with normalised text.
        written: the text before the rules, to be shown.
    """
    if utterance.text:
        return None
    reason = "empty text, expected at least one character"
    if written is not None:
        reason = f"text is {written!r}, which the text rules leave empty, expected words"
    return utterance.finding(Kind.EMPTY_TEXT, reason)


def check_characters(
    utterance: Utterance, tokenizer: CharTokenizer, lacking: str = ""
) -> Finding | None:
    """Does the alphabet have every character of the normalised text?

    Args:
        utterance: with normalised text.
        tokenizer: with the alphabet.
        lacking: whose lack it is, where the alphabet is just being made: "the alphabet lacks".
    """
    unknown = tokenizer.unknown_characters(utterance.text)
    if not unknown:
        return None
    character = describe_character(unknown[0])
    more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
    reason = (
        f"text has {character}, which {lacking}, expected characters of {tokenizer.alphabet!r}"
        if lacking
        else f"character {character}{more} not in the alphabet, expected only "
        f"{tokenizer.alphabet!r}"
    )
    return utterance.finding(Kind.UNKNOWN_CHARACTER, reason)


def check_words(utterance: Utterance, lexicon: Lexicon) -> Finding | None:
    """Does the lexicon have every word of the normalised text?"""
    missing = lexicon.missing(utterance.text)
    return utterance.finding(Kind.UNKNOWN_WORD, describe_missing(missing)) if missing else None


def check_file(utterance: Utterance) -> Finding | None:
    """Is there a regular file? Its content is not looked at."""
    path = utterance.audio_filepath
    try:
        if stat.S_ISREG(os.stat(path).st_mode):
            return None
        reason = f"{path}: not a regular file, expected audio"
    except FileNotFoundError:
        reason = f"{path}: no such file, expected audio"
        # macOS writes letters and their marks apart, most others together; both look the same.
        if not path.name.isascii() and path.parent.is_dir():
            letters = unicodedata.normalize("NFC", path.name)
            if any(unicodedata.normalize("NFC", n) == letters for n in os.listdir(path.parent)):
                reason += "; one of that name in another Unicode form is there"
    except (OSError, ValueError) as error:  # a folder that may not be entered, a zero byte
        reason = describe_error(error)
    return utterance.finding(Kind.MISSING_AUDIO, reason)


def check_duration(
    utterance: Utterance, duration_s: float, min_s: float, max_s: float
) -> Finding | None:
    """Is an utterance as long as those to train on [s]?"""
    if min_s <= duration_s <= max_s:
        return None
    kind = Kind.TOO_SHORT if duration_s < min_s else Kind.TOO_LONG
    return utterance.finding(kind, f"{duration_s:.2f} s, expected {min_s:g} to {max_s:g} s")


def check_frames(
    utterance: Utterance, duration_s: float, frames: int, needed: int, speed: float = 1.0
) -> Finding | None:
    """Has CTC a path for the normalised text?

    Args:
        utterance: with normalised text.
        duration_s: of its audio [s].
        frames: output frames that it leaves at this speed.
        needed: fewest output frames for its labels.
        speed: fastest that the augmentation plays it.
    """
    if needed <= frames:
        return None
    at_speed = f" at speed {speed:g}" if speed != 1.0 else ""
    return utterance.finding(
        Kind.INFEASIBLE,
        f"{duration_s:.2f} s give {frames} output frames{at_speed}, expected at least {needed} for "
        f"its {len(utterance.text)} characters",
    )


def check_length(utterance: Utterance, actual_s: float, tolerance_s: float) -> Finding | None:
    """Does the audio last as long as the manifest says, if it says so [s]?"""
    expected_s = utterance.duration
    if expected_s is None or abs(actual_s - expected_s) <= tolerance_s:
        return None
    return utterance.finding(
        Kind.WRONG_DURATION,
        f"audio lasts {actual_s:.3f} s, expected {expected_s:.3f} s as its duration says "
        f"(tolerance {tolerance_s:g} s)",
    )


def with_duration(utterance: Utterance) -> Utterance | Finding:
    """The utterance with what its file has of it for a duration, where the manifest has none."""
    if utterance.duration is not None:
        return utterance
    try:
        length_s = probe(utterance.audio_filepath).duration
    except (ValueError, OSError) as error:
        return utterance.finding(Kind.UNREADABLE_AUDIO, describe_error(error))
    if length_s <= utterance.offset:
        reason = f"offset {utterance.offset:g} s, expected less than the file's {length_s:g} s"
        return utterance.finding(Kind.UNREADABLE_AUDIO, reason)
    return replace(utterance, duration=length_s - utterance.offset)


# --- its audio ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Signal:
    """What the samples of an utterance say.

    Attributes:
        level_db: root of the mean square [dB of full scale].
        peak: largest absolute sample, 1 is full scale.
        clipped_share: share of samples at full scale.
        leading_s: silence before the first sound [s].
        trailing_s: silence after the last sound [s].
        digest: of the decoded samples; equal for equal audio in whatever lossless format.
    """

    level_db: float
    peak: float
    clipped_share: float
    leading_s: float
    trailing_s: float
    digest: str


@dataclass(frozen=True)
class Audio:
    """Audio of an utterance.

    Attributes:
        sample_rate: of the file [Hz].
        file_s: length of the file [s], by its header.
        duration_s: of the utterance [s]: what the file really has of it.
        signal: None where the samples were not looked at.
    """

    sample_rate: int
    file_s: float
    duration_s: float
    signal: Signal | None


def measure_audio(utterance: Utterance, decode_up_to_s: float) -> Audio:
    """Measure an utterance at its file's own rate, channels averaged, or the one that it is on.

    Args:
        utterance: which part of which file.
        decode_up_to_s: look at the header only where the utterance is longer [s]; 0 for all.

    Raises:
        ValueError: damaged, cut short, not audio, NaN or Inf samples, or nothing at the offset.
        OSError: missing or unreadable.
    """
    path, offset, duration = utterance.audio_filepath, utterance.offset, utterance.duration
    info = probe(path)
    left_s = info.duration - offset
    if left_s <= 0:
        raise ValueError(
            f"{path}: offset {offset:g} s, expected less than the file's {info.duration:g} s"
        )
    duration_s = left_s if duration is None else min(duration, left_s)
    if duration_s > decode_up_to_s:
        return Audio(info.sample_rate, info.duration, duration_s, None)
    waveform = load_audio(
        path, info.sample_rate, offset=offset, duration=duration, channel=utterance.channel
    )
    signal = measure_signal(waveform, info.sample_rate)
    return Audio(info.sample_rate, info.duration, len(waveform) / info.sample_rate, signal)


def measure_signal(waveform: NDArray[np.float32], sample_rate: int) -> Signal:
    """Measure a waveform.

    Args:
        waveform: `(num_samples,)` float32, at least one sample.
        sample_rate: [Hz].
    """
    magnitude = np.abs(waveform)
    power = np.square(waveform, dtype=np.float64)
    mean = float(power.mean())
    # Silent are frames so far below the loudest one that only the room is left in them.
    hop = max(round(FRAME_S * sample_rate), 1)
    frames = np.add.reduceat(power, np.arange(0, len(power), hop)) / hop  # (num_frames,)
    loud = np.flatnonzero(frames > frames.max() * 10 ** (-EDGE_DB / 10))
    leading_s = trailing_s = len(power) / sample_rate
    if len(loud):
        leading_s = loud[0] * hop / sample_rate
        trailing_s = (len(frames) - 1 - loud[-1]) * hop / sample_rate
    digest = hashlib.blake2b(waveform.tobytes(), digest_size=16, person=b"%d" % sample_rate)
    return Signal(
        level_db=max(10 * math.log10(mean), LOWEST_DB) if mean > 0 else LOWEST_DB,
        peak=float(magnitude.max()),
        clipped_share=float(np.mean(magnitude >= FULL_SCALE)),
        leading_s=leading_s,
        trailing_s=trailing_s,
        digest=digest.hexdigest(),
    )


def check_audio(
    utterance: Utterance, audio: Audio, sample_rate: int, is_whole: bool
) -> Iterator[Finding]:
    """What to look at in an utterance's audio.

    Args:
        utterance: as the manifest has it.
        audio: as measured.
        sample_rate: of the model [Hz].
        is_whole: whether the utterance should be all of its file.
    """
    if audio.sample_rate < sample_rate:
        yield utterance.finding(
            Kind.LOW_RATE,
            f"{audio.sample_rate} Hz, expected {sample_rate} Hz or more: nothing is in it above "
            f"{audio.sample_rate // 2} Hz",
        )
    expected_s = utterance.duration
    if expected_s is not None and abs(expected_s - audio.duration_s) > DURATION_TOLERANCE_S:
        yield utterance.finding(
            Kind.WRONG_DURATION,
            f"{audio.duration_s:.2f} s of audio, expected {expected_s:.2f} s by the manifest",
        )
    elif expected_s is not None and is_whole and audio.file_s - expected_s > DURATION_TOLERANCE_S:
        yield utterance.finding(
            Kind.WRONG_DURATION,
            f"{audio.file_s:.2f} s in the file, expected {expected_s:.2f} s by the manifest: the "
            "rest is not used",
        )
    signal = audio.signal
    if signal is None:
        return
    if signal.clipped_share > MAX_CLIPPED_SHARE:
        yield utterance.finding(
            Kind.CLIPPING,
            f"{100 * signal.clipped_share:.2f} % of the samples at full scale, expected at most "
            f"{100 * MAX_CLIPPED_SHARE:g} %",
        )
    if signal.level_db < SILENT_DB:
        what = "nothing but zeros" if signal.peak == 0 else f"{signal.level_db:.0f} dBFS"
        yield utterance.finding(Kind.SILENCE, f"{what}, expected {SILENT_DB:g} dBFS or more")
        return
    for silence_s, where in ((signal.leading_s, "before"), (signal.trailing_s, "after")):
        if silence_s > MAX_EDGE_S:
            yield utterance.finding(
                Kind.EDGE_SILENCE,
                f"{silence_s:.1f} s of silence {where} the speech, expected at most "
                f"{MAX_EDGE_S:g} s",
            )


# --- an utterance among the others of its manifest ---------------------------------------------


@dataclass(frozen=True)
class Examined:
    """One utterance, and what was found out about it.

    Attributes:
        utterance: as the manifest has it.
        text: normalised.
        audio: None where it cannot be read.
        duration_s: of the audio, or else what the manifest says; None where neither tells [s].
        frames: output frames at the fastest speed; None without a duration.
        needed: output frames that CTC needs; None where the text cannot be written.
        shortfall: of the text behind the model's own path; None where no model has run
            [nats a frame].
    """

    utterance: Utterance
    text: str
    audio: Audio | None
    duration_s: float | None
    frames: int | None
    needed: int | None
    shortfall: float | None = None

    @property
    def characters_per_second(self) -> float | None:
        """None where there is no text or no duration [1/s]."""
        return len(self.text) / self.duration_s if self.text and self.duration_s else None

    @property
    def slack(self) -> float | None:
        """Output frames over those that CTC needs: below 1 it has no path."""
        return None if self.frames is None or not self.needed else self.frames / self.needed

    @property
    def level_db(self) -> float | None:
        """None where the samples were not looked at [dB of full scale]."""
        return self.audio.signal.level_db if self.audio and self.audio.signal else None

    @property
    def audio_keys(self) -> list[object]:
        """Equal keys mean equal audio: the place in a file, and the samples where known."""
        place, signal = self.utterance.place, self.audio and self.audio.signal
        return [place, signal.digest] if signal and signal.peak else [place]


def usual_range(values: Sequence[float], factor: float) -> tuple[float, float] | None:
    """Where nearly all of positive, skewed values lie: robust, so that outliers do not widen it.

    Median times or over the exponential of DEVIATIONS standard deviations of the logarithm,
    estimated from the median absolute deviation.

    Args:
        values: above 0.
        factor: the range goes at least so far to both sides.

    Returns:
        Lowest and highest; None for fewer than MIN_UTTERANCES values.
    """
    if len(values) < MIN_UTTERANCES:
        return None
    middle, deviation = _middle_and_deviation([math.log(value) for value in values])
    width = max(DEVIATIONS * deviation, math.log(factor))
    return math.exp(middle - width), math.exp(middle + width)


def _middle_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    middle = statistics.median(values)
    # 1.4826 median absolute deviations are a standard deviation of a normal distribution.
    return middle, 1.4826 * statistics.median(abs(each - middle) for each in values)


def find_outliers(examined: Sequence[Examined]) -> Iterator[Finding]:
    """The utterances of one manifest that are unlike the rest of it."""
    usual = usual_range([each.duration_s for each in examined if each.duration_s], DURATION_FACTOR)
    for each in examined:
        duration_s = each.duration_s
        if usual and duration_s and not usual[0] <= duration_s <= usual[1]:
            reason = f"{duration_s:.2f} s, expected {usual[0]:.2f} to {usual[1]:.2f} s as the rest"
            yield each.utterance.finding(Kind.DURATION_OUTLIER, reason)
    rates = [rate for each in examined if (rate := each.characters_per_second)]
    usual, (slowest, fastest) = usual_range(rates, RATE_FACTOR), PLAUSIBLE_RATE
    for each in examined:
        if not (rate := each.characters_per_second):
            continue
        if not slowest <= rate <= fastest:
            expected = f"{slowest:g} to {fastest:g} of any speech"
        elif usual and not usual[0] <= rate <= usual[1]:
            expected = f"{usual[0]:.1f} to {usual[1]:.1f} as the rest"
        else:
            continue
        reason = (
            f"{len(each.text)} characters in {each.duration_s:.2f} s, {rate:.1f} a second, "
            f"expected {expected}"
        )
        yield each.utterance.finding(Kind.TEXT_RATE, reason)
    sample_rates = Counter(each.audio.sample_rate for each in examined if each.audio)
    most_common = sample_rates.most_common(1)
    for each in examined:
        if each.audio and each.audio.sample_rate != most_common[0][0]:
            reason = (
                f"{each.audio.sample_rate} Hz, expected {most_common[0][0]} Hz as "
                f"{most_common[0][1]} of {sample_rates.total()}"
            )
            yield each.utterance.finding(Kind.MIXED_RATE, reason)


def find_misfits(examined: Sequence[Examined], max_shortfall: float) -> Iterator[Finding]:
    """Texts of one manifest that are unlike a model's hypotheses.

    With a poor model right texts are behind, too: where there are MIN_UTTERANCES, the
    limit is raised to the median and MISFIT_DEVIATIONS standard deviations, but never beyond
    MISFIT_FACTOR times itself, so that a manifest full of wrong texts shows.

    Args:
        examined: the utterances; those without a shortfall are left alone.
        max_shortfall: of a good model's right texts [nats a frame].
    """
    shortfalls = [each.shortfall for each in examined if each.shortfall is not None]
    limit, of_whom = max_shortfall, "of a right text"
    if len(shortfalls) >= MIN_UTTERANCES:
        middle, deviation = _middle_and_deviation(shortfalls)
        usual = min(middle + MISFIT_DEVIATIONS * deviation, MISFIT_FACTOR * max_shortfall)
        if usual > limit:
            limit, of_whom = usual, "as the rest"
    for each in examined:
        if each.shortfall is not None and each.shortfall > limit:
            reason = (
                f"{each.shortfall:.2f} nats a frame behind the model's own path, expected at most "
                f"{limit:.2f} {of_whom}"
            )
            yield each.utterance.finding(Kind.TEXT_MISFIT, reason)


def find_duplicates(examined: Sequence[Examined]) -> Iterator[Finding]:
    """Utterances of one manifest that an earlier line has already."""
    by_audio: dict[object, Examined] = {}
    by_text: dict[object, Examined] = {}
    for each in examined:
        same_audio = _earlier(by_audio, each.audio_keys, each)
        # Of a speaker who is named: others say the same in the same time too often.
        speaker, duration_s = each.utterance.speaker, each.duration_s
        is_told = speaker is not None and each.text and duration_s is not None
        keys = [(speaker, each.text, round(duration_s or 0.0, 3))] if is_told else []
        same_text = _earlier(by_text, keys, each)
        if same_audio is not None:
            text = "the same text" if same_audio.text == each.text else "another text"
            reason = f"audio of {_name(same_audio)} again, with {text}, expected each once"
            yield each.utterance.finding(Kind.DUPLICATE_AUDIO, reason)
        elif same_text is not None:
            reason = f"speaker, text and duration of {_name(same_text)} again, expected each once"
            yield each.utterance.finding(Kind.DUPLICATE_TEXT, reason)


def _earlier(
    seen: dict[object, Examined], keys: Sequence[object], each: Examined
) -> Examined | None:
    """The utterance that had one of the keys first, if any; this one has those that are new."""
    found = next((seen[key] for key in keys if key in seen), None)
    for key in keys:
        seen.setdefault(key, each)
    return found


def _name(each: Examined) -> str:
    return f"line {each.utterance.line} ({each.utterance.id})"


# --- across manifests --------------------------------------------------------------------------


@dataclass(frozen=True)
class ExaminedManifest:
    """One manifest.

    Attributes:
        manifest: the file.
        lines: how many it has, good and bad.
        utterances: those of its good lines, in order.
    """

    manifest: Path
    lines: int
    utterances: Sequence[Examined]

    @property
    def seconds(self) -> float:
        """Of audio, as far as it is known [s]."""
        return sum(each.duration_s or 0.0 for each in self.utterances)

    @property
    def speakers(self) -> set[str]:
        """Those that are named."""
        speakers = (each.utterance.speaker for each in self.utterances)
        return {speaker for speaker in speakers if speaker is not None}

    @property
    def sample_rates(self) -> Counter[int]:
        """Utterances by the rate of their file [Hz]."""
        return Counter(each.audio.sample_rate for each in self.utterances if each.audio)


@dataclass(frozen=True)
class Overlap:
    """What a later manifest shares with an earlier one.

    Attributes:
        what: "speakers", "texts" or "audio".
        first: the earlier one.
        second: the later one, of which the share is.
        shared: how many of its speakers, or of its utterances by text or by audio.
        total: of how many.
        examples: a few of them.
    """

    what: str
    first: Path
    second: Path
    shared: int
    total: int
    examples: tuple[str, ...]

    @property
    def share(self) -> float:
        """0 to 1."""
        return self.shared / self.total if self.total else 0.0


def find_overlaps(manifests: Sequence[ExaminedManifest]) -> list[Overlap]:
    """What every two manifests share: speakers, texts, audio."""
    overlaps: list[Overlap] = []
    for first, second in combinations(manifests, 2):
        both = sorted(first.speakers & second.speakers)
        texts = {each.text for each in first.utterances} - {""}
        spoken = [each.text for each in second.utterances if each.text]
        repeated = [text for text in spoken if text in texts]
        keys = {key for each in first.utterances for key in each.audio_keys}
        again = [
            each.utterance.id for each in second.utterances if not keys.isdisjoint(each.audio_keys)
        ]
        for what, shared, total in (
            ("speakers", both, len(second.speakers)),
            ("texts", repeated, len(spoken)),
            ("audio", again, len(second.utterances)),
        ):
            examples = tuple(list(dict.fromkeys(shared))[:EXAMPLES])
            overlaps.append(
                Overlap(what, first.manifest, second.manifest, len(shared), total, examples)
            )
    return overlaps


def overlap_findings(
    manifests: Sequence[ExaminedManifest], overlaps: Sequence[Overlap]
) -> Iterator[Finding]:
    """The overlaps as findings: audio by utterance of the earlier manifest, the rest as a whole.

    It is the earlier one, that of training by custom, that has to give the audio up: what is
    measured on the later one stays comparable.
    """
    kinds = {"speakers": Kind.SPEAKER_OVERLAP, "texts": Kind.TEXT_OVERLAP}
    for overlap in overlaps:
        if overlap.shared and overlap.what in kinds:
            reason = (
                f"{overlap.shared} of {overlap.total} {overlap.what} of {overlap.second} are here "
                f"too ({100 * overlap.share:.0f} %), as {', '.join(map(repr, overlap.examples))}; "
                "expected none, unless meant so"
            )
            yield Finding(kinds[overlap.what], reason, manifest=overlap.first)
    for first, second in combinations(manifests, 2):
        there = {key: each for each in second.utterances for key in each.audio_keys}
        for each in first.utterances:
            same = next((there[key] for key in each.audio_keys if key in there), None)
            if same is not None:
                where = f"{same.utterance.where} ({same.utterance.id})"
                reason = f"its audio is that of {where} too, expected in one split only"
                yield each.utterance.finding(Kind.AUDIO_OVERLAP, reason)
