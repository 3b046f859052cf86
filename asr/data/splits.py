"""The utterances a training reads: manifests, text rules and the alphabet, checked together."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from asr.audio import probe
from asr.data.folds import check_folds, cut_fold
from asr.data.manifest import Utterance, read_manifest
from asr.text.normalize import TextNormalizer
from asr.text.tokenizer import CharTokenizer


@dataclass(frozen=True)
class Splits:
    """Utterances to train on and to choose by, with normalised text and known durations.

    Attributes:
        train: utterances to learn from.
        dev: utterances to validate on.
        text: the transcript rules.
        alphabet: characters in the order of their ids, from 1.
    """

    train: tuple[Utterance, ...]
    dev: tuple[Utterance, ...]
    text: TextNormalizer
    alphabet: str

    def fingerprint(self) -> str:
        """sha256 over ids, durations and texts of both splits."""
        digest = hashlib.sha256()
        for name, utterances in (("train", self.train), ("dev", self.dev)):
            for item in utterances:
                row = [name, item.id, item.duration, item.offset, item.text]
                digest.update(json.dumps(row).encode())
        return digest.hexdigest()


def load_splits(
    train: str | Sequence[str],
    dev: str | Sequence[str] | None,
    text: TextNormalizer,
    alphabet: str | None = None,
    min_duration_s: float = 0.1,
    max_duration_s: float = 40.0,
    limit: int | None = None,
    folds: int = 0,
    fold: int = 0,
    fold_seed: int = 0,
    notice: Callable[[str], None] = print,
) -> Splits:
    """Read the manifests of a training.

    Args:
        train: manifest or manifests to learn from; ids of several get their folder's name in front.
        dev: manifest or manifests to validate on; None with `folds`.
        text: rules that make every transcript comparable; applied to both.
        alphabet: characters of the model; None takes those of the training texts. With `folds` it
            takes those of all texts, dev's too: else models of different folds would have different
            sizes and a fold with a rare character could not be validated on.
        min_duration_s: shorter training utterances are left out [s].
        max_duration_s: longer training utterances are left out [s].
        limit: use only so many utterances of each split, the first ones; None uses all.
        folds: cut `train` into so many folds of like duration that share no speaker, and validate
            on one of them (`cut_fold`); 0 does not.
        fold: the one to validate on, from 0.
        fold_seed: decides between speakers of equal duration.
        notice: told in a line what was left out.

    Returns:
        Both splits, texts normalised, durations known.

    Raises:
        ValueError: a manifest that cannot be read, an id that two manifests of a split share, a
            character outside the alphabet, a limit below 1, a split with no utterance left, or
            folds that cannot be made.
        OSError: a missing manifest or audio file.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit {limit}, expected at least 1 utterance of each split")
    check_folds(folds, fold, dev)
    everything = train_all = _read(train, text)
    if folds:
        train_all, dev_all = cut_fold(everything, folds, fold, fold_seed, notice)
    else:
        dev_all = _read(dev or (), text)
    kept = tuple(u for u in train_all if min_duration_s <= seconds(u) <= max_duration_s)
    if len(kept) < len(train_all):
        notice(
            f"{len(train_all) - len(kept)} of {len(train_all)} training utterances left out: not "
            f"{min_duration_s:g} to {max_duration_s:g} s long"
        )
    if not kept:
        raise ValueError(
            f"no training utterance left of {len(train_all)}, expected some of "
            f"{min_duration_s:g} to {max_duration_s:g} s (data.min_duration_s, data.max_duration_s)"
        )
    tokenizer = (
        CharTokenizer(alphabet)
        if alphabet
        else CharTokenizer.from_texts([item.text for item in (everything if folds else kept)])
    )
    for split, utterances in (("train", kept), ("dev", dev_all)):
        _check_characters(split, utterances, tokenizer)
    return Splits(kept[:limit], dev_all[:limit], text, tokenizer.alphabet)


def _read(manifests: str | Sequence[str], text: TextNormalizer) -> tuple[Utterance, ...]:
    paths = [Path(manifests)] if isinstance(manifests, str) else [Path(path) for path in manifests]
    utterances: list[Utterance] = []
    for path in paths:
        prefix = f"{path.resolve().parent.name}/" if len(paths) > 1 else ""
        for item in read_manifest(path):
            duration = item.duration
            if duration is None:
                duration = probe(item.audio_filepath).duration - item.offset
            utterances.append(
                replace(item, text=text(item.text), duration=duration, id=f"{prefix}{item.id}")
            )
    if not utterances:
        raise ValueError("no manifest given, expected at least one path")
    _check_ids(utterances)
    return tuple(utterances)


def _check_ids(utterances: Sequence[Utterance]) -> None:
    for name, count in Counter(utterance.id for utterance in utterances).items():
        if count > 1:
            raise ValueError(
                f"id {name!r} occurs {count} times in the manifests of a split, expected once: "
                "folders of several manifests need different names, or their utterances other ids"
            )


def seconds(utterance: Utterance) -> float:
    """The duration [s] of an utterance of `Splits`, where none is unknown."""
    assert utterance.duration is not None, "filled in when read"
    return utterance.duration


def _check_characters(
    split: str, utterances: Sequence[Utterance], tokenizer: CharTokenizer
) -> None:
    known = set(tokenizer.alphabet)
    for utterance in utterances:
        unknown = sorted(set(utterance.text) - known)
        if unknown:
            raise ValueError(
                f"{split} utterance {utterance.id}: character {unknown[0]!r} "
                f"(U+{ord(unknown[0]):04X}) is not in the alphabet {tokenizer.alphabet!r}; "
                "correct the text, its rules (data.text) or data.alphabet"
            )
