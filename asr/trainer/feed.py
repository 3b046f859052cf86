"""What a rank learns from: the windows of an epoch, each planned in optimiser steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from asr.data.batch import Batch, BatchLoader
from asr.data.plan import Order, rank_batches
from asr.data.source import Ranks, Windows
from asr.data.window import Window

Group = list[tuple[int, ...]]  # the batches of one optimiser step, of all ranks


@dataclass(frozen=True)
class Feed:
    """Plans and loads the training utterances.

    Attributes:
        windows: of the training data.
        loader: of a RequestDataset, whose loading processes have been started.
        seed: of the run.
        batch_duration_s: largest padded batch of a rank [s].
        accumulate: batches of a rank for one optimiser step.
        sort_first_epoch: start with the shortest utterances, of a window at a time.
        ranks: which of them this one is.
    """

    windows: Windows
    loader: BatchLoader
    seed: int
    batch_duration_s: float
    accumulate: int
    sort_first_epoch: bool
    ranks: Ranks

    def epoch(self, epoch: int, start: int) -> Iterator[WindowFeed]:
        """The windows of an epoch from number `start` on, the same plans on every rank."""
        for window in self.windows.epoch(epoch, start):
            yield self.of(window, epoch)

    def of(self, window: Window, epoch: int) -> WindowFeed:
        """One window, planned."""
        is_sorted = epoch == 0 and self.sort_first_epoch
        batches = window.plan(
            seed=self.seed,
            epoch=epoch,
            batch_duration_s=self.batch_duration_s,
            world_size=self.ranks.world_size,
            accumulate=self.accumulate,
            order=Order.ASCENDING if is_sorted else Order.SHUFFLED,
        )
        size = self.ranks.world_size * self.accumulate
        groups = [batches[i : i + size] for i in range(0, len(batches), size)]
        return WindowFeed(self, window, epoch, groups)


@dataclass(frozen=True)
class WindowFeed:
    """A window in optimiser steps.

    Attributes:
        feed: that it comes from.
        window: the utterances.
        epoch: from 0.
        groups: the optimiser steps, the same on every rank.
    """

    feed: Feed
    window: Window
    epoch: int
    groups: list[Group]

    @cached_property
    def durations(self) -> list[float]:
        """Of each utterance [s]."""
        return self.window.durations

    def steps(self, groups: Sequence[Group]) -> Iterator[list[Batch]]:
        """For each of the groups, this rank's batches, loaded when asked for."""
        ranks = self.feed.ranks
        planned = [batch for group in groups for batch in group]
        own = rank_batches(planned, ranks.world_size, ranks.rank)
        batches = self.feed.loader.load(self.window.requests(self.epoch, own))
        for group in groups:
            yield [next(batches) for _ in range(len(group) // ranks.world_size)]

    def done(self, group: int) -> float:
        """Epochs trained in the middle of the step with that number."""
        before, after = self.window.shares
        return self.epoch + before + (after - before) * (group + 0.5) / len(self.groups)

    def num_tokens(self, group: Group) -> int:
        """Characters of a step, over all ranks."""
        return sum(len(self.window.tokens[position]) for batch in group for position in batch)

    def audio_s(self, group: Group) -> float:
        """Audio of a step, over all ranks [s]."""
        return sum(self.durations[position] for batch in group for position in batch)
