"""What the LSTM's Triton kernels are given, and their launch: of all steps, or of each.

All arrays of a layer stand in one table of addresses on the device. Where the recurrent matrix fits
on the chip, spread over as many programs as can run at once, one launch does all steps. Else each
step is launched, and the step's number is the table's first entry: so one captured graph of some
steps' launches serves batches of any shape. It is captured once, and replayed until a batch's steps
are done.

Letters: B utterances, T frames, D directions, H units, R the width of h (H, or the projection's), G
gates. What a cell lacks is an empty tensor, or none.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from asr.model.lstm_cell import Masks

logger = logging.getLogger(__name__)

CHUNK = 32  # steps of a captured graph, even: then h and c end where they began
ROWS = 16  # utterances of a tile, the least that a GPU's product takes
MOST_ROWS = 128
WIDTH = 16  # units of a tile; few, as the more programs, the less each waits for its weights
DEPTH = 64  # elements of a product at a time

# Of the kernels of all steps.
PARTS = 2  # of a gate's terms in the backward pass: with four gates as many as warps
LEFT_BYTES = 32768  # of a product's left side, a chunk; two are on the chip at once
OPTIONS = {"num_warps": 8, "num_stages": 1, "launch_cooperative_grid": True}


class Parameters(NamedTuple):
    """Of the recurrence, directions stacked, as in `Weights`."""

    weight_hh: Tensor
    weight_hr: Tensor
    weight_ch: Tensor
    norm_hh: Tensor
    norm_c: Tensor
    bias_c: Tensor


class Saved(NamedTuple):
    """What the forward pass saves for the backward pass, `(B, T, D, ...)`; else empty.

    Attributes:
        gates: values, `G * H`.
        read: what the recurrent matrix read, after dropout, R.
        saved_c: c_{t-1}, H.
        unprojected: o * tanh(c_t) of a projection, H; there without a backward pass too.
        normed: the recurrent product of layer_norm, normalised, `G * H`.
        scales: 1 over its deviation.
    """

    gates: Tensor
    read: Tensor
    saved_c: Tensor
    unprojected: Tensor
    normed: Tensor
    scales: Tensor


class LayerState(NamedTuple):
    """What else the forward pass has.

    Attributes:
        sums: the input's share, `(B, T, D, G * H)`.
        h: before and after a step, in turns, `(2, D, B, R)`.
        c: likewise, `(2, D, B, H)`.
        products: the recurrent share where it is normalised, `(D, B, G * H)`.
        output: `(B, T, D, R)`.
    """

    sums: Tensor
    h: Tensor
    c: Tensor
    products: Tensor
    output: Tensor


class LayerGradients(NamedTuple):
    """What else the backward pass has: frames `(B, T, D, ...)`, states `(D, B, ...)`."""

    d_output: Tensor
    d_h: Tensor
    d_c: Tensor
    d_sums: Tensor
    d_products: Tensor
    d_projected: Tensor
    d_read: Tensor
    d_norm_c: Tensor
    d_bias_c: Tensor


class Exchange(NamedTuple):
    """Between programs of one launch.

    Attributes:
        shown: what the next product reads, in the matrix's type, written and read in turns:
            `(2, D, B, R)`, in the backward pass `(2, D, B, G * H)`.
        arrivals: `(D * tiles of B,)` int32, of the programs of a group, all steps together.
    """

    shown: Tensor
    arrivals: Tensor


# Each array's place in the table. Of `Masks`, recurrent is (D, B, R), zone_h (B, T, D, R) and
# zone_c (B, T, D, H).
_PARTS = (Parameters, Masks, Saved, LayerState, LayerGradients, Exchange)
_NAMES = ["base", "batch", "frames", "lengths"]
_NAMES += [name for part in _PARTS for name in part._fields]
_Places = NamedTuple("_Places", [(name, int) for name in _NAMES])  # type: ignore[misc]
AT = _Places(*range(len(_NAMES)))


class CellKind(NamedTuple):
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
        CHUNKS: first term and number of terms, a power of two, of a product's parts that are in
            flight one after the other; for kernels of all steps.
        PARTS: see above, likewise.
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
    CHUNKS: tuple[tuple[int, int], ...] = ()
    PARTS: int = PARTS
    AT: Any = AT


Launch = tuple[
    str, tuple[int, int], CellKind
]  # of a kernel by name: its grid and what it is made for


def launch(
    kind: CellKind, tensors: Sequence[Tensor | None], lengths: Tensor, frames: int, backward: bool
) -> int:
    """Run the steps of a layer's pass; gives which of the two states of `LayerState` is the last.

    Args:
        kind: of the layer.
        tensors: in the order of the table's places, from `Parameters` to `LayerGradients`.
        lengths: `(B,)` int64 [frames].
        frames: T.
        backward: of the backward pass.
    """
    loop = loop_kind(kind, len(lengths), lengths.device, backward)
    with torch.cuda.device_of(lengths):  # does nothing on a CPU
        if isinstance(loop, CellKind):
            _run_loop(loop, tensors, lengths, frames, backward)
            return 1
        _announce_steps(loop)
        return _run_steps(kind, tensors, lengths, frames, backward) % 2


def loop_kind(kind: CellKind, batch: int, device: torch.device, backward: bool) -> CellKind | str:
    """What a kernel of all steps is made for, or why none can serve.

    Its programs wait for each other, so that all have to run at once, each on a processor of its
    own.
    """
    if kind.NORM or kind.PROJECTED:
        return "its programs would wait for each other more than once a step"
    if kind.WEIGHT.primitive_bitwidth == 32 and kind.PRECISION == "ieee":
        return "exact products of float32 need more registers than there are"
    programs = -(-kind.H // WIDTH)
    if device.type != "cuda":
        if programs > 1:
            return "the interpreter runs programs one after the other"
        return kind._replace(CHUNKS=_chunks(kind.H, 64))  # any
    processors, memory = _chip(device)
    at_once = processors // (programs * kind.D)  # groups
    rows = ROWS
    while rows < MOST_ROWS and -(-batch // rows) > at_once:
        rows *= 2
    if -(-batch // rows) > at_once:
        return f"its programs would be more than the {processors} that can run at once"
    size = kind.WEIGHT.primitive_bitwidth // 8
    chunks = _chunks(kind.H, LEFT_BYTES // (rows * size * (4 if backward else 1)))
    weights = sum(length for _, length in chunks) * 4 * WIDTH * size
    sums = rows * 4 * WIDTH * kind.FLOAT.primitive_bitwidth // 8
    needed = weights + 2 * LEFT_BYTES + sums
    if needed > memory:
        return f"its weights need {needed} bytes of a processor's {memory}"
    return kind._replace(BLOCK_B=rows, CHUNKS=chunks)


@cache
def _chip(device: torch.device) -> tuple[int, int]:
    """Of a CUDA device: multiprocessors, and bytes of shared memory that a program can have."""
    from triton.runtime import driver

    index = torch.cuda.current_device() if device.index is None else device.index
    properties = driver.active.utils.get_device_properties(index)
    return properties["multiprocessor_count"], properties["max_shared_mem"]


def _chunks(terms: int, most: int) -> tuple[tuple[int, int], ...]:
    """Cut a product's terms in powers of two, none over `most`, the last with little to spare."""
    chunks, start = [], 0
    while start < terms:
        length = 32
        while length < most and 2 * length <= (terms - start) * 4 // 3:
            length *= 2
        chunks.append((start, length))
        start += length
    return tuple(chunks)


