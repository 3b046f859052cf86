"""What changes the weights: which of them learn, how fast, on what schedule, and their average."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from asr.model import BiLstmCtc

MakeOptimizer = Callable[[Iterable[dict[str, object]]], torch.optim.Optimizer]


# --- groups of parameters ----------------------------------------------------------------------


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that an optimiser treats alike.

    Attributes:
        rate: factor on the optimiser's learning rate.
        is_decayed: whether the optimiser's weight decay holds; else there is none.
        parameters: in the model's order.
    """

    rate: float
    is_decayed: bool
    parameters: list[nn.Parameter] = field(default_factory=list)


def freeze(model: BiLstmCtc, num_blocks: int) -> None:
    """Keep the lowest blocks as they are: weights, and running statistics of batch norm.

    Dropout acts in them as in the others. Call it before `train()`, which then leaves their batch
    norms in evaluation mode.

    Args:
        model: see its `blocks`.
        num_blocks: 0 for none.

    Raises:
        ValueError: below 0, or so many that nothing would learn.
    """
    top = len(model.blocks) - 1
    if not 0 <= num_blocks <= top:
        raise ValueError(
            f"trainer.frozen_layers {num_blocks}, expected 0 to {top}: the model has {top + 1} "
            "blocks, counted from the bottom (subsampling, LSTM layers, head)"
        )
    for block in model.blocks[:num_blocks]:
        for module in block:
            module.requires_grad_(False)


def make_optimizer(
    make: MakeOptimizer, model: BiLstmCtc, layer_decay: float = 1.0
) -> torch.optim.Optimizer:
    """An optimiser of all that learns, whose groups have the learning rate of their block.

    Args:
        make: of groups of parameters; its learning rate is that of the uppermost block.
        model: frozen where it is to be.
        layer_decay: see `parameter_groups`.

    Raises:
        ValueError: a layer decay outside of above 0 to 1.
    """
    groups = parameter_groups(model, layer_decay)
    no_decay: dict[str, object] = {"weight_decay": 0.0}
    optimizer = make(
        {"params": group.parameters} | ({} if group.is_decayed else no_decay) for group in groups
    )
    for settings, group in zip(optimizer.param_groups, groups, strict=True):
        settings["lr"] *= group.rate
    return optimizer


def parameter_groups(model: BiLstmCtc, layer_decay: float = 1.0) -> list[ParameterGroup]:
    """The parameters that learn, by learning rate and weight decay.

    What the lower blocks hear is more alike from task to task than what the upper ones make of it,
    so they may learn more slowly (Howard and Ruder, "Universal language model fine-tuning for text
    classification", ACL 2018). Weight decay is for matrices only: shrinking biases and norm gains
    regularises nothing.

    Args:
        model: see its `blocks`.
        layer_decay: the rate of each block is that of the one above times this.

    Returns:
        Groups with a parameter each, the lowest blocks first.

    Raises:
        ValueError: a layer decay outside of above 0 to 1.
    """
    if not 0 < layer_decay <= 1:
        raise ValueError(f"trainer.layer_decay {layer_decay:g}, expected above 0 to 1")
    rates = {
        parameter: layer_decay**above
        for above, block in enumerate(reversed(model.blocks))
        for module in block
        for parameter in module.parameters()
    }
    groups: dict[tuple[float, bool], ParameterGroup] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            key = (rates[parameter], parameter.ndim > 1)
            groups.setdefault(key, ParameterGroup(*key)).parameters.append(parameter)
    return sorted(groups.values(), key=lambda group: (group.rate, not group.is_decayed))


# --- schedules ---------------------------------------------------------------------------------


class Schedule(Protocol):
    """Factor on the optimiser's learning rate at `progress`, the share of the training done."""

    def __call__(self, progress: float) -> float: ...


class _WarmUp:
    """Rises in a line from 0 to 1 over the first part, then follows `_after` down to the floor.

    Args:
        warmup: share of the training, 0 to less than 1.
        floor: the lowest factor after the warm-up.
    """

    def __init__(self, warmup: float, floor: float) -> None:
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

    def __init__(self, warmup: float) -> None:
        super().__init__(warmup, floor=0.0)

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


# --- the average -------------------------------------------------------------------------------


class WeightAverage:
    """The exponential moving average of a model's parameters over its optimiser steps.

    With decay d, average = d * average + (1 - d) * weights: about the mean of the last 1 / (1 - d)
    steps (Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", 1992). At
    update n, counted from 0, d is at most (1 + n) / (10 + n), lest the first weights weigh on
    short trainings. Buffers, batch norm's running statistics above all, are no part of it: with the
    averaged weights the model keeps those that it has.

    Args:
        model: on its device; the average starts as its weights.
        decay: d, 0 to below 1. With 0 the average is the weights themselves, and takes no memory.

    Raises:
        ValueError: a decay outside of that.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"trainer.ema_decay {decay:g}, expected 0 to below 1")
        self.decay = decay
        self.num_updates = 0
        parameters = dict(model.named_parameters()) if decay else {}
        self._weights = {name: parameter.detach() for name, parameter in parameters.items()}
        self._average = {name: weight.clone() for name, weight in self._weights.items()}

    def update(self) -> None:
        """Take the present weights in; after every optimiser step."""
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        for name, average in self._average.items():
            average.lerp_(self._weights[name], 1 - decay)
        self.num_updates += 1

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model has the averaged weights within the block, and its own again after it."""
        own = {name: weight.clone() for name, weight in self._weights.items()}
        _copy(self._average, self._weights)
        try:
            yield
        finally:
            _copy(own, self._weights)

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` brings back."""
        return {"num_updates": self.num_updates, "average": self._average}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with an average of the same model from where it was saved."""
        _copy(state_dict["average"], self._average)
        self.num_updates = state_dict["num_updates"]


def _copy(sources: dict[str, Tensor], targets: dict[str, Tensor]) -> None:
    for name, target in targets.items():
        target.copy_(sources[name])
