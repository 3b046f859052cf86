"""What occurs twice: within a manifest, and across those of different splits."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from asr.data.doctor.examined import Examined, ExaminedManifest
from asr.finding import Finding, Kind

EXAMPLES = 3  # named of what two manifests share


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


def find_duplicates(examined: Sequence[Examined]) -> Iterator[Finding]:
    """Utterances of one manifest that an earlier line has already."""
    by_audio: dict[object, Examined] = {}
    by_text: dict[object, Examined] = {}
    for each in examined:
        same_audio = _earlier(by_audio, _audio_keys(each), each)
        same_text = _earlier(by_text, _text_keys(each), each)
        if same_audio is not None:
            text = "the same text" if same_audio.text == each.text else "another text"
            reason = f"audio of {_name(same_audio)} again, with {text}, expected each once"
            yield each.utterance.finding(Kind.DUPLICATE_AUDIO, reason)
        elif same_text is not None:
            reason = f"speaker, text and duration of {_name(same_text)} again, expected each once"
            yield each.utterance.finding(Kind.DUPLICATE_TEXT, reason)


def find_overlaps(manifests: Sequence[ExaminedManifest]) -> list[Overlap]:
    """What every two manifests share: speakers, texts, audio."""
    overlaps: list[Overlap] = []
    for first, second in combinations(manifests, 2):
        both = sorted(first.speakers & second.speakers)
        texts = {each.text for each in first.utterances} - {""}
        said = [each.text for each in second.utterances if each.text]
        repeated = [text for text in said if text in texts]
        audio = {key for each in first.utterances for key in _audio_keys(each)}
        heard = [
            each.utterance.id
            for each in second.utterances
            if not audio.isdisjoint(_audio_keys(each))
        ]
        for what, shared, total in (
            ("speakers", both, len(second.speakers)),
            ("texts", repeated, len(said)),
            ("audio", heard, len(second.utterances)),
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
        there = {key: each for each in second.utterances for key in _audio_keys(each)}
        for each in first.utterances:
            same = next((there[key] for key in _audio_keys(each) if key in there), None)
            if same is not None:
                where = f"{same.utterance.manifest}:{same.utterance.line} ({same.utterance.id})"
                reason = f"its audio is that of {where} too, expected in one split only"
                yield each.utterance.finding(Kind.AUDIO_OVERLAP, reason)


def _earlier(
    seen: dict[object, Examined], keys: Sequence[object], each: Examined
) -> Examined | None:
    found = next((seen[key] for key in keys if key in seen), None)
    for key in keys:
        seen.setdefault(key, each)
    return found


def _audio_keys(each: Examined) -> list[object]:
    """Equal keys mean equal audio: the place in a file, and the samples where they are known."""
    utterance = each.utterance
    keys: list[object] = [(os.path.normpath(utterance.audio_filepath), utterance.offset)]
    if each.audio is not None and each.audio.signal is not None and each.audio.signal.peak:
        keys.append(each.audio.signal.digest)
    return keys


def _text_keys(each: Examined) -> list[object]:
    """Of a speaker who is named: others say the same in the same time too often."""
    speaker = each.utterance.speaker
    if speaker is None or not each.text or each.duration_s is None:
        return []
    return [(speaker, each.text, round(each.duration_s, 3))]


def _name(each: Examined) -> str:
    return f"line {each.utterance.line} ({each.utterance.id})"
