"""A scored evaluation, as the writers of this package take it, and the groups they show."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from asr.finding import Finding
from asr.metrics.calibration import Reliability, reliability
from asr.metrics.error_rate import ErrorCounts, UtteranceErrors, total
from asr.metrics.interval import REPLICATES, Interval, rate_intervals
from asr.report.number import counted, number
from asr.untrusted import shown

Setting = str | int | float | bool | None

MAX_SECONDS = 1e9  # thirty years: no audio is longer, and sums stay finite
MAX_DECIBELS = 1000


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """The model that was evaluated.

    Attributes:
        name: As its users know it.
        num_parameters: How many numbers were trained.
        training: What is known of the training, by name (data, steps, hours and the like).
    """

    name: str
    num_parameters: int
    training: Mapping[str, Setting] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HeardWord:
    """A word of a hypothesis, with its place in the audio.

    Attributes:
        word: As recognised.
        start: Of its first character [s].
        end: Of its last character [s].
        confidence: That it is right, 0 to 1.

    Raises:
        ValueError: Times or a confidence that no word has.
    """

    word: str
    start: float
    end: float
    confidence: float

    def __post_init__(self) -> None:
        for name, value, most in (
            ("start", self.start, MAX_SECONDS), ("end", self.end, MAX_SECONDS),
            ("confidence", self.confidence, 1),
        ):  # fmt: skip
            if not 0 <= value <= most:
                raise ValueError(
                    f"heard word {shown(self.word)}: {name} is {value}, expected 0 to {most:g}"
                )


@dataclass(frozen=True, slots=True)
class EvaluatedUtterance:
    """One utterance of an evaluation.

    Attributes:
        id: As in the manifest, and as in `errors`.
        speaker: As in the manifest; None where it does not say.
        duration_s: Length of the audio [s].
        audio_filepath: Where the audio lies.
        errors: The scored texts.
        fields: Further fields of the manifest's line, as text.
        snr_db: Estimated ratio of speech to noise [dB]; None where none can be told.
        words: The hypothesis's words with their times; empty where there are none.
    """

    id: str
    speaker: str | None
    duration_s: float
    audio_filepath: str
    errors: UtteranceErrors
    fields: Mapping[str, str] = field(default_factory=dict, hash=False)
    snr_db: float | None = None
    words: tuple[HeardWord, ...] = ()

    def __post_init__(self) -> None:
        if self.id != self.errors.id:
            raise ValueError(
                f"utterance {self.id!r}: errors are of {self.errors.id!r}, expected its own"
            )
        if not 0 <= self.duration_s <= MAX_SECONDS:
            raise ValueError(
                f"utterance {self.id!r}: duration is {self.duration_s} s, expected 0 to "
                f"{MAX_SECONDS:g}"
            )
        if self.snr_db is not None and not abs(self.snr_db) <= MAX_DECIBELS:
            raise ValueError(
                f"utterance {self.id!r}: signal-to-noise ratio is {self.snr_db} dB, expected "
                f"-{MAX_DECIBELS} to {MAX_DECIBELS}"
            )
        heard = " ".join(word.word for word in self.words)
        if self.words and heard != self.errors.hypothesis:
            raise ValueError(
                f"utterance {self.id!r}: heard words are {heard!r}, expected those of the "
                f"hypothesis, {self.errors.hypothesis!r}"
            )


@dataclass(frozen=True, slots=True)
class RateIntervals:
    """95 % bootstrap intervals of the WER and the CER; None with a single utterance."""

    words: Interval | None
    characters: Interval | None


@dataclass(frozen=True)
class Evaluation:
    """A model's transcripts of one manifest, scored.

    Attributes:
        title: Heading of the report.
        model: The model.
        manifest: Name of the manifest.
        real_time_factor: Computing time over audio time; None where it was not measured.
        utterances: At least one, with at least one reference word among them.
        settings: How the transcripts were made, by name (decoder, device and the like).
        text_rules: What reference and hypothesis both went through before they were compared, one
            rule an entry.
        slice_by: What the WER is told apart by; see `asr.report.slices`.
        left_out: What is wrong with the utterances of the manifest that are not among these.
    """

    title: str
    model: ModelDescription
    manifest: str
    real_time_factor: float | None
    utterances: tuple[EvaluatedUtterance, ...]
    settings: Mapping[str, Setting] = field(default_factory=dict)
    text_rules: tuple[str, ...] = ()
    slice_by: tuple[str, ...] = ()
    left_out: tuple[Finding, ...] = ()

    def __post_init__(self) -> None:
        factor = self.real_time_factor
        if factor is not None and not (math.isfinite(factor) and factor >= 0):
            raise ValueError(
                f"evaluation {self.title!r}: real-time factor is {factor}, expected 0 or more"
            )
        if self.words.reference_length == 0:
            raise ValueError(
                f"evaluation {self.title!r}: no reference word in {len(self.utterances)} "
                "utterances, expected at least one"
            )

    @property
    def words(self) -> ErrorCounts:
        """Word errors of all utterances; `.rate` is the WER."""
        return total(each.errors.words for each in self.utterances)

    @property
    def characters(self) -> ErrorCounts:
        """Character errors of all utterances; `.rate` is the CER."""
        return total(each.errors.characters for each in self.utterances)

    @property
    def completeness(self) -> str:
        """How much of the manifest was evaluated, in words; empty where all of it was."""
        count = len(self.left_out)
        if not count:
            return ""
        total = len(self.utterances) + count
        return f"{number(len(self.utterances))} of {counted(total, 'utterance')}; " + (
            f"{number(count)} could not be read"
        )

    @cached_property
    def intervals(self) -> RateIntervals:
        """95 % bootstrap intervals of WER and CER, blocked by speaker (asr.metrics.interval)."""
        return bootstrap(self.utterances)

    @cached_property
    def reliability(self) -> Reliability | None:
        """How well the words' confidences tell which are right; None where no word has one."""
        confidences, is_correct = word_outcomes(self.utterances)
        return reliability(confidences, is_correct) if confidences else None

    @property
    def duration_s(self) -> float:
        """Audio of all utterances [s]."""
        return math.fsum(each.duration_s for each in self.utterances)


