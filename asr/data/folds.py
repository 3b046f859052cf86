"""Cross-validation: a list of utterances cut into folds of like duration that share no speaker."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import NamedTuple

from asr.data.manifest import Utterance


class Fold(NamedTuple):
    """One fold to validate on, and the others to learn from, each in the order of the manifest."""

    train: tuple[Utterance, ...]
    dev: tuple[Utterance, ...]


def check_folds(folds: int, fold: int, dev: object) -> None:
    """Check the three settings that say where dev comes from.

    Raises:
        ValueError: a single fold, a fold out of range, or dev given both ways or neither.
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


def cut_fold(
    utterances: Sequence[Utterance],
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
        utterances: all of them, durations known; equal names of speakers are one speaker.
        folds: how many, 2 or more.
        fold: the one to validate on, from 0.
        seed: decides the order of speakers whose durations [s] are equal.
        notice: told in a line how many utterances name no speaker; each of them counts as a speaker
            of its own.

    Raises:
        ValueError: fewer speakers than folds.
    """
    nameless = sum(utterance.speaker is None for utterance in utterances)
    if nameless:
        notice(
            f"{nameless} of {len(utterances)} utterances name no speaker: each counts as a speaker "
            "of its own, and a voice may be in several folds"
        )
    seconds: defaultdict[str, list[float]] = defaultdict(list)
    for utterance in utterances:
        assert utterance.duration is not None, "filled in when read"
        seconds[_speaker(utterance)].append(utterance.duration)
    if len(seconds) < folds:
        raise ValueError(f"{len(seconds)} speakers, expected at least {folds} for data.folds")
    # Sorted before they are added up: the sum must not depend on the order of the manifest.
    durations = {speaker: sum(sorted(parts)) for speaker, parts in seconds.items()}
    fold_of = _assign(durations, folds, seed)
    return Fold(
        train=tuple(u for u in utterances if fold_of[_speaker(u)] != fold),
        dev=tuple(u for u in utterances if fold_of[_speaker(u)] == fold),
    )


def _assign(durations: dict[str, float], folds: int, seed: int) -> dict[str, int]:
    """The fold of each speaker."""
    order = sorted(durations, key=lambda speaker: (-durations[speaker], _hash(seed, speaker)))
    totals = [0.0] * folds
    fold_of = {}
    for speaker in order:
        lightest = totals.index(min(totals))
        fold_of[speaker] = lightest
        totals[lightest] += durations[speaker]
    return fold_of


def _speaker(utterance: Utterance) -> str:
    """A name that no utterance's id can be mistaken for."""
    if utterance.speaker is None:
        return f"utterance {utterance.id}"
    return f"speaker {utterance.speaker}"


def _hash(seed: int, speaker: str) -> str:
    return hashlib.sha256(f"{seed} {speaker}".encode()).hexdigest()
