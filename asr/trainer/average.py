"""An exponential moving average of the weights, which validates and is saved in their place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


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
        self._parameters = dict(model.named_parameters()) if decay else {}
        self._average = {
            name: parameter.detach().clone() for name, parameter in self._parameters.items()
        }

    @torch.no_grad()
    def update(self) -> None:
        """Take the present weights in; after every optimiser step."""
        if self._parameters:
            decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
            torch._foreach_lerp_(self._averages(), self._weights(), 1 - decay)
        self.num_updates += 1

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model has the averaged weights within the block, and its own again after it."""
        own = [weight.clone() for weight in self._weights()]
        _copy(self._averages(), self._weights())
        try:
            yield
        finally:
            _copy(own, self._weights())

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` brings back."""
        return {"num_updates": self.num_updates, "average": self._average}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with an average from where it was saved.

        Raises:
            ValueError: of a model with other weights, or where one has an average and one has none.
        """
        found = {name: list(tensor.shape) for name, tensor in state_dict["average"].items()}
        expected = {name: list(tensor.shape) for name, tensor in self._average.items()}
        for name in sorted(found.keys() | expected.keys()):
            if found.get(name) != expected.get(name):
                raise ValueError(
                    f"average of {name} has shape {found.get(name)}, expected {expected.get(name)}"
                )
        for name, tensor in self._average.items():
            tensor.copy_(state_dict["average"][name])
        self.num_updates = state_dict["num_updates"]

    def _averages(self) -> list[Tensor]:
        return list(self._average.values())

    def _weights(self) -> list[Tensor]:
        return [parameter.detach() for parameter in self._parameters.values()]


def _copy(sources: list[Tensor], targets: list[Tensor]) -> None:
    if sources:  # torch has no loop over nothing
        torch._foreach_copy_(targets, sources)
