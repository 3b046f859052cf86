"""What a rank learns from: the plan of an epoch in optimiser steps, and the batches of the rest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from asr.data.batch import Batch, BatchLoader
from asr.data.plan import Order, plan_epoch, rank_batches

Group = list[tuple[int, ...]]  # the batches of one optimiser step, of all ranks


@dataclass(frozen=True)
class Feed:
    """Plans and loads the training utterances.

    Attributes:
        loader: of the training data.
        durations: of every utterance [s].
        seed: of the run.
        batch_duration_s: largest padded batch of a rank [s].
        accumulate: batches of a rank for one optimiser step.
        sort_first_epoch: start with the shortest utterances.
        world_size: number of ranks.
        rank: this one.
    """

    loader: BatchLoader
    durations: Sequence[float]
    seed: int
    batch_duration_s: float
    accumulate: int
    sort_first_epoch: bool
    world_size: int
    rank: int

    def groups(self, epoch: int) -> list[Group]:
        """The optimiser steps of an epoch, the same on every rank."""
        is_sorted = epoch == 0 and self.sort_first_epoch
        batches = plan_epoch(
            self.durations,
            seed=self.seed,
            epoch=epoch,
            batch_duration_s=self.batch_duration_s,
            world_size=self.world_size,
            accumulate=self.accumulate,
            order=Order.ASCENDING if is_sorted else Order.SHUFFLED,
        )
        size = self.world_size * self.accumulate
        return [batches[i : i + size] for i in range(0, len(batches), size)]

    def steps(self, epoch: int, groups: Sequence[Group]) -> Iterator[list[Batch]]:
        """For each of the groups, this rank's batches, loaded when asked for."""
        planned = [batch for group in groups for batch in group]
        own = rank_batches(planned, self.world_size, self.rank)
        batches = self.loader.batches(epoch, own)
        for group in groups:
            yield [next(batches) for _ in range(len(group) // self.world_size)]

    def num_tokens(self, group: Group) -> int:
        """Characters of a step, over all ranks."""
        tokens = self.loader.dataset.tokens
        return sum(len(tokens[position]) for batch in group for position in batch)

    def audio_s(self, group: Group) -> float:
        """Audio of a step, over all ranks [s]."""
        return sum(self.durations[position] for batch in group for position in batch)
