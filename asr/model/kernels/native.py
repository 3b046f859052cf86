"""torch's own kernel, cuDNN on a GPU and oneDNN on a CPU, over the padded batch, never packed.

The kernel runs on through the padding, where one more input, 1 there and 0 elsewhere, closes the
input gate and opens the forget gate: the cell keeps its value exactly, so c_n is that of each
sequence's own end. h_n is read off at that end.
"""

from __future__ import annotations

import torch
from torch import Tensor

from asr.model.kernels.directions import each_direction
from asr.model.lengths import length_mask
from asr.model.lstm_cell import CELLS, Cell, Noise, Weights

ADVANTAGE = "torch's own kernel"


def refusal(cell: Cell, weights: Weights, noisy: bool) -> str | None:
    """Why torch's kernel cannot serve a layer, or None; arguments as in `reference`."""
    if cell not in (CELLS["lstm"], CELLS["projection"]) or weights.is_coupled:
        return "torch's kernel has the plain cell alone, with or without a projection"
    return "torch's kernel knows neither recurrent dropout nor zoneout" if noisy else None


@each_direction
def run(
    x: Tensor, lengths: Tensor, cell: Cell, weights: Weights, noise: Noise, h: Tensor, c: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """One direction of a layer, as in `reference`."""
    # A graph is made before the lengths are known.
    if not torch.compiler.is_compiling() and not bool((lengths < x.shape[1]).any()):
        return _kernel(x, weights, h, c)
    padding = ~length_mask(lengths, x.shape[1])[..., None]  # (B, T, 1)
    frozen = _freezing_column(weights)
    with_flag = weights._replace(weight_ih=torch.cat((weights.weight_ih, frozen), dim=1))
    output, _, c_n = _kernel(torch.cat((x, padding.to(x)), dim=-1), with_flag, h, c)
    last = (lengths - 1).clamp(min=0)[:, None, None].expand(-1, 1, output.shape[-1])
    h_n = torch.where(lengths[:, None] > 0, output.gather(1, last).squeeze(1), h)
    return output.masked_fill(padding, 0.0), h_n, c_n


def _kernel(x: Tensor, weights: Weights, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    params = [weight for weight in weights[:5] if weight is not None]  # in torch's own order
    has_biases = weights.bias_ih is not None
    training = torch.is_grad_enabled()
    output, h_n, c_n = torch.lstm(
        x, (h[None], c[None]), params, has_biases, 1, 0.0, training, False, True
    )
    return output, h_n[0], c_n[0]


def _freezing_column(weights: Weights) -> Tensor:
    """`(4H, 1)`: input gate to 0 and forget gate to 1, exactly; the rest untouched."""
    saturated = 1e4
    column = weights.weight_hh.new_zeros(4, weights.units)
    column[0], column[1] = -saturated, saturated
    return column.reshape(-1, 1)
