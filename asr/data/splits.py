"""The utterances a training reads: manifests, text rules and the alphabet, checked together."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from asr.audio import probe
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
    dev: str | Sequence[str],
    text: TextNormalizer,
    alphabet: str | None = None,
    min_duration_s: float = 0.1,
    max_duration_s: float = 40.0,
    limit: int | None = None,
    notice: Callable[[str], None] = print,
) -> Splits:
    """Read the manifests of a training.

    Args:
        train: manifest or manifests to learn from; ids of several get their folder's name in front.
        dev: manifest or manifests to validate on.
        text: rules that make every transcript comparable; applied to both.
        alphabet: characters of the model; None takes those of the training texts.
        min_duration_s: shorter training utterances are left out [s].
        max_duration_s: longer training utterances are left out [s].
        limit: use only so many utterances of each split, the first ones; None uses all.
        notice: told in a line what was left out.

    Returns:
        Both splits, texts normalised, durations known.

    Raises:
        ValueError: a manifest that cannot be read, an id that two manifests of a split share, a
            character outside the alphabet, a limit below 1, or a split with no utterance left.
        OSError: a missing manifest or audio file.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit {limit}, expected at least 1 utterance of each split")
    train_all = read_split(train, text)
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
    dev_all = read_split(dev, text)
    tokenizer = (
        CharTokenizer(alphabet)
        if alphabet
        else CharTokenizer.from_texts([utterance.text for utterance in kept])
    )
    for split, utterances in (("train", kept), ("dev", dev_all)):
        check_characters(split, utterances, tokenizer)
    return Splits(kept[:limit], dev_all[:limit], text, tokenizer.alphabet)


def read_split(manifests: str | Sequence[str], text: TextNormalizer) -> tuple[Utterance, ...]:
    """The utterances of one or several manifests, texts normalised and durations known."""
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


def check_characters(split: str, utterances: Sequence[Utterance], tokenizer: CharTokenizer) -> None:
    """Refuse texts with characters that the alphabet lacks."""
    known = set(tokenizer.alphabet)
    for utterance in utterances:
        unknown = sorted(set(utterance.text) - known)
        if unknown:
            raise ValueError(
                f"{split} utterance {utterance.id}: character {unknown[0]!r} "
                f"(U+{ord(unknown[0]):04X}) is not in the alphabet {tokenizer.alphabet!r}; "
                "correct the text, its rules (data.text) or data.alphabet"
            )
