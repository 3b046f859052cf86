"""Learning-rate schedules: pure functions of the share of the training that is done."""

from __future__ import annotations

import math
from typing import Protocol


class Schedule(Protocol):
    """Factor on the optimiser's learning rate at `progress`, the share of the training done."""

    def __call__(self, progress: float) -> float: ...


class _WarmUp:
    """Rises in a line from 0 to 1 over the first part, then follows `_after`.

    Args:
        warmup: share of the training, 0 to less than 1.
        floor: the lowest factor after the warm-up.
    """

    def __init__(self, warmup: float = 0.05, floor: float = 0.0) -> None:
        if not 0 <= warmup < 1:
            raise ValueError(f"warmup {warmup:g}, expected a share of the training, 0 to below 1")
        if not 0 <= floor <= 1:
            raise ValueError(f"floor {floor:g}, expected a factor of 0 to 1")
        self.warmup = warmup
        self.floor = floor

    def __call__(self, progress: float) -> float:
        if progress < self.warmup:
            return progress / self.warmup
        rest = min((progress - self.warmup) / (1 - self.warmup), 1.0)
        return self.floor + (1 - self.floor) * self._after(rest)

    def _after(self, rest: float) -> float:
        raise NotImplementedError


class Constant(_WarmUp):
    """Stays at 1 after the warm-up."""

    def __init__(self, warmup: float = 0.05) -> None:
        super().__init__(warmup)

    def _after(self, rest: float) -> float:
        return 1.0


class Linear(_WarmUp):
    """Falls in a line to the floor."""

    def _after(self, rest: float) -> float:
        return 1.0 - rest


class Cosine(_WarmUp):
    """Falls along half a cosine to the floor (Loshchilov and Hutter, "SGDR", ICLR 2017)."""

    def _after(self, rest: float) -> float:
        return 0.5 * (1 + math.cos(math.pi * rest))


class InverseSqrt(_WarmUp):
    """Falls with the square root of the progress after the warm-up, as in Vaswani et al. (2017)."""

    def _after(self, rest: float) -> float:
        start = max(self.warmup, 1e-3)
        return math.sqrt(start / (start + rest * (1 - self.warmup)))
