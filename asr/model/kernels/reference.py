"""The loop over a cell's step: the truth, for tests and odd devices."""

from __future__ import annotations

import torch
from torch import Tensor

from asr.model.kernels.directions import each_direction
from asr.model.lengths import length_mask
from asr.model.lstm_cell import Cell, Noise, Weights, input_sums

ADVANTAGE = "serves every cell, dtype and device"


def refusal(cell: Cell, weights: Weights, noisy: bool) -> str | None:
    """Why this backend cannot serve: never.

    Args:
        cell: of the layer.
        weights: of one of its directions.
        noisy: whether recurrent dropout or zoneout is on.
    """
    return None


@each_direction
def run(
    x: Tensor, lengths: Tensor, cell: Cell, weights: Weights, noise: Noise, h: Tensor, c: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """One direction of a layer; `each_direction` makes the whole layer of it.

    Args:
        x: `(B, T, in)`, zero in the padding.
        lengths: `(B,)` int64 [frames].
        cell: one of `CELLS`.
        weights: of this direction.
        noise: of this direction.
        h: `(B, R)`, the state before the first frame.
        c: `(B, H)`, likewise.

    Returns:
        output `(B, T, R)`, zero in the padding; h_n `(B, R)` and c_n `(B, H)` at each sequence's
        own end.
    """
    valid = length_mask(lengths, x.shape[1])[..., None]
    kept_h, kept_c = (
        [None] * x.shape[1] if zone is None else zone.unbind(1)
        for zone in (noise.zone_h, noise.zone_c)
    )
    outputs = []
    # unbind, not indexing: the gradient of sums[:, t] would fill a whole (B, T, 4H) each step.
    sums = input_sums(x, weights).squeeze(2).unbind(1)
    for step in zip(sums, valid.unbind(1), kept_h, kept_c, strict=True):
        sums_t, inside, keep_h, keep_c = step
        recurrent = c if cell.reads_c else h
        if noise.recurrent is not None:
            recurrent = recurrent * noise.recurrent
        h_next, c_next = cell.step(sums_t, recurrent, c, weights)
        h = torch.where(inside, _zone_out(h_next, h, keep_h), h)
        c = torch.where(inside, _zone_out(c_next, c, keep_c), c)
        outputs.append(torch.where(inside, h, 0.0))
    return torch.stack(outputs, dim=1), h, c


def _zone_out(after: Tensor, before: Tensor, keep: Tensor | None) -> Tensor:
    return after if keep is None else torch.lerp(after, before, keep)
