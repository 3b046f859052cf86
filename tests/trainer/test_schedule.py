"""Schedules at the points where their formulas can be worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from asr.trainer.schedule import Constant, Cosine, InverseSqrt, Linear, Schedule

WARMUP = 0.2
ALL: list[Callable[..., Schedule]] = [Constant, Linear, Cosine, InverseSqrt]


@pytest.mark.parametrize("kind", ALL)
def test_the_warm_up_is_a_line_from_0_to_1(kind: Callable[..., Schedule]) -> None:
    schedule = kind(warmup=WARMUP)
    assert [schedule(progress) for progress in (0.0, 0.05, 0.1)] == pytest.approx([0, 0.25, 0.5])
    assert schedule(WARMUP - 1e-9) == pytest.approx(1, abs=1e-6)
    assert schedule(WARMUP) == 1.0


@pytest.mark.parametrize(
    ("kind", "middle", "end"),
    [
        (Constant, 1.0, 1.0),
        (Linear, 0.5, 0.0),
        (Cosine, 0.5, 0.0),
        # The square root of warmup over progress: 0.2 / 0.6 and 0.2 / 1.
        (InverseSqrt, math.sqrt(1 / 3), math.sqrt(0.2)),
    ],
)
def test_shapes_after_the_warm_up(kind: Callable[..., Schedule], middle: float, end: float) -> None:
    schedule = kind(warmup=WARMUP)
    assert schedule(0.6) == pytest.approx(middle, abs=1e-12)
    assert schedule(1.0) == pytest.approx(end, abs=1e-12)


def test_the_cosine_is_none_of_the_lines() -> None:
    # A quarter of the way down: (1 + cos 45 degrees) / 2.
    assert Cosine(warmup=WARMUP)(0.4) == pytest.approx((1 + math.sqrt(0.5)) / 2)
    assert Linear(warmup=WARMUP)(0.4) == pytest.approx(0.75)


@pytest.mark.parametrize("kind", [Linear, Cosine])
def test_the_floor_is_where_it_ends(kind: Callable[..., Schedule]) -> None:
    schedule = kind(warmup=WARMUP, floor=0.1)
    assert schedule(WARMUP) == 1.0
    assert schedule(0.6) == pytest.approx(0.55)  # half of the way from 1 to 0.1
    assert schedule(1.0) == pytest.approx(0.1)


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("warmup", [0.0, 0.05, 0.5])
def test_up_then_down_and_never_outside_0_to_1(
    kind: Callable[..., Schedule], warmup: float
) -> None:
    schedule = kind(warmup=warmup)
    grid = np.linspace(0, 1, 1001)
    factors = np.array([schedule(progress) for progress in grid])
    assert (np.diff(factors[grid <= warmup]) > 0).all()
    assert (np.diff(factors[grid >= warmup]) <= 1e-12).all()
    assert factors.min() >= 0
    assert factors.max() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("kind", ALL)
def test_without_a_warm_up_it_starts_at_1(kind: Callable[..., Schedule]) -> None:
    assert kind(warmup=0.0)(0.0) == 1.0


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("warmup", [-0.1, 1.0, 20, float("nan")])
def test_a_warm_up_that_is_no_share(kind: Callable[..., Schedule], warmup: float) -> None:
    with pytest.raises(ValueError, match=rf"warmup {warmup:g}, expected a share of the training"):
        kind(warmup=warmup)


@pytest.mark.parametrize("kind", [Linear, Cosine, InverseSqrt])
@pytest.mark.parametrize("floor", [-0.1, 1.1, float("nan")])
def test_a_floor_that_is_no_factor(kind: Callable[..., Schedule], floor: float) -> None:
    with pytest.raises(ValueError, match=rf"floor {floor:g}, expected a factor of 0 to 1"):
        kind(floor=floor)
