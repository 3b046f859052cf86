"""An LSTM layer on a CPU: each core runs the whole time loop of its share, compiled by Numba.

Padding is never computed. The product with the input and the gradients of the weights are torch's
matrix products over all packed frames at once; the recurrence, a matrix product and the gates for
each frame, is what is compiled.

D directions, 1 or 2; B utterances; N frames inside the lengths; H units; R the width of h; G gates;
W = G * H rounded up to 16. What a cell lacks is an empty tensor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from asr.model.kernels.cpu_arrays import Drawn, Gradients, Kept, Kind, Parameters, State
from asr.model.kernels.cpu_backward import run_backward
from asr.model.kernels.cpu_forward import run_forward
from asr.model.kernels.cpu_tile import COLUMNS
from asr.model.kernels.directions import by_direction
from asr.model.kernels.operator import register
from asr.model.kernels.packing import Packing, run_shares
from asr.model.lstm_cell import NORM_EPSILON, Cell, Noise, Weights

ADVANTAGE = "compiled for this CPU, skips padding"


def refusal(cell: Cell, weights: Weights, noisy: bool) -> str | None:
    """Why this backend cannot serve a layer, or None; arguments as in `reference`."""
    weight = weights.weight_hh
    if weight.device.type != "cpu" or weight.dtype not in (torch.float32, torch.float64):
        return (
            f"{weight.dtype} on {weight.device}, expected torch.float32 or torch.float64 on a CPU"
        )
    return None


class _Stacked(NamedTuple):
    """The parameters of a layer, directions stacked, as in `Weights`; both biases added up."""

    weight_ih: Tensor
    weight_hh: Tensor
    bias: Tensor
    weight_hr: Tensor
    weight_ch: Tensor
    norm_ih: Tensor
    norm_hh: Tensor
    norm_c: Tensor
    bias_c: Tensor

    @classmethod
    def of(cls, weights: Sequence[Weights]) -> _Stacked:
        """Stack; the bias is zero where there is none."""
        biases = [
            direction.bias_ih + direction.bias_hh
            for direction in weights
            if direction.bias_ih is not None and direction.bias_hh is not None
        ]
        first = weights[0].weight_hh
        zeros = first.new_zeros(len(weights), len(first))
        named = {
            name: torch.stack([getattr(direction, name) for direction in weights])
            for name in cls._fields
            if name != "bias" and getattr(weights[0], name) is not None
        }
        absent = {name: first.new_empty(0) for name in cls._fields}
        return cls(**absent | named | {"bias": torch.stack(biases) if biases else zeros})

    def kind(self, reads_c: bool) -> Kind:
        """The cell, as the time loops want it."""
        return Kind(self.weight_hh.shape[1] // self.units, reads_c, NORM_EPSILON)

    @property
    def units(self) -> int:
        """H."""
        return (self.weight_hr if len(self.weight_hr) else self.weight_hh).shape[2]

    def parameters(self, *, backward: bool = False, with_input: bool = False) -> Parameters:
        """Of the recurrence, for the way there or back, with the input's matrix or without."""
        panels = [
            _panels(matrix if backward else matrix.transpose(1, 2))
            if len(matrix)
            else matrix.new_empty(0, 1, 1, COLUMNS)
            for matrix in (
                self.weight_ih if with_input else self.weight_ih.new_empty(0), self.weight_hh,
                self.weight_hr,
            )
        ]  # fmt: skip
        return Parameters(
            panels_ih=panels[0],
            panels=panels[1],
            panels_hr=panels[2],
            weight_ch=_with_dims(self.weight_ch, 3),
            norm_ih=_with_dims(self.norm_ih, 2),
            norm_hh=_with_dims(self.norm_hh, 2),
            bias=_with_dims(self.bias, 2),
            norm_c=_with_dims(self.norm_c, 2),
            bias_c=_with_dims(self.bias_c, 2),
        )


def _with_dims(tensor: Tensor, dims: int) -> Tensor:
    """Contiguous; an empty one with so many dimensions as the full one has."""
    return tensor.contiguous() if len(tensor) else tensor.new_empty(0, *[1] * (dims - 1))


def _panels(weights: Tensor) -> Tensor:
    """`(D, K, columns)` weights as contiguous panels of 16 columns, `(D, panels, K, 16)`."""
    padded = nn.functional.pad(weights, (0, -weights.shape[2] % COLUMNS))
    return padded.unflatten(2, (-1, COLUMNS)).transpose(1, 2).contiguous()


def _padded(weights: Tensor) -> Tensor:
    """`(D, 4H, K)` with zeros up to the whole panels' W rows, flat: `(D * W, K)`."""
    return nn.functional.pad(weights, (0, 0, 0, -weights.shape[1] % COLUMNS)).flatten(0, 1)


