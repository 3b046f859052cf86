"""The epoch plan: every utterance once, like lengths together, the same for everyone who asks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, combinations, product

import numpy as np
import pytest

from asr.data.plan import LENGTH_JITTER, Order, plan_epoch, rank_batches

BUDGET = 20.0
WORLDS = (1, 2, 3, 4)


def corpora() -> Iterator[tuple[int, list[float]]]:
    """Seeds and random durations of 4 to 60 utterances, some of them equal."""
    for seed in range(25):
        generator = np.random.default_rng(seed)
        count = int(generator.integers(4, 60))
        yield (
            seed,
            np.round(generator.uniform(0.3, 9.0, count), int(generator.integers(3))).tolist(),
        )


def padded_size(batch: Sequence[int], durations: Sequence[float]) -> float:
    return len(batch) * max(durations[position] for position in batch)


@pytest.mark.parametrize("order", list(Order))
@pytest.mark.parametrize("world_size", WORLDS)
def test_each_utterance_once_within_the_budget_in_equal_shares(
    world_size: int, order: Order
) -> None:
    for seed, durations in corpora():
        for epoch in range(3):
            plan = plan_epoch(
                durations,
                seed=seed,
                epoch=epoch,
                batch_duration_s=BUDGET,
                world_size=world_size,
                order=order,
            )
            assert sorted(chain(*plan)) == list(range(len(durations)))
            assert all(plan)
            assert max(padded_size(batch, durations) for batch in plan) <= BUDGET
            assert len(plan) % world_size == 0


@pytest.mark.parametrize(("world_size", "accumulate"), [*product(WORLDS, [1]), (1, 3), (2, 2)])
def test_the_batches_of_a_step_are_neighbours_in_length(world_size: int, accumulate: int) -> None:
    size = world_size * accumulate
    for seed, durations in corpora():
        plan = plan_epoch(
            durations,
            seed=seed,
            epoch=1,
            batch_duration_s=BUDGET,
            world_size=world_size,
            accumulate=accumulate,
        )
        assert sorted(chain(*plan)) == list(range(len(durations)))
        steps = [
            [durations[i] for i in chain(*plan[k : k + size])] for k in range(0, len(plan), size)
        ][: len(plan) // size]
        for one, other in combinations(steps, 2):  # no overlap, but for the jitter
            below = max(one) * (1 - LENGTH_JITTER) <= min(other) * (1 + LENGTH_JITTER)
            above = max(other) * (1 - LENGTH_JITTER) <= min(one) * (1 + LENGTH_JITTER)
            assert below or above


@pytest.mark.parametrize("world_size", WORLDS)
def test_ranks_share_the_plan_and_step_together(world_size: int) -> None:
    for seed, durations in corpora():
        plan = plan_epoch(
            durations, seed=seed, epoch=0, batch_duration_s=BUDGET, world_size=world_size
        )
        shares = [rank_batches(plan, world_size, rank) for rank in range(world_size)]
        assert {len(share) for share in shares} == {len(plan) // world_size}
        # Step k of all ranks together is batches k W to (k + 1) W of the whole plan.
        assert list(chain(*zip(*shares, strict=True))) == plan


def test_a_pure_function_of_its_arguments() -> None:
    for seed, durations in corpora():
        plans = {
            (s, e): plan_epoch(durations, seed=s, epoch=e, batch_duration_s=BUDGET)
            for s, e in product((seed, seed + 1), (0, 1))
        }
        again = plan_epoch(list(durations), seed=seed, epoch=1, batch_duration_s=BUDGET)
        assert again == plans[seed, 1]
        if len(durations) > 12:
            assert len({str(plan) for plan in plans.values()}) == 4


def test_each_epoch_mixes_batches_and_their_members() -> None:
    durations = np.random.default_rng(7).uniform(1.0, 5.0, 200).tolist()
    members = [
        {frozenset(b) for b in plan_epoch(durations, seed=0, epoch=e, batch_duration_s=BUDGET)}
        for e in range(2)
    ]
    assert len(members[0] & members[1]) < len(members[0]) / 2
    positions = list(chain(*plan_epoch(durations, seed=0, epoch=0, batch_duration_s=BUDGET)))
    sizes = [durations[position] for position in positions]
    assert abs(np.corrcoef(sizes, np.arange(200))[0, 1]) < 0.3  # not in the order of length


def test_batches_hold_like_lengths_and_little_padding() -> None:
    durations = np.random.default_rng(8).uniform(1.0, 5.0, 1000).tolist()
    plan = plan_epoch(durations, seed=0, epoch=0, batch_duration_s=60.0)
    for batch in plan:
        sizes = [durations[position] for position in batch]
        # Jitter of a tenth either way: neighbours by key are at most 1.1 / 0.9 apart, with the
        # width of the batch itself on top.
        assert max(sizes) / min(sizes) < 1.5
    assert sum(durations) / sum(padded_size(batch, durations) for batch in plan) > 0.85
    assert np.median([padded_size(batch, durations) for batch in plan]) > 0.9 * 60.0


def test_ascending_starts_with_the_shortest_whatever_seed_and_epoch() -> None:
    for seed, durations in corpora():
        arguments = {"batch_duration_s": BUDGET, "order": Order.ASCENDING}
        plan = plan_epoch(durations, seed=seed, epoch=0, **arguments)  # type: ignore[arg-type]
        other = plan_epoch(durations, seed=seed + 1, epoch=5, **arguments)  # type: ignore[arg-type]
        assert other == plan
        sizes = [durations[position] for position in chain(*plan)]
        assert sizes == sorted(durations)


def test_ascending_by_hand() -> None:
    # Budget 10: 1 1 2 is 3 * 2; with 3 it would be 4 * 3. Then 3 3 and 9 alone.
    durations = [3.0, 1.0, 9.0, 2.0, 3.0, 1.0]
    plan = plan_epoch(durations, seed=0, epoch=0, batch_duration_s=10.0, order=Order.ASCENDING)
    assert plan == [(1, 5, 3), (0, 4), (2,)]


def test_two_ranks_split_the_largest_batch_by_hand() -> None:
    durations = [3.0, 1.0, 9.0, 2.0, 3.0, 1.0]
    plan = plan_epoch(
        durations, seed=0, epoch=0, batch_duration_s=10.0, world_size=2, order=Order.ASCENDING
    )
    assert plan == [(1,), (5, 3), (0, 4), (2,)]


def test_a_batch_may_fill_the_budget_exactly() -> None:
    plan = plan_epoch([2.0] * 6, seed=0, epoch=0, batch_duration_s=6.0)
    assert sorted(map(len, plan)) == [3, 3]


def test_an_utterance_longer_than_the_budget() -> None:
    message = r"utterance 1 lasts 20\.01 s, expected at most batch_duration_s = 20 s"
    with pytest.raises(ValueError, match=message):
        plan_epoch([1.0, 20.01, 3.0], seed=0, epoch=0, batch_duration_s=20.0)


def test_no_utterances() -> None:
    with pytest.raises(ValueError, match="no utterances, expected at least 1"):
        plan_epoch([], seed=0, epoch=0, batch_duration_s=20.0)


@pytest.mark.parametrize("order", Order)
@pytest.mark.parametrize(("world_size", "accumulate"), [(2, 1), (3, 1), (8, 1), (2, 3)])
def test_single_utterances_that_do_not_divide_by_the_ranks(
    world_size: int, accumulate: int, order: Order
) -> None:
    for epoch in range(5):
        plan = plan_epoch(
            [6.0, 5.9, 6.0, 5.8, 6.0], seed=0, epoch=epoch, batch_duration_s=6.0,
            world_size=world_size, accumulate=accumulate, order=order,
        )  # fmt: skip
        assert len(plan) % world_size == 0
        assert sorted(map(len, plan)) == [0] * (-5 % world_size) + [1] * 5
        for start in range(0, len(plan), world_size):  # no step without any utterance
            assert any(plan[start : start + world_size])


def test_a_plan_for_another_number_of_ranks() -> None:
    with pytest.raises(AssertionError, match="another number of ranks"):
        rank_batches([(0,), (1,), (2,)], 2, 0)