def bootstrap(
    utterances: Sequence[EvaluatedUtterance], replicates: int = REPLICATES
) -> RateIntervals:
    """95 % bootstrap intervals of some utterances' WER and CER, blocked by speaker."""
    counts = [
        [each.errors.words for each in utterances],
        [each.errors.characters for each in utterances],
    ]
    speakers = [each.speaker for each in utterances]
    return RateIntervals(*rate_intervals(counts, speakers, replicates))


def word_outcomes(utterances: Iterable[EvaluatedUtterance]) -> tuple[list[float], list[bool]]:
    """The confidence of every heard word, and whether its alignment says that it is right.

    Utterances without heard words are left out: their transcript has no confidences.
    """
    confidences: list[float] = []
    is_correct: list[bool] = []
    for utterance in utterances:
        if utterance.words:
            steps = utterance.errors.alignment.words
            confidences += [word.confidence for word in utterance.words]
            is_correct += [step.kind == "equal" for step in steps if step.hypothesis is not None]
    return confidences, is_correct


@dataclass(frozen=True, slots=True)
class SpeakerErrors:
    """What one speaker's utterances add up to; speaker None stands for those without a speaker."""

    speaker: str | None
    num_utterances: int
    duration_s: float
    words: ErrorCounts
    characters: ErrorCounts


def by_speaker(evaluation: Evaluation) -> list[SpeakerErrors]:
    """The evaluation by speaker, the highest WER first."""
    groups: defaultdict[str | None, list[EvaluatedUtterance]] = defaultdict(list)
    for utterance in evaluation.utterances:
        groups[utterance.speaker].append(utterance)
    rows = [
        SpeakerErrors(
            speaker,
            len(group),
            math.fsum(each.duration_s for each in group),
            total(each.errors.words for each in group),
            total(each.errors.characters for each in group),
        )
        for speaker, group in groups.items()
    ]
    return sorted(rows, key=lambda row: (-row.words.rate, row.speaker or ""))


def worst(evaluation: Evaluation, limit: int) -> list[EvaluatedUtterance]:
    """The utterances with the most word errors, of those with any; equal ones by rate, then id."""
    wrong = [each for each in evaluation.utterances if each.errors.words.errors]
    wrong.sort(key=lambda each: (-each.errors.words.errors, -each.errors.words.rate, each.id))
    return wrong[:limit]
