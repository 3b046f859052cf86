"""Plain torch operations with a backward pass written by hand, for where no compiler serves.

Both directions take a step together, the second one's time reversed by length. The gradients of the
recurrent weights are left for the end, one matrix product over all frames, where autograd would add
up one a frame; and of each frame only what the way back needs is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from asr.model.kernels.directions import by_direction
from asr.model.lengths import length_mask, mask_padding, reverse_by_length
from asr.model.lstm_cell import NORM_EPSILON, Cell, Noise, Weights, input_sums

ADVANTAGE = "torch operations, serves every cell and device"


def refusal(cell: Cell, weights: Weights, noisy: bool) -> str | None:
    """Why this backend cannot serve: never; arguments as in `reference`."""
    return None


class _Parts(NamedTuple):
    """Of the recurrence, directions first; None for what the cell lacks.

    Attributes:
        weight_hh: `(D, G * H, R)`.
        weight_hr: `(D, R, H)`.
        weight_ch: `(G - 1, D, 1, H)`.
        norm_hh: `(D, 1, G * H)`.
        norm_c: `(D, 1, H)`.
        bias_c: `(D, 1, H)`.
        mask: `(D, B, R)`.
        zone_h: `(T, D, B, R)`.
        zone_c: `(T, D, B, H)`.
    """

    weight_hh: Tensor
    weight_hr: Tensor | None
    weight_ch: Tensor | None
    norm_hh: Tensor | None
    norm_c: Tensor | None
    bias_c: Tensor | None
    mask: Tensor | None
    zone_h: Tensor | None
    zone_c: Tensor | None


def run(
    x: Tensor, lengths: Tensor, cell: Cell, weights: Sequence[Weights], noise: Sequence[Noise],
    h_0: Tensor, c_0: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """One layer in its D directions, see `directions.Run`."""
    x = mask_padding(x, lengths)
    sums = list(input_sums(x, *weights).unbind(2))
    zones = [[part.zone_h, part.zone_c] for part in noise]
    if len(weights) == 2:
        sums[1] = reverse_by_length(sums[1], lengths)
        zones[1] = [None if z is None else reverse_by_length(z, lengths) for z in zones[1]]

    def stacked(name: str, unsqueeze: int | None = None) -> Tensor | None:
        values = [getattr(direction, name) for direction in weights]
        if values[0] is None:
            return None
        tensor = torch.stack(values)
        return tensor if unsqueeze is None else tensor.unsqueeze(unsqueeze)

    weight_ch = stacked("weight_ch", 1)
    parts = _Parts(
        torch.stack([direction.weight_hh for direction in weights]),
        stacked("weight_hr"),
        None if weight_ch is None else weight_ch.permute(2, 0, 1, 3),
        stacked("norm_hh", 1),
        stacked("norm_c", 1),
        stacked("bias_c", 1),
        None if noise[0].recurrent is None else torch.stack([n.recurrent for n in noise]),  # type: ignore[misc]
        *(_time_first([pair[k] for pair in zones]) for k in range(2)),
    )
    inside = length_mask(lengths, x.shape[1]).T[:, None, :, None]  # (T, 1, B, 1)
    all_sums = _time_first(sums)
    output, h_n, c_n = _Layer.apply(cell.reads_c, inside, all_sums, h_0, c_0, *parts)
    outputs = list(output.permute(1, 2, 0, 3).unbind(0))  # (B, T, R) of each direction
    if len(weights) == 2:
        outputs[1] = reverse_by_length(outputs[1], lengths)
    return torch.cat(outputs, dim=-1), h_n, c_n


def _time_first(parts: Sequence[Tensor | None]) -> Any:
    """`(B, T, F)` of each direction to `(T, D, B, F)`; None for None."""
    if parts[0] is None:
        return None
    return torch.stack(parts).permute(2, 0, 1, 3)  # type: ignore[arg-type]


class _Frame(NamedTuple):
    """What the way back needs of a frame, `(D, B, ...)`; gates are values, i is None if coupled."""

    read: Tensor
    c: Tensor
    i: Tensor | None
    f: Tensor
    g: Tensor
    o: Tensor
    c_next: Tensor
    seen: Tensor  # tanh's value
    normed_c: Tensor | None
    scale_c: Tensor | None
    normed_hh: Tensor | None
    scale_hh: Tensor | None


def _normalize(x: Tensor) -> tuple[Tensor, Tensor]:
    """To mean 0 and variance 1 in the last dimension; and 1 over the deviation."""
    x = x - x.mean(dim=-1, keepdim=True)
    scale = (x.square().mean(dim=-1, keepdim=True) + NORM_EPSILON).rsqrt()
    return x * scale, scale


def _normalize_backward(d: Tensor, normed: Tensor, scale: Tensor) -> Tensor:
    slope = (d * normed).mean(dim=-1, keepdim=True)
    return scale * (d - d.mean(dim=-1, keepdim=True) - normed * slope)


def _step(sums: Tensor, read: Tensor, c: Tensor, parts: _Parts) -> tuple[Tensor, _Frame]:
    """One frame of all directions: o * tanh(c_t), and what is kept."""
    products = torch.bmm(read, parts.weight_hh.mT)
    normed_hh = scale_hh = normed_c = scale_c = None
    if parts.norm_hh is not None:
        normed_hh, scale_hh = _normalize(products)
        products = normed_hh * parts.norm_hh
    *before, g, o = (sums + products).chunk(sums.shape[-1] // c.shape[-1], dim=-1)
    if parts.weight_ch is not None:
        before = [s + p * c for s, p in zip(before, parts.weight_ch, strict=False)]
    *i, f = (torch.sigmoid(s) for s in before)
    g = torch.tanh(g)
    c_next = torch.addcmul(f * c, i[0] if i else 1 - f, g)
    if parts.weight_ch is not None:
        o = torch.addcmul(o, parts.weight_ch[-1], c_next)
    o = torch.sigmoid(o)
    seen = c_next
    if parts.norm_c is not None and parts.bias_c is not None:
        normed_c, scale_c = _normalize(c_next)
        seen = normed_c * parts.norm_c + parts.bias_c
    seen = torch.tanh(seen)
    kept = (normed_c, scale_c, normed_hh, scale_hh)
    return o * seen, _Frame(read, c, i[0] if i else None, f, g, o, c_next, seen, *kept)


class _Sums(NamedTuple):
    """Gradients of a frame: of the input's and the recurrent share, of c_{t-1}, of parameters."""

    d_sums: Tensor
    d_products: Tensor
    d_c: Tensor
    parameters: dict[str, Tensor]


