"""The epoch plan: which utterances make up which batch, as a pure function."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

import numpy as np

# Durations are jittered by up to this share before sorting, so that batches of like length still
# mix their members anew each epoch.
LENGTH_JITTER = 0.1
BUDGET_HALVINGS = 12  # steps of the search for a smaller budget: to a part in 4096


class Order(Enum):
    """Order of the batches of an epoch."""

    SHUFFLED = "shuffled"
    ASCENDING = "ascending"  # shortest first, a gentle start (Amodei et al., Deep Speech 2, 2016)


def plan_epoch(
    durations: Sequence[float],
    *,
    seed: int,
    epoch: int,
    batch_duration_s: float,
    world_size: int = 1,
    accumulate: int = 1,
    order: Order = Order.SHUFFLED,
) -> list[tuple[int, ...]]:
    """Batches of like length under a duration budget, in the order of training.

    Every utterance is in exactly one batch. Rank r of W takes the batches r, r + W, r + 2 W ...
    (`rank_batches`); their number divides by W, for which some batches are split in two, or, where
    all hold one utterance, a few empty ones are added. So W ranks see in one step what one process
    sees in W. The W * accumulate batches of a step are neighbours in length, so that the ranks take
    about as long and hardly wait for each other; the last step may have fewer.

    Args:
        durations: of every utterance [s]; positions in this sequence are what the plan holds.
        seed: of the run.
        epoch: from 0.
        batch_duration_s: largest padded size of a batch, longest duration times members [s].
        world_size: number of ranks W.
        accumulate: batches of a rank for one optimiser step.
        order: of the batches; ASCENDING ignores seed and epoch.

    Returns:
        The batches of all ranks, each a tuple of positions.

    Raises:
        ValueError: no utterance, or one longer than the budget.
    """
    if not durations:
        raise ValueError("no utterances, expected at least 1")
    _check_longest(durations, batch_duration_s)
    generator = np.random.default_rng((seed, epoch))
    sizes = np.asarray(durations, dtype=np.float64)
    batches = _cut(_by_length(sizes, order, generator), sizes, batch_duration_s)
    while len(batches) % world_size and _halve_largest(batches):
        pass
    if order is Order.SHUFFLED:
        batches = _shuffle_steps(batches, world_size * accumulate, generator)
    return batches + [()] * (-len(batches) % world_size)


def plan_window(
    durations: Sequence[float],
    owners: Sequence[int],
    *,
    seed: int,
    epoch: int,
    window: int,
    batch_duration_s: float,
    world_size: int = 1,
    accumulate: int = 1,
    order: Order = Order.SHUFFLED,
) -> list[tuple[int, ...]]:
    """`plan_epoch` for utterances whose audio is held by one rank each.

    Every utterance is in exactly one batch, and batch i belongs to rank i modulo W, who holds the
    audio of its members. Each rank's utterances are cut into the same number of batches in order of
    length, so that the W batches side by side are alike: a rank that needs fewer than the others
    gets a smaller budget, and where it has fewer utterances than that, empty batches.

    Args:
        durations: of every utterance of the window, all ranks' [s].
        owners: the rank that holds each utterance's audio, from 0.
        seed: of the run.
        epoch: from 0.
        window: from 0, within the epoch.
        batch_duration_s: largest padded size of a batch, longest duration times members [s].
        world_size: number of ranks W.
        accumulate: batches of a rank for one optimiser step.
        order: of the batches; ASCENDING ignores seed, epoch and window.

    Returns:
        The batches of all ranks, each a tuple of positions; none for no utterance.

    Raises:
        ValueError: an utterance longer than the budget.
    """
    if not durations:
        return []
    _check_longest(durations, batch_duration_s)
    generator = np.random.default_rng((seed, epoch, window))
    sizes = np.asarray(durations, dtype=np.float64)
    shares: list[list[int]] = [[] for _ in range(world_size)]
    for position in _by_length(sizes, order, generator):
        shares[owners[position]].append(position)
    count = max(len(_cut(share, sizes, batch_duration_s)) for share in shares)
    columns = [_cut_into(count, share, sizes, batch_duration_s) for share in shares]
    batches = [batch for row in zip(*columns, strict=True) for batch in row]
    if order is Order.SHUFFLED:
        batches = _shuffle_steps(batches, world_size * accumulate, generator)
    return batches


def plan_evaluation(
    durations: Sequence[float], *, batch_duration_s: float, world_size: int = 1
) -> list[tuple[int, ...]]:
    """Batches to decode a split in, shortest first.

    Args:
        durations: of every utterance [s].
        batch_duration_s: largest padded size of a batch [s]; the longest utterance, if longer.
        world_size: number of ranks.

    Raises:
        ValueError: no utterance.
    """
    return plan_epoch(
        durations,
        seed=0,
        epoch=0,
        batch_duration_s=max(batch_duration_s, *durations),
        world_size=world_size,
        order=Order.ASCENDING,
    )


def rank_batches(
    batches: Sequence[tuple[int, ...]], world_size: int, rank: int
) -> Sequence[tuple[int, ...]]:
    """One rank's share of a plan that was made for `world_size` ranks."""
    assert len(batches) % world_size == 0, "the plan was made for another number of ranks"
    return batches[rank::world_size]


