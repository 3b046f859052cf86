"""An LSTM layer on a GPU: a launch or two for each step, both directions in one, by Triton.

The product with the input and the gradients of the weights are torch's matrix products over all
frames at once. A step of the plain, the cell-recurrent and the peephole cell is one launch: the
recurrent product, and the gates while its sums are in registers. layer_norm takes two, as it needs
whole rows of the product first, and the projection two, as it is a product itself. On a GPU the
launches are captured in a graph once, and replayed for every batch after.

Tests run the same kernels on a CPU, in Triton's interpreter (TRITON_INTERPRET=1).
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Sequence
from functools import cache
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from asr.model.kernels.operator import register
from asr.model.lengths import mask_padding
from asr.model.lstm_cell import NORM_EPSILON, Cell, Noise, Weights, input_sums

ADVANTAGE = "compiled for this GPU"
CHUNK = 32  # steps of a captured graph, even: then h and c end where they began
ROWS = 16  # utterances of a tile, the least that a GPU's product takes
WIDTH = 16  # units of a tile; few, as the more programs, the less each waits for its weights
DEPTH = 64  # elements of a product at a time


def refusal(cell: Cell, weights: Weights, noisy: bool) -> str | None:
    """Why this backend cannot serve a layer, or None; arguments as in `reference`."""
    device, dtype = weights.weight_hh.device.type, weights.weight_hh.dtype
    if device != "cuda" and not (device == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"):
        return f"on {device}, expected a CUDA device"
    if importlib.util.find_spec("triton") is None:
        return "the package triton is not installed"
    return None if dtype.is_floating_point else f"{dtype}, expected floating point"


class _Parameters(NamedTuple):
    """Of the recurrence, directions stacked, as in `Weights`; what a cell lacks is empty."""

    weight_hh: Tensor
    weight_hr: Tensor
    weight_ch: Tensor
    norm_hh: Tensor
    norm_c: Tensor
    bias_c: Tensor


class _Drawn(NamedTuple):
    """mask `(D, B, R)`, zone_h `(B, T, D, R)` and zone_c `(B, T, D, H)`, or empty."""

    mask: Tensor
    zone_h: Tensor
    zone_c: Tensor


class _Kept(NamedTuple):
    """What the way back needs, `(B, T, D, ...)`; empty where no backward pass follows.

    Attributes:
        gates: values, `G * H`.
        recurrent: what the recurrent matrix read, after dropout, R.
        kept_c: c_{t-1}, H.
        unprojected: o * tanh(c_t) of a projection, H; there without a backward pass too.
        normed: the recurrent product of layer_norm, normalised, `G * H`.
        scales: 1 over its deviation.
    """

    gates: Tensor
    recurrent: Tensor
    kept_c: Tensor
    unprojected: Tensor
    normed: Tensor
    scales: Tensor


class _There(NamedTuple):
    """What else the way there uses: states `(2, D, B, ...)`, products `(D, B, G * H)`."""

    sums: Tensor
    h: Tensor
    c: Tensor
    products: Tensor
    output: Tensor


class _Back(NamedTuple):
    """What else the way back uses: frames `(B, T, D, ...)`, states `(D, B, ...)`."""

    d_output: Tensor
    d_h: Tensor
    d_c: Tensor
    d_sums: Tensor
    d_products: Tensor
    d_projected: Tensor
    d_read: Tensor
    d_norm_c: Tensor
    d_bias_c: Tensor


_PARTS = (_Parameters, _Drawn, _Kept, _There, _Back)
_NAMES = ["base", "batch", "frames", "lengths"]
_NAMES += [name for part in _PARTS for name in part._fields]
_Places = NamedTuple("_Places", [(name, int) for name in _NAMES])  # type: ignore[misc]
AT = _Places(*range(len(_NAMES)))  # of each array's address in the table


class Kind(NamedTuple):
    """What a kernel is compiled for.

    Attributes:
        D: directions.
        H: units.
        R: width of what the recurrent matrix reads.
        G: gates, 3 where they are coupled.
        READS_C: whether the recurrent matrix reads c.
        PEEPHOLE: whether gates see the cell state.
        NORM: whether it is normalised.
        PROJECTED: whether h is a projection.
        MASKED: whether there is recurrent dropout.
        ZONED: whether there is zoneout.
        KEEP: whether a backward pass follows.
        EPSILON: of the normalisation.
        FLOAT: Triton's type of sums and states.
        WEIGHT: that of the matrices.
        PRECISION: of products in float32: "ieee" or "tf32".
        BLOCK_B: utterances of a tile.
        BLOCK_N: units of a tile.
        BLOCK_K: elements of a product at a time.
        AT: the table's places.
    """

    D: int
    H: int
    R: int
    G: int
    READS_C: bool
    PEEPHOLE: bool
    NORM: bool
    PROJECTED: bool
    MASKED: bool
    ZONED: bool
    KEEP: bool
    EPSILON: float
    FLOAT: Any
    WEIGHT: Any
    PRECISION: str
    BLOCK_B: int = ROWS
    BLOCK_N: int = WIDTH
    BLOCK_K: int = DEPTH
    AT: Any = AT


Launch = tuple[str, tuple[int, int], Kind]  # of a kernel by name: its grid and what it is made for


def _steps() -> ModuleType:
    """The kernels; Triton is imported with them, and asks then whether to interpret."""
    from asr.model.kernels import triton_steps

    return triton_steps


def _kind(parameters: _Parameters, drawn: _Drawn, c: Tensor, reads_c: bool, keep: bool) -> Kind:
    import triton.language as tl

    types = {
        torch.float32: tl.float32, torch.float64: tl.float64, torch.bfloat16: tl.bfloat16,
        torch.float16: tl.float16,
    }  # fmt: skip
    weight = parameters.weight_hh
    directions, rows, width = weight.shape
    units = c.shape[2]
    # c has no bound: bfloat16 would lose what the gates see of it.
    is_coarse = torch.get_float32_matmul_precision() != "highest" or (
        reads_c and torch.is_autocast_enabled(weight.device.type)
    )
    return Kind(
        D=directions, H=units, R=width, G=rows // units, READS_C=reads_c,
        PEEPHOLE=parameters.weight_ch.numel() > 0, NORM=parameters.norm_hh.numel() > 0,
        PROJECTED=parameters.weight_hr.numel() > 0, MASKED=drawn.mask.numel() > 0,
        ZONED=drawn.zone_h.numel() > 0, KEEP=keep, EPSILON=NORM_EPSILON, FLOAT=types[c.dtype],
        WEIGHT=types[weight.dtype], PRECISION="tf32" if is_coarse else "ieee",
    )  # fmt: skip


def _launches(kind: Kind, batch: int, backward: bool) -> list[Launch]:
    """The launches of a step."""
    way = "backward" if backward else "forward"

    def launch(name: str, width: int) -> Launch:
        tiles = -(-batch // ROWS) * kind.D
        return f"{name}_{way}", (tiles, -(-width // WIDTH)), kind

    if kind.NORM:  # a program has whole rows, so fewer of them
        rows = kind._replace(BLOCK_B=2, BLOCK_N=1 << (kind.H - 1).bit_length())
        cell = f"cell_{way}", (-(-batch // 2) * kind.D, 1), rows
        return [launch("product", kind.R if backward else kind.G * kind.H), cell]
    cell = launch("cell", kind.H)
    if not kind.PROJECTED:
        return [cell]
    projection = launch("projection", kind.R)
    return [projection, cell] if backward else [cell, projection]


def _run_steps(
    launches: Sequence[Launch], tensors: Sequence[Tensor | None], lengths: Tensor, frames: int,
    first: int, steps: int,
) -> int:  # fmt: skip
    """Run so many steps from `first` on; gives how many ran, some more where a graph does it."""
    addresses = [0 if tensor is None else tensor.data_ptr() for tensor in tensors]
    entries = [first, len(lengths), frames, lengths.data_ptr(), *addresses]
    if lengths.device.type != "cuda":
        table = torch.tensor(entries)
        for offset in range(steps):
            _launch(launches, table, offset)
        return steps
    with torch.cuda.device(lengths.device):
        graph = _graph(tuple(launches), lengths.device, torch.cuda.current_stream().cuda_stream)
        graph.table.copy_(torch.tensor(entries))
        chunks = -(-steps // CHUNK)
        for _ in range(chunks):
            graph.replay()
    return chunks * CHUNK


def _launch(launches: Sequence[Launch], table: Tensor, offset: int) -> None:
    kernels = _steps()
    for name, grid, kind in launches:
        getattr(kernels, name)[grid](table, offset, kind)


class _Graph:
    """Some steps' launches, captured.

    Args:
        launches: of a step.
        device: a CUDA device.
    """

    def __init__(self, launches: Sequence[Launch], device: torch.device) -> None:
        self.table = torch.zeros(len(AT), dtype=torch.int64, device=device)
        _launch(launches, self.table, 0)  # compiles; of a batch of none
        torch.cuda.synchronize()
        is_backward = any(name.endswith("backward") for name, _, _ in launches)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for offset in range(CHUNK):
                _launch(launches, self.table, offset)
            self.table[:1] += -CHUNK if is_backward else CHUNK
        self.replay: Callable[[], None] = graph.replay
        self.table.zero_()


@cache
def _graph(launches: tuple[Launch, ...], device: torch.device, stream: int) -> _Graph:
    """One graph, and so one table, for each stream: its work is done in order."""
    return _Graph(launches, device)


def _room(kind: Kind, like: Tensor) -> _Kept:
    """Where the way there writes for the way back; zeros, as padding is never written."""
    kept = {
        "gates": kind.G * kind.H, "recurrent": kind.R, "kept_c": kind.H,
        "normed": kind.G * kind.H if kind.NORM else 0, "scales": 1 if kind.NORM else 0,
    }  # fmt: skip
    widths = {name: width if kind.KEEP else 0 for name, width in kept.items()}
    widths["unprojected"] = kind.H if kind.PROJECTED else 0
    return _Kept(**{name: like.new_zeros(*like.shape[:3], width) for name, width in widths.items()})


def _forward(
    sums: Tensor, lengths: Tensor, weights: list[Tensor], drawn: list[Tensor],
    h_0: Tensor, c_0: Tensor, reads_c: bool, keep: bool,
) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:  # fmt: skip
    """The recurrence of a layer.

    Args:
        sums: the input's share, `(B, T, D, G * H)`, float32 or float64, as all but the matrices.
        lengths: `(B,)` int64.
        weights: a `_Parameters`.
        drawn: a `_Drawn`.
        h_0: `(D, B, R)`.
        c_0: `(D, B, H)`.
        reads_c: whether the recurrent matrix reads c.
        keep: whether a backward pass follows.

    Returns:
        output `(B, T, D * R)`, h_n and c_n, and a `_Kept`.
    """
    parameters, noise = _Parameters(*weights), _Drawn(*drawn)
    batch, frames, directions, _ = sums.shape
    kind = _kind(parameters, noise, c_0, reads_c, keep)
    kept = _room(kind, sums)
    there = _There(
        sums=sums,
        h=torch.stack((h_0, h_0)),
        c=torch.stack((c_0, c_0)),
        products=sums.new_empty(directions, batch, kind.G * kind.H if kind.NORM else 0),
        output=sums.new_zeros(batch, frames, directions, h_0.shape[2]),
    )
    tensors = (*parameters, *noise, *kept, *there, *[None] * len(_Back._fields))
    launches = _launches(kind, batch, backward=False)
    last = _run_steps(launches, tensors, lengths, frames, 0, frames) % 2
    # Copies: what an operator gives may not be part of one tensor.
    return there.output.flatten(2), there.h[last].clone(), there.c[last].clone(), [*kept]


def _backward(
    d_output: Tensor, d_h_n: Tensor, d_c_n: Tensor, lengths: Tensor, weights: list[Tensor],
    drawn: list[Tensor], kept: list[Tensor], reads_c: bool,
) -> tuple[Tensor, list[Tensor], Tensor, Tensor]:  # fmt: skip
    """Gradients of sums, the weights, h_0 and c_0 of `_forward`, shaped like these."""
    parameters, noise, saved = _Parameters(*weights), _Drawn(*drawn), _Kept(*kept)
    batch, frames, directions, _ = saved.gates.shape
    kind = _kind(parameters, noise, d_c_n, reads_c, keep=True)
    zeros = saved.gates.new_zeros
    back = _Back(
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
    tensors = (*parameters, *noise, *saved, *[None] * len(_There._fields), *back)
    launches = _launches(kind, batch, backward=True)
    # One step more, before the first frame: the gradient that the first step's product gives.
    _run_steps(launches, tensors, lengths, frames, frames - 1, frames + 1)
    return back.d_sums, _of_weights(parameters, saved, back, kind), back.d_h, back.d_c


def _of_weights(p: _Parameters, kept: _Kept, back: _Back, kind: Kind) -> list[Tensor]:
    """The gradients of `_Parameters`."""
    d_products = back.d_products if kind.NORM else back.d_sums
    gradients = {"weight_hh": _over_frames(d_products, kept.recurrent)}
    if kind.PROJECTED:
        gradients["weight_hr"] = _over_frames(back.d_projected, kept.unprojected)
    if kind.PEEPHOLE:
        *before, _, d_o = back.d_sums.chunk(kind.G, dim=-1)
        *i, f, g, _ = kept.gates.chunk(kind.G, dim=-1)
        c_next = f * kept.kept_c + (i[0] if i else 1 - f) * g
        seen = [*(d * kept.kept_c for d in before), d_o * c_next]
        gradients["weight_ch"] = torch.stack([d.sum(dim=(0, 1)) for d in seen], dim=1)
    if kind.NORM:
        gradients["norm_hh"] = (back.d_sums * kept.normed).sum(dim=(0, 1))
        gradients["norm_c"] = back.d_norm_c.sum(dim=1)
        gradients["bias_c"] = back.d_bias_c.sum(dim=1)
    return [
        gradients[name].to(value.dtype) if name in gradients else torch.zeros_like(value)
        for name, value in p._asdict().items()
    ]


def _over_frames(left: Tensor, right: Tensor) -> Tensor:
    """`(B, T, D, m)` and `(B, T, D, n)` to `(D, m, n)`."""
    rows = [part.flatten(0, 1).transpose(0, 1) for part in (left, right)]
    return torch.bmm(rows[0].mT, rows[1])


def _forward_shapes(
    sums: Tensor, lengths: Tensor, weights: list[Tensor], drawn: list[Tensor],
    h_0: Tensor, c_0: Tensor, reads_c: bool, keep: bool,
) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:  # fmt: skip
    batch, frames, directions, _ = sums.shape
    output = sums.new_empty(batch, frames, directions * h_0.shape[2])
    kind = _kind(_Parameters(*weights), _Drawn(*drawn), c_0, reads_c, keep)
    return output, torch.empty_like(h_0), torch.empty_like(c_0), [*_room(kind, sums)]


def _backward_shapes(
    d_output: Tensor, d_h_n: Tensor, d_c_n: Tensor, lengths: Tensor, weights: list[Tensor],
    drawn: list[Tensor], kept: list[Tensor], reads_c: bool,
) -> tuple[Tensor, list[Tensor], Tensor, Tensor]:  # fmt: skip
    d_weights = [torch.empty_like(weight) for weight in weights]
    return torch.empty_like(kept[0]), d_weights, torch.empty_like(d_h_n), torch.empty_like(d_c_n)


_layer = register(
    "lstm_fused_triton", ("cpu", "cuda"), _forward, _backward, _forward_shapes, _backward_shapes
)


def run(
    x: Tensor, lengths: Tensor, cell: Cell, weights: Sequence[Weights], noise: Sequence[Noise],
    h_0: Tensor, c_0: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """One layer in its D directions, see `directions.Run`."""
    x = mask_padding(x, lengths)
    sums = torch.stack([input_sums(x, direction) for direction in weights], dim=2)
    dtype = torch.promote_types(torch.float32, weights[0].weight_hh.dtype)
    matrix = weights[0].weight_hh.dtype
    if torch.is_autocast_enabled(x.device.type) and not cell.reads_c:
        matrix = torch.get_autocast_dtype(x.device.type)
    empty = sums.new_empty(0, dtype=dtype)

    def stacked(name: str) -> Tensor:
        values = [getattr(direction, name) for direction in weights]
        if values[0] is None:
            return empty
        wanted = matrix if name in ("weight_hh", "weight_hr") else dtype
        return torch.stack(values).to(wanted)

    parameters = [stacked(name) for name in _Parameters._fields]
    masks, *zones = zip(*noise, strict=True)
    drawn = [
        empty if masks[0] is None else torch.stack(masks).to(dtype),
        *(empty if z[0] is None else torch.stack(z, dim=2).to(dtype) for z in zones),
    ]
    h, c = h_0.to(dtype), c_0.to(dtype)
    output, h_n, c_n = _layer(sums.to(dtype), lengths, parameters, drawn, h, c, cell.reads_c)
    return output.to(h_0.dtype), h_n.to(h_0.dtype), c_n.to(c_0.dtype)