@cache
def _announce_steps(reason: str) -> None:
    logger.info("LSTM backend fused_triton: a launch for each step, not for all: %s", reason)


def _run_loop(
    kind: CellKind, tensors: Sequence[Tensor | None], lengths: Tensor, frames: int, backward: bool
) -> None:
    """Run all steps in one launch; an `Exchange` is made for it."""
    groups = -(-len(lengths) // kind.BLOCK_B) * kind.D
    weight = tensors[0]
    assert weight is not None
    width = kind.G * kind.H if backward else kind.R
    exchange = Exchange(
        shown=weight.new_zeros(2, kind.D, len(lengths), width),
        arrivals=lengths.new_zeros(groups, dtype=torch.int32),
    )
    table = torch.tensor(_entries((*tensors, *exchange), lengths, frames, 0)).to(lengths.device)
    loop = _kernel("loop_backward" if backward else "loop_forward")
    loop[groups, -(-kind.H // kind.BLOCK_N)](table, kind, **OPTIONS)


def _run_steps(
    kind: CellKind, tensors: Sequence[Tensor | None], lengths: Tensor, frames: int, backward: bool
) -> int:
    """Launch each step; gives how many ran, some more where a graph does it."""
    launches = step_launches(kind, len(lengths), backward)
    # One step more in the backward pass, before the first frame: the gradient through its product.
    first, steps = (frames - 1, frames + 1) if backward else (0, frames)
    table = torch.tensor(_entries(tensors, lengths, frames, first))
    if lengths.device.type != "cuda":
        for offset in range(steps):
            _launch_step(launches, table, offset)
        return steps
    stream = torch.cuda.current_stream().cuda_stream
    chunks = -(-steps // CHUNK)
    _graph(tuple(launches), lengths.device, stream).replay(table, chunks)
    return chunks * CHUNK


def step_launches(kind: CellKind, batch: int, backward: bool) -> list[Launch]:
    """The launches of a step."""

    def launch_of(name: str, columns: int, own: CellKind = kind) -> Launch:
        tiles = -(-batch // own.BLOCK_B) * own.D
        name = f"{name}_{'backward' if backward else 'forward'}"
        return name, (tiles, -(-columns // own.BLOCK_N)), own

    if kind.NORM:  # the cell's programs have whole rows, so fewer of them
        rows = kind._replace(BLOCK_B=2, BLOCK_N=1 << (kind.H - 1).bit_length())
        product = launch_of("product", kind.R if backward else kind.G * kind.H)
        return [product, launch_of("cell", kind.H, rows)]
    cell = launch_of("cell", kind.H)
    if not kind.PROJECTED:
        return [cell]
    projection = launch_of("projection", kind.R)
    return [projection, cell] if backward else [cell, projection]


def _entries(
    tensors: Sequence[Tensor | None], lengths: Tensor, frames: int, first: int
) -> list[int]:
    """The table: the step's number, sizes, addresses; 0 for those not given."""
    addresses = [0 if tensor is None else tensor.data_ptr() for tensor in tensors]
    found = [first, len(lengths), frames, lengths.data_ptr(), *addresses]
    return found + [0] * (len(AT) - len(found))


def _kernel(name: str) -> Any:
    # Triton is imported with the kernels, and asks then whether to interpret.
    from asr.model.kernels import triton_backward, triton_forward

    return getattr(triton_backward if name.endswith("backward") else triton_forward, name)


def _launch_step(launches: Sequence[Launch], table: Tensor, offset: int) -> None:
    for name, grid, kind in launches:
        _kernel(name)[grid](table, offset, kind)


class _Graph:
    """Some steps' launches, captured at the first replay.

    Args:
        launches: of a step.
        device: a CUDA device.
    """

    def __init__(self, launches: Sequence[Launch], device: torch.device) -> None:
        self.launches = launches
        self.table = torch.zeros(len(AT), dtype=torch.int64, device=device)
        self.graph: torch.cuda.CUDAGraph | None = None

    def replay(self, table: Tensor, times: int) -> None:
        """Run so many chunks of steps over the arrays of a table."""
        if self.graph is None:
            self.graph = self._capture(table)
        self.table.copy_(table)
        for _ in range(times):
            self.graph.replay()

    def _capture(self, table: Tensor) -> torch.cuda.CUDAGraph:
        self.table.copy_(table)
        self.table[_NAMES.index("batch")] = 0  # nothing is read or written but the weights
        _launch_step(self.launches, self.table, 0)  # compiles
        torch.cuda.synchronize()
        is_backward = any(name.endswith("backward") for name, _, _ in self.launches)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for offset in range(CHUNK):
                _launch_step(self.launches, self.table, offset)
            self.table[:1] += -CHUNK if is_backward else CHUNK
        return graph


@cache
def _graph(launches: tuple[Launch, ...], device: torch.device, stream: int) -> _Graph:
    """One graph, and so one table, for each stream: its work is done in order."""
    return _Graph(launches, device)