def _check_longest(durations: Sequence[float], batch_duration_s: float) -> None:
    longest = max(range(len(durations)), key=durations.__getitem__)
    if durations[longest] > batch_duration_s:
        raise ValueError(
            f"utterance {longest} lasts {durations[longest]:.2f} s, expected at most "
            f"batch_duration_s = {batch_duration_s:g} s"
        )


def _by_length(sizes: np.ndarray, order: Order, generator: np.random.Generator) -> list[int]:
    """Positions, shortest first but for the jitter."""
    jitter = generator.uniform(1 - LENGTH_JITTER, 1 + LENGTH_JITTER, len(sizes))
    keys = sizes if order is Order.ASCENDING else sizes * jitter
    positions: list[int] = np.argsort(keys, kind="stable").tolist()
    return positions


def _cut(indices: list[int], sizes: np.ndarray, budget: float) -> list[tuple[int, ...]]:
    batches: list[tuple[int, ...]] = []
    batch: list[int] = []
    longest = 0.0
    for index in indices:
        longest = max(longest, sizes[index])
        if batch and longest * (len(batch) + 1) > budget:
            batches.append(tuple(batch))
            batch, longest = [], sizes[index]
        batch.append(index)
    return [*batches, tuple(batch)]


def _cut_into(
    count: int, indices: list[int], sizes: np.ndarray, budget: float
) -> list[tuple[int, ...]]:
    """Cut into exactly `count` batches, of which the last ones may be empty."""
    if len(indices) <= count:
        return [(index,) for index in indices] + [()] * (count - len(indices))
    batches = _cut(indices, sizes, budget)
    low, high = 0.0, budget
    for _ in range(BUDGET_HALVINGS if len(batches) < count else 0):
        middle = (low + high) / 2
        finer = _cut(indices, sizes, middle)
        if len(finer) > count:
            low = middle
        else:
            high, batches = middle, finer
    while len(batches) < count:  # no budget may give just this number
        _halve_largest(batches)
    return batches


def _shuffle_steps(
    batches: list[tuple[int, ...]], size: int, generator: np.random.Generator
) -> list[tuple[int, ...]]:
    """Steps of `size` neighbours in random order; what is left over, taken anywhere, comes last."""
    num_steps, rest = divmod(len(batches), size)
    start = int(generator.integers(num_steps + 1)) * size
    left_over = batches[start : start + rest]
    batches = batches[:start] + batches[start + rest :]
    order = generator.permutation(num_steps)
    return [b for step in order for b in batches[step * size : (step + 1) * size]] + left_over


def _halve_largest(batches: list[tuple[int, ...]]) -> bool:
    """Put two halves in the place of the batch with the most members, unless that is one."""
    largest = max(range(len(batches)), key=lambda i: len(batches[i]))
    members = batches[largest]
    half = len(members) // 2
    if half:
        batches[largest : largest + 1] = [members[:half], members[half:]]
    return half > 0
