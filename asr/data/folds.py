"""Folds of a corpus without a shared speaker: each in turn is validated on."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import NamedTuple

from asr.data.manifest import Utterance, seconds


class Fold(NamedTuple):
    """One fold to validate on, and the others to learn from, each in the order of the manifest."""

    train: tuple[Utterance, ...]
    dev: tuple[Utterance, ...]


def cut_fold(
    everything: Sequence[Utterance],
    folds: int,
    fold: int,
    seed: int = 0,
    notice: Callable[[str], None] = print,
) -> Fold:
    """Cut utterances into folds without a shared speaker and take one of them out.

    Greedy: the speakers, longest first, each go into the fold that is shortest so far (Graham,
    "Bounds on Multiprocessing Timing Anomalies", 1969), so that the longest fold is at most a third
    longer than that of the best possible cut. The same utterances, in any order, give the same
    folds.

    Args:
        everything: all utterances, durations known; equal names of speakers are one speaker.
        folds: how many, 2 or more.
        fold: the one to validate on, from 0.
        seed: decides the order of speakers whose durations [s] are equal.
        notice: told in a line how many utterances name no speaker; each of them counts as a speaker
            of its own.

    Raises:
        ValueError: fewer speakers than folds.
    """
    nameless = sum(utterance.speaker is None for utterance in everything)
    if nameless:
        notice(
            f"{nameless} of {len(everything)} utterances name no speaker: each counts as a speaker "
            "of its own, and a voice may be in several folds"
        )
    parts: defaultdict[str, list[float]] = defaultdict(list)
    for utterance in everything:
        parts[_speaker(utterance)].append(seconds(utterance))
    if len(parts) < folds:
        raise ValueError(f"{len(parts)} speakers, expected at least {folds} for data.folds")
    # Sorted before they are added up: the sum must not depend on the order of the manifest.
    durations = {speaker: sum(sorted(own)) for speaker, own in parts.items()}

    def place(speaker: str) -> tuple[float, str]:
        return -durations[speaker], hashlib.sha256(f"{seed} {speaker}".encode()).hexdigest()

    # Not scikit-learn's GroupKFold: it makes folds of like numbers of utterances, not seconds.
    totals = [0.0] * folds
    fold_of: dict[str, int] = {}
    for speaker in sorted(durations, key=place):
        shortest = totals.index(min(totals))
        fold_of[speaker] = shortest
        totals[shortest] += durations[speaker]
    return Fold(
        train=tuple(u for u in everything if fold_of[_speaker(u)] != fold),
        dev=tuple(u for u in everything if fold_of[_speaker(u)] == fold),
    )


def _speaker(utterance: Utterance) -> str:
    """A name that no utterance's id can be mistaken for."""
    if utterance.speaker is None:
        return f"utterance {utterance.id}"
    return f"speaker {utterance.speaker}"


def check_fold(folds: int, fold: int, dev: object) -> None:
    """Check what a training asks of folds, beside its dev manifests.

    Raises:
        ValueError: a number out of range, dev beside folds, or neither of them.
    """
    if folds < 0 or folds == 1:
        raise ValueError(f"data.folds {folds}, expected 0 (off) or 2 and more")
    if not folds and fold:
        raise ValueError(f"data.fold {fold} of data.folds 0, expected data.folds of 2 and more")
    if folds and not 0 <= fold < folds:
        raise ValueError(f"data.fold {fold}, expected 0 to {folds - 1} of data.folds {folds}")
    if folds and dev is not None:
        raise ValueError(
            f"data.dev {dev} beside data.folds {folds}, which takes dev from the train manifests: "
            "expected data.dev=null"
        )
    if not folds and dev is None:
        raise ValueError("data.dev is missing, expected data.dev=MANIFEST (or data.folds=5)")
