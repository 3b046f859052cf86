"""An LSTM layer on a GPU: all steps in one launch, both directions together, by Triton.

The product with the input and the gradients of the weights are torch's matrix products over all
frames at once. For the plain, the cell-recurrent and the peephole cell one kernel goes through all
steps, the recurrent matrix kept on the chip, if it has room for it. Else each step is launched:
with a recurrent product, and the gates while its sums are in registers. layer_norm takes two
launches, as it needs whole rows of the product first, and the projection two, as it is a product
itself. These are captured in a graph once, and replayed for every batch after.

Arrays and letters are those of `triton_launch`. Tests run the same kernels on a CPU, in Triton's
interpreter (TRITON_INTERPRET=1).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from asr.model.kernels.operator import Passes, register
from asr.model.kernels.triton_launch import (
    CellKind,
    LayerGradients,
    LayerState,
    Parameters,
    Saved,
    launch,
)
from asr.model.lengths import mask_padding
from asr.model.lstm_cell import NORM_EPSILON, Cell, Masks, Weights, input_sums


def _kind(
    parameters: Parameters, masks: Sequence[Tensor], c: Tensor, reads_c: bool, exact: bool,
    keep: bool,
) -> CellKind:  # fmt: skip
    import triton.language as tl

    types = {
        torch.float32: tl.float32, torch.float64: tl.float64, torch.bfloat16: tl.bfloat16,
        torch.float16: tl.float16,
    }  # fmt: skip
    directions, rows, width = parameters.weight_hh.shape
    units = c.shape[2]
    return CellKind(
        D=directions, H=units, R=width, G=rows // units, READS_C=reads_c,
        PEEPHOLE=parameters.weight_ch.numel() > 0, NORM=parameters.norm_hh.numel() > 0,
        PROJECTED=parameters.weight_hr.numel() > 0, MASKED=masks[0].numel() > 0,
        ZONED=masks[1].numel() > 0, KEEP=keep, EPSILON=NORM_EPSILON, FLOAT=types[c.dtype],
        WEIGHT=types[parameters.weight_hh.dtype], PRECISION="ieee" if exact else "tf32",
    )  # fmt: skip


def _saved_arrays(kind: CellKind, like: Tensor) -> Saved:
    """Zeros, as padding is never written."""
    sums = kind.G * kind.H
    widths = {
        "gates": sums if kind.KEEP else 0,
        "read": kind.R if kind.KEEP else 0,
        "saved_c": kind.H if kind.KEEP else 0,
        "unprojected": kind.H if kind.PROJECTED else 0,
        "normed": sums if kind.KEEP and kind.NORM else 0,
        "scales": 1 if kind.KEEP and kind.NORM else 0,
    }
    return Saved(**{name: like.new_zeros(*like.shape[:3], width) for name, width in widths.items()})


def _forward(
    sums: Tensor, lengths: Tensor, weights: list[Tensor], masks: list[Tensor],
    h_0: Tensor, c_0: Tensor, reads_c: bool, exact: bool, keep: bool,
) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:  # fmt: skip
    """The recurrence of a layer.

    Args:
        sums: the input's share, `(B, T, D, G * H)`, float32 or float64, as all but the matrices.
        lengths: `(B,)` int64.
        weights: a `Parameters`.
        masks: recurrent `(D, B, R)`, zone_h `(B, T, D, R)` and zone_c `(B, T, D, H)`, or empty.
        h_0: `(D, B, R)`.
        c_0: `(D, B, H)`.
        reads_c: whether the recurrent matrix reads c.
        exact: whether products of float32 are taken in full; else in tf32.
        keep: whether a backward pass follows.

    Returns:
        output `(B, T, D * R)`, h_n and c_n, and a `Saved`.
    """
    batch, frames, directions, _ = sums.shape
    kind = _kind(Parameters(*weights), masks, c_0, reads_c, exact, keep)
    saved = _saved_arrays(kind, sums)
    state = LayerState(
        sums=sums,
        h=torch.stack((h_0, h_0)),
        c=torch.stack((c_0, c_0)),
        products=sums.new_empty(directions, batch, kind.G * kind.H if kind.NORM else 0),
        output=sums.new_zeros(batch, frames, directions, h_0.shape[2]),
    )
    tensors = (*weights, *masks, *saved, *state, *[None] * len(LayerGradients._fields))
    last = launch(kind, tensors, lengths, frames, backward=False)
    # Copies: what an operator gives may not be part of one tensor.
    return state.output.flatten(2), state.h[last].clone(), state.c[last].clone(), [*saved]


def _backward(
    d_output: Tensor, d_h_n: Tensor, d_c_n: Tensor, lengths: Tensor, weights: list[Tensor],
    masks: list[Tensor], tensors: list[Tensor], reads_c: bool, exact: bool,
) -> tuple[Tensor, list[Tensor], Tensor, Tensor]:  # fmt: skip
    """Gradients of sums, the weights, h_0 and c_0 of `_forward`, which saved these tensors."""
    parameters, saved = Parameters(*weights), Saved(*tensors)
    batch, frames, directions, _ = saved.gates.shape
    kind = _kind(parameters, masks, d_c_n, reads_c, exact, keep=True)
    zeros = saved.gates.new_zeros
    gradients = LayerGradients(
        d_output=d_output.contiguous(),
        d_h=d_h_n.clone(memory_format=torch.contiguous_format),
        d_c=d_c_n.clone(memory_format=torch.contiguous_format),
        d_sums=torch.zeros_like(saved.gates),
        d_products=torch.zeros_like(saved.normed),
        d_projected=zeros(batch, frames, directions, kind.R if kind.PROJECTED else 0),
        d_read=zeros(directions, batch, kind.R if kind.NORM else 0),
        d_norm_c=zeros(directions, batch, kind.H if kind.NORM else 0),
        d_bias_c=zeros(directions, batch, kind.H if kind.NORM else 0),
    )
    given = (*weights, *masks, *saved, *[None] * len(LayerState._fields), *gradients)
    launch(kind, given, lengths, frames, backward=True)
    d_weights = _weight_gradients(parameters, saved, gradients, kind)
    return gradients.d_sums, d_weights, gradients.d_h, gradients.d_c


def _weight_gradients(
    p: Parameters, saved: Saved, g: LayerGradients, kind: CellKind
) -> list[Tensor]:
    """The gradients of `Parameters`; those of matrices are products in the matrices' type."""
    dtype = p.weight_hh.dtype

    def outer_products(left: Tensor, right: Tensor) -> Tensor:
        """`(B, T, D, m)` and `(B, T, D, n)` to `(D, m, n)`, summed over the frames."""
        pairs = zip(left.to(dtype).unbind(2), right.to(dtype).unbind(2), strict=True)
        return torch.stack([a.flatten(0, 1).mT @ b.flatten(0, 1) for a, b in pairs])

    d_products = g.d_products if kind.NORM else g.d_sums
    found = {"weight_hh": outer_products(d_products, saved.read)}
    if kind.PROJECTED:
        found["weight_hr"] = outer_products(g.d_projected, saved.unprojected)
    if kind.PEEPHOLE:
        *before, _, d_o = g.d_sums.chunk(kind.G, dim=-1)
        *i, f, candidate, _ = saved.gates.chunk(kind.G, dim=-1)
        c_next = f * saved.saved_c + (i[0] if i else 1 - f) * candidate
        seen = [*(d * saved.saved_c for d in before), torch.zeros_like(d_o), d_o * c_next]
        found["weight_ch"] = torch.stack([d.sum(dim=(0, 1)) for d in seen], dim=1)
    if kind.NORM:
        found["norm_hh"] = (g.d_sums * saved.normed).sum(dim=(0, 1))
        found["norm_c"] = g.d_norm_c.sum(dim=1)
        found["bias_c"] = g.d_bias_c.sum(dim=1)
    return [
        found[name].to(value.dtype) if name in found else torch.zeros_like(value)
        for name, value in p._asdict().items()
    ]


