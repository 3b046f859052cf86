"""What preparing a corpus gives, and how it tells of its progress."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

SPLITS = ("train", "dev", "test")


@dataclass(frozen=True)
class SplitSummary:
    """Totals of one split.

    Attributes:
        name: "train", "dev" or "test".
        manifest: the JSON lines file.
        utterances: how many.
        seconds: of audio [s].
        speakers: how many different ones are named.
        characters_per_second: of the slowest and of the fastest utterance [1/s].
    """

    name: str
    manifest: Path
    utterances: int
    seconds: float
    speakers: int
    characters_per_second: tuple[float, float]


@dataclass(frozen=True)
class PreparedCorpus:
    """A corpus that is ready for training.

    Attributes:
        name: of the corpus.
        folder: holds the manifests, corpus.json, and the audio where it was converted.
        splits: those the corpus has, in the order train, dev, test.
        alphabet: characters of the training texts, or those asked for, sorted.
        notes: what the user should know, one sentence each.
    """

    name: str
    folder: Path
    splits: tuple[SplitSummary, ...]
    alphabet: str
    notes: tuple[str, ...]


class Progress(Protocol):
    """Is told how a preparation goes on."""

    def say(self, line: str) -> None:
        """A step is done, or was done already; or something bad was found."""

    def advance(self, step: str, done: int, total: int, unit: str) -> None:
        """So much of a long step is done; called very often, and last with done = total."""


class Silent:
    """The Progress of nobody."""

    def say(self, line: str) -> None:
        """Say nothing."""

    def advance(self, step: str, done: int, total: int, unit: str) -> None:
        """Show nothing."""
