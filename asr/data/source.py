"""Where training utterances come from: a manifest, or anything else that gives windows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from asr.data.manifest import Utterance
from asr.data.window import Gate, Window, label
from asr.finding import Finding
from asr.text import CharTokenizer


@dataclass(frozen=True)
class Totals:
    """What a source holds, before anything is left out.

    Attributes:
        utterances: how many.
        seconds: of audio [s].
        longest_s: upper bound on the duration of an utterance that is trained on [s].
    """

    utterances: int
    seconds: float
    longest_s: float


@dataclass(frozen=True)
class Ranks:
    """Which of how many processes is reading.

    Attributes:
        rank: of this process, from 0.
        world_size: number of processes.
    """

    rank: int = 0
    world_size: int = 1


class Windows(Protocol):
    """A source as one rank of a training reads it."""

    @property
    def totals(self) -> Totals:
        """Of the utterances to train on; of a source that streams, before any is left out."""

    def count(self) -> int:
        """Windows of an epoch, the same on every rank."""

    def load(self, epoch: int, number: int) -> Window:
        """Read one window.

        A pure function of the source, the seed, the epoch and the ranks, but for `Window.audio`,
        which is the rank's own.

        Raises:
            ValueError: damaged or changed data.
            OSError: missing or unreadable data.
        """

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Window]:
        """The epoch's windows from number `start` on."""


class TrainingSource(Protocol):
    """Utterances to learn from."""

    @property
    def totals(self) -> Totals:
        """Known without reading the utterances."""

    def fingerprint(self) -> str:
        """sha256 over all that the order and content of the data depend on."""

    def open(self, tokenizer: CharTokenizer, gate: Gate, seed: int, ranks: Ranks) -> Windows:
        """Begin to read.

        Args:
            tokenizer: turns texts into label ids; what it cannot is left out.
            gate: says which other utterances are left out.
            seed: of the run.
            ranks: who reads.

        Raises:
            ValueError: too little data for that many ranks.
        """


class ManifestSource:
    """Utterances that are all in memory, their audio in files: one window an epoch.

    Args:
        utterances: with normalised text and known durations.
    """

    def __init__(self, utterances: Sequence[Utterance]) -> None:
        self.utterances = tuple(utterances)

    @property
    def totals(self) -> Totals:
        """Of the manifest."""
        durations = [utterance.duration or 0.0 for utterance in self.utterances]
        return Totals(len(durations), sum(durations), max(durations, default=0.0))

    def fingerprint(self) -> str:
        """sha256 over ids, durations, offsets and texts."""
        rows = [[item.id, item.duration, item.offset, item.text] for item in self.utterances]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()

    def open(
        self, tokenizer: CharTokenizer, gate: Gate, seed: int, ranks: Ranks
    ) -> ManifestWindows:
        """Label all utterances; seed and ranks decide nothing, as every rank reads every file."""
        labels = label(self.utterances, tokenizer, gate)
        rows = zip(self.utterances, labels, strict=True)
        kept = [(item, tokens) for item, tokens in rows if not isinstance(tokens, Finding)]
        window = Window(
            index=0,
            utterances=tuple(item for item, _ in kept),
            tokens=tuple(tokens for _, tokens in kept),
        )
        return ManifestWindows(window, tuple(each for each in labels if isinstance(each, Finding)))


@dataclass(frozen=True)
class ManifestWindows:
    """The one window of a manifest, the same in every epoch.

    Attributes:
        window: what can be trained on.
        left_out: what cannot, known before the first epoch: no window names it again.
    """

    window: Window
    left_out: tuple[Finding, ...] = ()

    @property
    def totals(self) -> Totals:
        """Of the window."""
        return ManifestSource(self.window.utterances).totals

    def count(self) -> int:
        """One."""
        return 1

    def load(self, epoch: int, number: int) -> Window:
        """The window."""
        assert number == 0, "there is one"
        return self.window

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Window]:
        """The window, unless it is done."""
        yield from (self.window,)[start:]
