"""What the Triton kernels of a layer are given, and their launches: step by step, or as a graph.

All arrays of a layer stand in one table of addresses on the device, with the number of the step in
front. So one captured graph of some steps' launches serves batches of any shape: it is captured
once, and replayed until a batch's steps are done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

CHUNK = 32  # steps of a captured graph, even: then h and c end where they began
ROWS = 16  # utterances of a tile, the least that a GPU's product takes
WIDTH = 16  # units of a tile; few, as the more programs, the less each waits for its weights
DEPTH = 64  # elements of a product at a time


class Parameters(NamedTuple):
    """Of the recurrence, directions stacked, as in `Weights`; what a cell lacks is empty."""

    weight_hh: Tensor
    weight_hr: Tensor
    weight_ch: Tensor
    norm_hh: Tensor
    norm_c: Tensor
    bias_c: Tensor


class Drawn(NamedTuple):
    """mask `(D, B, R)`, zone_h `(B, T, D, R)` and zone_c `(B, T, D, H)`, or empty."""

    mask: Tensor
    zone_h: Tensor
    zone_c: Tensor


class Kept(NamedTuple):
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


class There(NamedTuple):
    """What else the way there uses: states `(2, D, B, ...)`, products `(D, B, G * H)`."""

    sums: Tensor
    h: Tensor
    c: Tensor
    products: Tensor
    output: Tensor


class Back(NamedTuple):
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


_PARTS = (Parameters, Drawn, Kept, There, Back)
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


def step_launches(kind: Kind, batch: int, backward: bool) -> list[Launch]:
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


def run_steps(
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
        table = torch.tensor(entries)
        stream = torch.cuda.current_stream().cuda_stream
        graph = _graph(tuple(launches), lengths.device, stream)
        if graph.replay is None:
            graph.capture(table)
        graph.table.copy_(table)
        chunks = -(-steps // CHUNK)
        for _ in range(chunks):
            graph.replay()
    return chunks * CHUNK


def _launch(launches: Sequence[Launch], table: Tensor, offset: int) -> None:
    # Triton is imported with the kernels, and asks then whether to interpret.
    from asr.model.kernels import triton_backward, triton_forward

    for name, grid, kind in launches:
        kernels = triton_backward if name.endswith("backward") else triton_forward
        getattr(kernels, name)[grid](table, offset, kind)


class _Graph:
    """Some steps' launches, captured.

    Args:
        launches: of a step.
        device: a CUDA device.
    """

    def __init__(self, launches: Sequence[Launch], device: torch.device) -> None:
        self.launches = launches
        self.table = torch.zeros(len(AT), dtype=torch.int64, device=device)
        self.replay: Callable[[], None] | None = None

    def capture(self, table: Tensor) -> None:
        """Compile the launches and capture them."""
        self.table.copy_(table)
        self.table[AT.batch] = 0  # of the batch nothing is read or written, the weights are
        _launch(self.launches, self.table, 0)
        torch.cuda.synchronize()
        is_backward = any(name.endswith("backward") for name, _, _ in self.launches)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for offset in range(CHUNK):
                _launch(self.launches, self.table, offset)
            self.table[:1] += -CHUNK if is_backward else CHUNK
        self.replay = graph.replay


@cache
def _graph(launches: tuple[Launch, ...], device: torch.device, stream: int) -> _Graph:
    """One graph, and so one table, for each stream: its work is done in order."""
    return _Graph(launches, device)
