"""What backends share about the two directions of a layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from asr.model.lengths import mask_padding, reverse_by_length
from asr.model.lstm_cell import Cell, Noise, Weights

# x (B, T, in), lengths (B,), cell, weights and noise of each direction, h_0 (D, B, R) and c_0
# (D, B, H) to output (B, T, D * R), h_n and c_n.
Run = Callable[
    [Tensor, Tensor, Cell, Sequence[Weights], Sequence[Noise], Tensor, Tensor],
    tuple[Tensor, Tensor, Tensor],
]
RunOne = Callable[
    [Tensor, Tensor, Cell, Weights, Noise, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]
]


def each_direction(run_one: RunOne) -> Run:
    """The run of a whole layer: the second direction's time is reversed by length, twice."""

    def run(
        x: Tensor, lengths: Tensor, cell: Cell, weights: Sequence[Weights],
        noise: Sequence[Noise], h_0: Tensor, c_0: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        x = mask_padding(x, lengths)
        ends = [run_one(x, lengths, cell, weights[0], noise[0], h_0[0], c_0[0])]
        if len(weights) == 2:
            back = _mirrored(noise[1], lengths)
            mirrored = reverse_by_length(x, lengths)
            output, h, c = run_one(mirrored, lengths, cell, weights[1], back, h_0[1], c_0[1])
            ends.append((reverse_by_length(output, lengths), h, c))
        outputs, h_n, c_n = zip(*ends, strict=True)
        return torch.cat(outputs, dim=-1), torch.stack(h_n), torch.stack(c_n)

    return run


def by_direction(left: Tensor, right: Tensor) -> Tensor:
    """`(..., D, m)` and `(..., D, n)` to `(D, m, n)`: outer products summed over the frames."""
    pairs = zip(left.unbind(-2), right.unbind(-2), strict=True)
    return torch.stack([a.flatten(0, -2).mT @ b.flatten(0, -2) for a, b in pairs])


def _mirrored(noise: Noise, lengths: Tensor) -> Noise:
    if noise.zone_h is None or noise.zone_c is None:
        return noise
    return noise._replace(
        zone_h=reverse_by_length(noise.zone_h, lengths),
        zone_c=reverse_by_length(noise.zone_c, lengths),
    )