def _forward(
    x: Tensor, lengths: Tensor, weights: list[Tensor], drawn: list[Tensor],
    h_0: Tensor, c_0: Tensor, reads_c: bool, keep: bool,
) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:  # fmt: skip
    """One layer.

    Args:
        x: `(B, T, in)`, float32 or float64, as all the following.
        lengths: `(B,)` int64.
        weights: a `_Stacked`.
        drawn: mask `(D, B, R)`, zone_h `(D, B, T, R)` and zone_c `(D, B, T, H)`.
        h_0: `(D, B, R)`.
        c_0: `(D, B, H)`.
        reads_c: whether the recurrent matrix reads c.
        keep: whether a backward pass follows.

    Returns:
        output `(B, T, D * R)`, h_n and c_n; and if a backward pass follows, x packed `(N, in)` and
        a `Kept`.
    """
    stacked = _Stacked(*weights)
    batch, frames, _ = x.shape
    directions, _, width = h_0.shape
    packing = Packing.of(lengths, frames)
    packed = x.flatten(0, 1).index_select(0, packing.rows)
    # Where every thread has a share of the loop, it can take the product with the input as well.
    is_tiled = not keep and len(packing.shares(directions)) >= torch.get_num_threads()
    parameters = stacked.parameters(with_input=is_tiled)
    if is_tiled:
        sums = x.new_empty(0, directions * parameters.panels.shape[1] * COLUMNS)
    elif len(parameters.norm_ih):  # normalised first, the bias comes after
        sums = packed @ _padded(stacked.weight_ih).T
    else:
        bias = _padded(stacked.bias[..., None]).T
        sums = torch.addmm(bias, packed, _padded(stacked.weight_ih).T)
    inputs = packed if is_tiled else packed[:0]
    noise = _packed_noise(drawn, packing, batch, frames)
    h, c = h_0[:, packing.order], c_0[:, packing.order]
    recurrent = (c if reads_c else h).clone()
    if len(noise.mask):
        recurrent *= noise.mask
    output = x.new_zeros(batch * frames, directions, width)
    kept = _room(sums.unflatten(1, (directions, -1)), parameters, recurrent, c, keep)
    kind = stacked.kind(reads_c)
    arguments = (kind, parameters, noise, kept, inputs, State(h, c, recurrent), output)
    run_shares(run_forward, arguments, packing, directions)
    h_n, c_n = torch.empty_like(h), torch.empty_like(c)
    h_n[:, packing.order], c_n[:, packing.order] = h, c
    return output.view(batch, frames, -1), h_n, c_n, [packed, *kept] if keep else []


def _packed_noise(drawn: list[Tensor], packing: Packing, batch: int, frames: int) -> Drawn:
    mask, *zones = drawn
    mask = mask[:, packing.order] if len(mask) else mask.new_empty(0, 1, 1)
    packed = [
        zone.flatten(1, 2)[:, packing.rows].transpose(0, 1).contiguous()  # (N, D, R or H)
        if len(zone)
        else zone.new_empty(0, 1, 1)
        for zone in zones
    ]
    return Drawn(mask, *packed)


def _room(sums: Tensor, parameters: Parameters, read: Tensor, c: Tensor, keep: bool = True) -> Kept:
    """Where the forward pass writes; only the gates where no backward pass follows."""
    rows, directions, width = sums.shape
    rows = rows if keep else 0
    units = c.shape[2]
    normed = (rows if len(parameters.norm_hh) else 0, directions, width)
    return Kept(
        gates=sums,
        recurrent=sums.new_empty(rows, directions, read.shape[2]),
        c=sums.new_empty(rows, directions, units),
        unprojected=sums.new_empty(rows if len(parameters.panels_hr) else 0, directions, units),
        normed_ih=sums.new_empty(normed),
        normed_hh=sums.new_empty(normed),
        scales=sums.new_empty(*normed[:2], 2),
    )


def _backward(
    d_output: Tensor, d_h_n: Tensor, d_c_n: Tensor, lengths: Tensor, weights: list[Tensor],
    drawn: list[Tensor], kept: list[Tensor], reads_c: bool,
) -> tuple[Tensor, list[Tensor], Tensor, Tensor]:  # fmt: skip
    """Gradients of x, the weights, h_0 and c_0 of `_forward`, shaped like these."""
    stacked, packed, saved = _Stacked(*weights), kept[0], Kept(*kept[1:])
    batch, frames, _ = d_output.shape
    directions, rows, _ = stacked.weight_hh.shape
    packing = Packing.of(lengths, frames)
    parameters = stacked.parameters(backward=True)
    d_outputs = d_output.contiguous().view(batch * frames, directions, -1)
    d_h, d_c = d_h_n[:, packing.order], d_c_n[:, packing.order]
    gradients = _gradient_room(stacked, saved, d_h)
    noise = _packed_noise(drawn, packing, batch, frames)
    arguments = (
        stacked.kind(reads_c), parameters, noise, saved, gradients, d_outputs, d_h, d_c,
    )  # fmt: skip
    run_shares(run_backward, arguments, packing, directions)
    d_sums = gradients.input.flatten(1)
    d_x = packed.new_zeros(batch * frames, packed.shape[1])
    d_x[packing.rows] = d_sums @ _padded(stacked.weight_ih)
    d_products = gradients.recurrent if len(gradients.recurrent) else gradients.input
    has_norm, has_projection = len(stacked.norm_hh) > 0, len(stacked.weight_hr) > 0
    d_bias = gradients.bias.sum(dim=1) if has_norm else gradients.input[..., :rows].sum(dim=0)
    d_weights = _Stacked(
        weight_ih=(d_sums.T @ packed).unflatten(0, (directions, -1))[:, :rows].contiguous(),
        weight_hh=by_direction(d_products[..., :rows], saved.recurrent),
        bias=d_bias,
        weight_hr=by_direction(gradients.projected, saved.unprojected)
        if has_projection
        else torch.empty_like(stacked.weight_hr),
        weight_ch=_summed(gradients.weight_ch, stacked.weight_ch),
        norm_ih=_summed(gradients.norm_ih, stacked.norm_ih),
        norm_hh=_summed(gradients.norm_hh, stacked.norm_hh),
        norm_c=_summed(gradients.norm_c, stacked.norm_c),
        bias_c=_summed(gradients.bias_c, stacked.bias_c),
    )
    d_h_0, d_c_0 = torch.empty_like(d_h), torch.empty_like(d_c)
    d_h_0[:, packing.order], d_c_0[:, packing.order] = d_h, d_c
    return d_x.view(batch, frames, -1), list(d_weights), d_h_0, d_c_0


