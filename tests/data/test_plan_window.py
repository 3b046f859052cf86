"""The plan of a window: each rank's own utterances, the same number of like batches for each."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, product

import numpy as np
import pytest

from asr.data.plan import LENGTH_JITTER, Order, plan_window

BUDGET = 20.0
WORLDS = (1, 2, 3, 5)


def windows(world_size: int) -> Iterator[tuple[int, list[float], list[int]]]:
    """Seeds, durations and owners; some ranks hold far more than others, some nothing."""
    for seed in range(40):
        generator = np.random.default_rng((seed, world_size))
        count = int(generator.integers(1, 80))
        weights = generator.dirichlet(np.full(world_size, 0.7))
        durations = np.round(generator.uniform(0.3, 9.0, count), int(generator.integers(3)))
        yield seed, durations.tolist(), generator.choice(world_size, count, p=weights).tolist()


@pytest.mark.parametrize("order", list(Order))
@pytest.mark.parametrize(("world_size", "accumulate"), [*product(WORLDS, [1]), (2, 3)])
def test_each_utterance_once_with_its_owner_within_the_budget(
    world_size: int, accumulate: int, order: Order
) -> None:
    for seed, durations, owners in windows(world_size):
        for epoch, window in product(range(2), range(2)):
            plan = plan_window(
                durations, owners, seed=seed, epoch=epoch, window=window, batch_duration_s=BUDGET,
                world_size=world_size, accumulate=accumulate, order=order,
            )  # fmt: skip
            assert sorted(chain(*plan)) == list(range(len(durations)))
            assert len(plan) % world_size == 0
            for index, batch in enumerate(plan):
                assert {owners[position] for position in batch} <= {index % world_size}
                assert len(batch) * max((durations[p] for p in batch), default=0) <= BUDGET
            for start in range(0, len(plan), world_size):  # no row without any utterance
                assert any(plan[start : start + world_size])


@pytest.mark.parametrize("world_size", WORLDS)
def test_no_more_batches_than_the_busiest_rank_needs(world_size: int) -> None:
    for seed, durations, owners in windows(world_size):
        plan = plan_window(
            durations, owners, seed=seed, epoch=0, window=0, batch_duration_s=BUDGET,
            world_size=world_size, order=Order.ASCENDING,
        )  # fmt: skip
        needed = []
        for rank in range(world_size):
            own = [d for d, owner in zip(durations, owners, strict=True) if owner == rank]
            alone = plan_window(
                own, [0] * len(own), seed=seed, epoch=0, window=0, batch_duration_s=BUDGET,
                order=Order.ASCENDING,
            )  # fmt: skip
            needed.append(len(alone))
        assert len(plan) == world_size * max(needed)
        for rank in range(world_size):  # nobody idles who has utterances enough
            empty = sum(not batch for batch in plan[rank::world_size])
            assert empty == max(0, max(needed) - owners.count(rank))


def test_the_batches_side_by_side_are_alike_in_length() -> None:
    generator = np.random.default_rng(3)
    durations = generator.uniform(1.0, 15.0, 1200).tolist()
    owners = generator.choice(4, 1200, p=[0.4, 0.2, 0.2, 0.2]).tolist()
    plan = plan_window(
        durations, owners, seed=0, epoch=0, window=0, batch_duration_s=60.0, world_size=4
    )
    for start in range(0, len(plan), 4):
        means = [np.mean([durations[p] for p in batch]) for batch in plan[start : start + 4]]
        assert max(means) / min(means) < 1.5
        sizes = [durations[p] for p in chain(*plan[start : start + 4])]
        assert max(sizes) / min(sizes) < 2.0 * (1 + LENGTH_JITTER) / (1 - LENGTH_JITTER)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_shuffling_moves_whole_steps(accumulate: int) -> None:
    generator = np.random.default_rng(4)
    durations = generator.uniform(1.0, 5.0, 400).tolist()
    owners = [position % 2 for position in range(400)]
    plan = plan_window(
        durations, owners, seed=0, epoch=0, window=0, batch_duration_s=BUDGET, world_size=2,
        accumulate=accumulate,
    )  # fmt: skip
    size = 2 * accumulate
    steps = [plan[start : start + size] for start in range(0, len(plan), size)]
    spread = [
        max(durations[p] for p in chain(*step)) / min(durations[p] for p in chain(*step))
        for step in steps[:-1]
    ]
    assert max(spread) < 2.2
    means = [np.mean([durations[p] for p in chain(*step)]) for step in steps]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.5


def test_a_pure_function_that_differs_between_seeds_epochs_and_windows() -> None:
    durations = np.random.default_rng(5).uniform(1.0, 5.0, 60).tolist()
    owners = [position % 3 for position in range(60)]
    plans = {
        key: plan_window(
            durations, owners, seed=key[0], epoch=key[1], window=key[2], batch_duration_s=BUDGET,
            world_size=3,
        )
        for key in product(range(2), repeat=3)
    }  # fmt: skip
    assert len({str(plan) for plan in plans.values()}) == 8
    again = plan_window(
        list(durations), tuple(owners), seed=1, epoch=0, window=1, batch_duration_s=BUDGET,
        world_size=3,
    )  # fmt: skip
    assert again == plans[1, 0, 1]


def test_two_ranks_by_hand() -> None:
    # Rank 0 needs (1 1 2), (3 3), (9): three batches of at most 10 s. Rank 1 would fit into two,
    # (1 2 2) and (4 4); from 6 s up to less than 8 s its budget gives three, below that four.
    durations = [3.0, 1.0, 9.0, 2.0, 3.0, 1.0, 4.0, 2.0, 1.0, 4.0, 2.0]
    owners = [0] * 6 + [1] * 5
    plan = plan_window(
        durations, owners, seed=0, epoch=0, window=0, batch_duration_s=10.0, world_size=2,
        order=Order.ASCENDING,
    )  # fmt: skip
    assert plan == [(1, 5, 3), (8, 7, 10), (0, 4), (6,), (2,), (9,)]


def test_a_rank_without_utterances_idles() -> None:
    plan = plan_window(
        [2.0, 3.0], [1, 1], seed=0, epoch=0, window=0, batch_duration_s=3.0, world_size=2,
        order=Order.ASCENDING,
    )  # fmt: skip
    assert plan == [(), (0,), (), (1,)]


def test_nothing_to_plan() -> None:
    assert plan_window([], [], seed=0, epoch=0, window=0, batch_duration_s=3.0) == []


def test_an_utterance_longer_than_the_budget() -> None:
    with pytest.raises(ValueError, match=r"utterance 1 lasts 20\.01 s, expected at most"):
        plan_window([1.0, 20.01], [0, 0], seed=0, epoch=0, window=0, batch_duration_s=20.0)