def _step_backward(frame: _Frame, d_h: Tensor, d_c: Tensor, parts: _Parts) -> _Sums:
    """The way back through `_step`, from the gradients of its h and of c_t."""
    found: dict[str, Tensor] = {}
    d_o = d_h * frame.seen * frame.o * (1 - frame.o)
    d_seen = d_h * frame.o * (1 - frame.seen.square())
    if frame.normed_c is not None and frame.scale_c is not None and parts.norm_c is not None:
        found["norm_c"], found["bias_c"] = d_seen * frame.normed_c, d_seen
        d_seen = _normalize_backward(d_seen * parts.norm_c, frame.normed_c, frame.scale_c)
    d_c = d_c + d_seen
    if parts.weight_ch is not None:
        d_c = d_c + parts.weight_ch[-1] * d_o
    d_f, d_g = d_c * frame.c, d_c * (1 - frame.g.square())
    if frame.i is None:
        before = [(d_f - d_c * frame.g) * frame.f * (1 - frame.f)]
        d_g = d_g * (1 - frame.f)
    else:
        d_i = d_c * frame.g * frame.i * (1 - frame.i)
        before = [d_i, d_f * frame.f * (1 - frame.f)]
        d_g = d_g * frame.i
    d_c = d_c * frame.f
    if parts.weight_ch is not None:
        for p, d in zip(parts.weight_ch, before, strict=False):
            d_c = d_c + p * d
        seen = [d * frame.c for d in before]
        found["weight_ch"] = torch.stack([*seen, d_o * frame.c_next])
    d_sums = torch.cat([*before, d_g, d_o], dim=-1)
    d_products = d_sums
    if frame.normed_hh is not None and frame.scale_hh is not None and parts.norm_hh is not None:
        found["norm_hh"] = d_sums * frame.normed_hh
        d_products = _normalize_backward(d_sums * parts.norm_hh, frame.normed_hh, frame.scale_hh)
    return _Sums(d_sums, d_products, d_c, found)