def _summed(by_utterance: Tensor, like: Tensor) -> Tensor:
    return by_utterance.sum(dim=1) if len(like) else torch.empty_like(like)


def _gradient_room(stacked: _Stacked, saved: Kept, d_h: Tensor) -> Gradients:
    """Where the backward pass writes, and adds up from zero."""
    frames, directions, width = saved.gates.shape
    batch = d_h.shape[1]
    has_norm, has_projection = len(stacked.norm_hh) > 0, len(stacked.weight_hr) > 0
    is_padded = width > stacked.weight_hh.shape[1]
    make = torch.zeros_like if is_padded else torch.empty_like

    def by_utterance(parameter: Tensor, dims: int, wanted: bool = True) -> Tensor:
        if not wanted or not len(parameter):
            return parameter.new_empty(0, *[1] * dims)
        return parameter.new_zeros(directions, batch, *parameter.shape[1:])

    return Gradients(
        input=make(saved.gates),
        recurrent=make(saved.gates) if has_norm else saved.gates.new_empty(0, 1, 1),
        projected=d_h.new_empty(frames if has_projection else 0, directions, d_h.shape[2]),
        weight_ch=by_utterance(stacked.weight_ch, 3),
        norm_ih=by_utterance(stacked.norm_ih, 2),
        norm_hh=by_utterance(stacked.norm_hh, 2),
        bias=by_utterance(stacked.bias, 2, has_norm),
        norm_c=by_utterance(stacked.norm_c, 2),
        bias_c=by_utterance(stacked.bias_c, 2),
    )


def _forward_shapes(
    x: Tensor, lengths: Tensor, weights: list[Tensor], drawn: list[Tensor],
    h_0: Tensor, c_0: Tensor, reads_c: bool, keep: bool,
) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:  # fmt: skip
    batch, frames, width = x.shape
    output = x.new_empty(batch, frames, len(h_0) * h_0.shape[2])
    states = torch.empty_like(h_0), torch.empty_like(c_0)
    if not keep:
        return output, *states, []
    stacked = _Stacked(*weights)
    directions, rows, _ = stacked.weight_hh.shape
    packed = torch.library.get_ctx().new_dynamic_size()
    sums = x.new_empty(packed, directions, rows + -rows % COLUMNS)
    kept = _room(sums, stacked.parameters(), c_0 if reads_c else h_0, c_0)
    return output, *states, [x.new_empty(packed, width), *kept]


def _backward_shapes(
    d_output: Tensor, d_h_n: Tensor, d_c_n: Tensor, lengths: Tensor, weights: list[Tensor],
    drawn: list[Tensor], kept: list[Tensor], reads_c: bool,
) -> tuple[Tensor, list[Tensor], Tensor, Tensor]:  # fmt: skip
    batch, frames, _ = d_output.shape
    d_x = d_output.new_empty(batch, frames, kept[0].shape[1])
    d_weights = [torch.empty_like(weight) for weight in weights]
    return d_x, d_weights, torch.empty_like(d_h_n), torch.empty_like(d_c_n)


_layer = register(
    "lstm_fused_cpu", ("cpu",), _forward, _backward, _forward_shapes, _backward_shapes,
    switches=("reads_c",),
)  # fmt: skip


def run(
    x: Tensor, lengths: Tensor, cell: Cell, weights: Sequence[Weights], noise: Sequence[Noise],
    h_0: Tensor, c_0: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """One layer in its D directions, see `directions.Run`."""
    stacked = list(_Stacked.of(weights))
    drawn = [
        x.new_empty(0) if part[0] is None else torch.stack(part)
        for part in zip(*noise, strict=True)
    ]
    x = x.to(stacked[0].dtype)
    return _layer(x, lengths.cpu(), stacked, drawn, h_0, c_0, cell.reads_c)
