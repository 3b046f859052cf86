"""The gradients of a model in one buffer: one exchange a step, one norm, one look for NaN."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import nn

ALIGNMENT = 16  # [elements] between starts of gradients, for vectors of 64 bytes


class Gradients:
    """Every parameter's `.grad` is a view of one flat buffer, which backward passes add into.

    Args:
        parameters: of one dtype and device; their gradients are replaced.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self.parameters = list(parameters)
        starts, size = [], 0
        for parameter in self.parameters:
            starts.append(size)
            size += math.ceil(parameter.numel() / ALIGNMENT) * ALIGNMENT
        first = self.parameters[0]
        self.flat = torch.zeros(size, dtype=first.dtype, device=first.device)
        self.views = [
            # In the parameter's own memory layout: optimisers go over both side by side.
            self.flat.as_strided(parameter.size(), parameter.stride(), start)
            for parameter, start in zip(self.parameters, starts, strict=True)
        ]
        self.zero()

    def zero(self) -> None:
        """Before the first backward pass of a step."""
        self.flat.zero_()
        for parameter, view in zip(self.parameters, self.views, strict=True):
            parameter.grad = view

    def norm(self) -> float:
        """Of all gradients together; infinite or NaN where one is."""
        return float(torch.linalg.vector_norm(self.flat))

    def norms(self, blocks: Sequence[Iterable[nn.Parameter]]) -> list[float]:
        """Of each block's gradients; 0 where none of it learns."""
        views = zip(self.parameters, self.views, strict=True)
        squares = {parameter: view.square().sum() for parameter, view in views}
        zero = self.flat.new_zeros(())
        sums = [sum((squares.get(p, zero) for p in block), zero) for block in blocks]
        norms: list[float] = torch.stack(sums).sqrt().tolist()
        return norms

    def scale(self, factor: float) -> None:
        """Multiply all gradients."""
        self.flat.mul_(factor)