class _Layer(torch.autograd.Function):
    """The time loop, all directions at once."""

    @staticmethod
    def forward(
        ctx: Any, reads_c: bool, inside: Tensor, sums: Tensor, h: Tensor, c: Tensor,
        *parts_and_noise: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        parts = _Parts(*parts_and_noise)  # type: ignore[arg-type]
        frames, outputs = [], []
        for t, (sums_t, inside_t) in enumerate(zip(sums.unbind(0), inside.unbind(0), strict=True)):
            read = c if reads_c else h
            if parts.mask is not None:
                read = read * parts.mask
            unprojected, frame = _step(sums_t, read, c, parts)
            h_next, c_next = unprojected, frame.c_next
            if parts.weight_hr is not None:
                h_next = torch.bmm(unprojected, parts.weight_hr.mT)
            if parts.zone_h is not None and parts.zone_c is not None:
                h_next = torch.lerp(h_next, h, parts.zone_h[t])
                c_next = torch.lerp(c_next, c, parts.zone_c[t])
            h = torch.where(inside_t, h_next, h)
            c = torch.where(inside_t, c_next, c)
            outputs.append(torch.where(inside_t, h, 0.0))
            frames.append(frame)
        ctx.reads_c = reads_c
        kept = [
            None if values[0] is None else torch.stack(values)
            for values in zip(*frames, strict=True)
        ]
        ctx.save_for_backward(inside, *parts, *kept)
        return torch.stack(outputs), h, c

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        inside, *tensors = ctx.saved_tensors
        parts = _Parts(*tensors[: len(_Parts._fields)])
        kept = _Frame(*tensors[len(_Parts._fields) :])
        d_output, d_h, d_c = gradients
        count = len(d_output)
        d_sums, d_products, d_fresh = [], [], []
        totals: dict[str, Tensor] = {}
        for t in reversed(range(count)):
            frame = _Frame(*(None if value is None else value[t] for value in kept))  # type: ignore[arg-type]
            d_h_next = torch.where(inside[t], d_h + d_output[t], 0.0)
            d_c_next = torch.where(inside[t], d_c, 0.0)
            d_h, d_c = (torch.where(inside[t], 0.0, d) for d in (d_h, d_c))
            if parts.zone_h is not None and parts.zone_c is not None:
                d_h = d_h + parts.zone_h[t] * d_h_next
                d_c = d_c + parts.zone_c[t] * d_c_next
                d_h_next = (1 - parts.zone_h[t]) * d_h_next
                d_c_next = (1 - parts.zone_c[t]) * d_c_next
            if parts.weight_hr is not None:
                d_fresh.append(d_h_next)
                d_h_next = torch.bmm(d_h_next, parts.weight_hr)
            back = _step_backward(frame, d_h_next, d_c_next, parts)
            d_read = torch.bmm(back.d_products, parts.weight_hh)
            if parts.mask is not None:
                d_read = d_read * parts.mask
            d_c = d_c + back.d_c + (d_read if ctx.reads_c else 0)
            d_h = d_h if ctx.reads_c else d_h + d_read
            d_sums.append(back.d_sums)
            d_products.append(back.d_products)
            for name, value in back.parameters.items():
                totals[name] = totals[name] + value if name in totals else value
        d_all = torch.stack(d_sums[::-1])
        d_recurrent = d_all if parts.norm_hh is None else torch.stack(d_products[::-1])
        d_weight_hh = by_direction(d_recurrent.transpose(1, 2), kept.read.transpose(1, 2))
        d_weight_hr = None
        if parts.weight_hr is not None:
            d_fresh_all = torch.stack(d_fresh[::-1]).transpose(1, 2)
            d_weight_hr = by_direction(d_fresh_all, (kept.o * kept.seen).transpose(1, 2))
        by_name = {name: value.sum(dim=-2, keepdim=True) for name, value in totals.items()}
        d_parts = (d_weight_hh, d_weight_hr, *map(by_name.get, _Parts._fields[2:6]))
        return None, None, d_all, d_h, d_c, *d_parts, None, None, None