def _forward_shapes(
    sums: Tensor, lengths: Tensor, weights: list[Tensor], masks: list[Tensor],
    h_0: Tensor, c_0: Tensor, reads_c: bool, exact: bool, keep: bool,
) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:  # fmt: skip
    batch, frames, directions, _ = sums.shape
    output = sums.new_empty(batch, frames, directions * h_0.shape[2])
    kind = _kind(Parameters(*weights), masks, c_0, reads_c, exact, keep)
    return output, torch.empty_like(h_0), torch.empty_like(c_0), [*_saved_arrays(kind, sums)]


def _backward_shapes(
    d_output: Tensor, d_h_n: Tensor, d_c_n: Tensor, lengths: Tensor, weights: list[Tensor],
    masks: list[Tensor], saved: list[Tensor], reads_c: bool, exact: bool,
) -> tuple[Tensor, list[Tensor], Tensor, Tensor]:  # fmt: skip
    d_weights = [torch.empty_like(weight) for weight in weights]
    return torch.empty_like(saved[0]), d_weights, torch.empty_like(d_h_n), torch.empty_like(d_c_n)


_layer = register(
    "lstm_fused_triton", ("cpu", "cuda"),
    Passes(_forward, _backward, _forward_shapes, _backward_shapes), switches=("reads_c", "exact"),
)  # fmt: skip


def run(
    x: Tensor, lengths: Tensor, cell: Cell, weights: Sequence[Weights], masks: Sequence[Masks],
    h_0: Tensor, c_0: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """One layer in its D directions, see `lstm.Run`."""
    lengths = lengths.to(x.device, torch.int64)
    x = mask_padding(x, lengths)
    sums = input_sums(x, *weights)
    dtype = torch.promote_types(torch.float32, weights[0].weight_hh.dtype)
    matrix = weights[0].weight_hh.dtype
    is_mixed = torch.is_autocast_enabled(x.device.type)
    # c has no bound: bfloat16 would lose what the gates see of it, so there it is tf32.
    if is_mixed and not cell.reads_c:
        matrix = torch.get_autocast_dtype(x.device.type)
    exact = not is_mixed and torch.get_float32_matmul_precision() == "highest"
    empty = sums.new_empty(0, dtype=dtype)

    def stacked(name: str) -> Tensor:
        values = [getattr(direction, name) for direction in weights]
        if values[0] is None:
            return empty
        if name == "weight_ch":  # with a row for g, which sees nothing: all gates alike
            values = [torch.cat((v[:-1], torch.zeros_like(v[:1]), v[-1:])) for v in values]
        wanted = matrix if name in ("weight_hh", "weight_hr") else dtype
        return torch.stack(values).to(wanted)

    parameters = [stacked(name) for name in Parameters._fields]
    recurrent, *zones = zip(*masks, strict=True)
    drawn = [
        empty if recurrent[0] is None else torch.stack(recurrent).to(dtype),
        *(empty if z[0] is None else torch.stack(z, dim=2).to(dtype) for z in zones),
    ]
    h, c = h_0.to(dtype), c_0.to(dtype)
    output, h_n, c_n = _layer(sums.to(dtype), lengths, parameters, drawn, h, c, cell.reads_c, exact)
    return output.to(h_0.dtype), h_n.to(h_0.dtype), c_n.to(c_0.dtype)
