"""Ranges that draws come from, checked where a user gives them."""

from __future__ import annotations

from collections.abc import Sequence

MAX_DB = 100.0  # [dB] more than the range of 16-bit samples


def checked_range(
    name: str, pair: Sequence[float], lowest: float, highest: float, unit: str
) -> tuple[float, float]:
    """Check a range, and give it as a pair.

    Args:
        name: of the setting.
        pair: lowest and highest value.
        lowest: what the range may begin with.
        highest: what it may end with.
        unit: of all of them.

    Raises:
        ValueError: not two numbers, the wrong way round, or out of bounds.
    """
    is_pair = isinstance(pair, Sequence) and len(pair) == 2
    if not (
        is_pair
        and all(isinstance(number, int | float) for number in pair)
        and lowest <= pair[0] <= pair[1] <= highest
    ):
        shown = list(pair) if isinstance(pair, Sequence) else pair
        raise ValueError(
            f"{name} {shown}, expected [lowest, highest] within {lowest:g} to {highest:g} {unit}"
        )
    return pair[0], pair[1]


def checked_db(name: str, pair: Sequence[float]) -> tuple[float, float]:
    """Check a range of levels [dB]; raises ValueError as `checked_range` does."""
    return checked_range(name, pair, -MAX_DB, MAX_DB, "dB")


def checked_probability(probability: float) -> float:
    """Check a probability.

    Raises:
        ValueError: not within 0 to 1.
    """
    if not 0 <= probability <= 1:
        raise ValueError(f"probability {probability:g}, expected 0 to 1")
    return probability
