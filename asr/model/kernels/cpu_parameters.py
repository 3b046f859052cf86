"""A layer's parameters as the operator takes them, and as the compiled loops read them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from asr.model.kernels.cpu_arrays import Kind, Parameters
from asr.model.kernels.cpu_products import pack, pack_transposed
from asr.model.kernels.cpu_tile import COLUMNS
from asr.model.kernels.memory import empty
from asr.model.kernels.packing import run_tasks, task
from asr.model.lstm_cell import NORM_EPSILON, Weights


class Direction(NamedTuple):
    """The parameters of one direction, as in `Weights`; what a cell lacks is an empty tensor."""

    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor
    bias_hh: Tensor
    weight_hr: Tensor
    weight_ch: Tensor
    norm_ih: Tensor
    norm_hh: Tensor
    norm_c: Tensor
    bias_c: Tensor

    @property
    def units(self) -> int:
        """H."""
        return (self.weight_hr if len(self.weight_hr) else self.weight_hh).shape[1]

    @property
    def bias(self) -> Tensor:
        """Both biases added up, `(G * H,)`."""
        if len(self.bias_ih):
            return self.bias_ih + self.bias_hh
        return self.weight_hh.new_zeros(len(self.weight_hh))

    def kind(self, reads_c: bool) -> Kind:
        """The cell, as the time loops want it."""
        return Kind(len(self.weight_hh) // self.units, reads_c, NORM_EPSILON)


def to_list(weights: Sequence[Weights]) -> list[Tensor]:
    """All parameters, one direction after the other."""
    absent = weights[0].weight_ih.new_empty(0)
    return [absent if one is None else one for direction in weights for one in direction]


def of_list(parameters: Sequence[Tensor]) -> list[Direction]:
    """The directions that `to_list` took."""
    count = len(Direction._fields)
    starts = range(0, len(parameters), count)
    return [Direction(*parameters[start : start + count]) for start in starts]


def for_loops(layer: Sequence[Direction], *, backward: bool = False) -> Parameters:
    """What the time loops read, on the way there or back."""
    panels, tasks = {}, []
    for name in ("weight_ih", "weight_hh", "weight_hr"):
        matrices = [getattr(direction, name) for direction in layer]
        if not len(matrices[0]):
            panels[name] = matrices[0].new_empty(0, 1, 1, COLUMNS)
            continue
        columns, depth = matrices[0].shape[:: -1 if backward else 1]
        count = -(-columns // COLUMNS)
        panels[name] = empty((len(layer), count, depth, COLUMNS), matrices[0])
        pack_one = pack if backward else pack_transposed
        pairs = zip(panels[name], matrices, strict=True)
        tasks += [task(pack_one, to, matrix.contiguous()) for to, matrix in pairs]
    run_tasks(tasks)

    def stacked(name: str, dims: int) -> Tensor:
        values = [getattr(direction, name) for direction in layer]
        return torch.stack(values) if len(values[0]) else values[0].new_empty([0] + [1] * dims)

    bias = stacked("bias", 1)
    start = nn.functional.pad(bias, (0, -bias.shape[1] % COLUMNS))[:, None]
    return Parameters(
        panels_ih=panels["weight_ih"],
        panels=panels["weight_hh"],
        panels_hr=panels["weight_hr"],
        weight_ch=stacked("weight_ch", 2),
        norm_ih=stacked("norm_ih", 1),
        norm_hh=stacked("norm_hh", 1),
        bias=bias,
        start=torch.zeros_like(start) if len(layer[0].norm_ih) else start,
        norm_c=stacked("norm_c", 1),
        bias_c=stacked("bias_c", 1),
    )
