"""What the compiled loops of a CPU are given, and their launch on its threads.

A padded batch is packed: frames in order of time, and in each frame the utterances from longest to
shortest, so that those still running at any time are the first rows. One loop serves every cell:
what a cell lacks is an empty array. Letters here and in the loops: N packed frames, D directions, B
utterances, H units, R the width of h (H, or the projection's), G gates, W the G * H sums of a
frame, rounded up to 16.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from asr.model.kernels.cpu_tile import COLUMNS, pack, pack_transposed
from asr.model.kernels.memory import empty
from asr.model.lstm_cell import Weights

Array = Any  # in compiled code a NumPy array, outside of it the tensor that it is a view of


class CellKind(NamedTuple):
    """Of the cell.

    Attributes:
        gates: G, 4, or 3 when i = 1 - f.
        reads_c: whether the recurrent matrix reads c instead of h.
    """

    gates: int
    reads_c: bool

    @classmethod
    def of(cls, weights: Weights, reads_c: bool) -> CellKind:
        """That of a direction with such weights."""
        return cls(3 if weights.is_coupled else 4, reads_c)


class Parameters(NamedTuple):
    """Of the recurrence, for each direction.

    Attributes:
        panels_ih: the input's matrix in panels of `add_product`, `(D, W / 16, in, 16)`; for the
            backward pass its transpose, `(D, ceil(in / 16), G * H, 16)`.
        panels_hh: the recurrent matrix, `(D, W / 16, R, 16)`; for the backward pass its transpose,
            `(D, ceil(R / 16), G * H, 16)`.
        panels_hr: the projection, `(D, ceil(R / 16), H, 16)`; backward `(D, ceil(H / 16), R, 16)`.
        weight_ch: peepholes, `(D, G - 1, H)`.
        norm_ih: gain of the normalised input's share of the sums, `(D, G * H)`.
        norm_hh: likewise of the recurrent share.
        bias: of the sums, `(D, G * H)`.
        start: what the input's product is added to, `(D, 1, W)`: the bias, or zeros where the
            product is normalised first.
        norm_c: gain of the normalised cell state, `(D, H)`.
        bias_c: its bias, `(D, H)`.
    """

    panels_ih: Array
    panels_hh: Array
    panels_hr: Array
    weight_ch: Array
    norm_ih: Array
    norm_hh: Array
    bias: Array
    start: Array
    norm_c: Array
    bias_c: Array

    @classmethod
    def of(cls, layer: Sequence[Weights], *, backward: bool = False) -> Parameters:
        """Those of the forward pass, or of the backward pass."""
        like, tasks = layer[0].weight_hh, list[Callable[[], None]]()

        def panels(name: str) -> Tensor:
            if getattr(layer[0], name) is None:
                return like.new_empty(0, 1, 1, COLUMNS)
            matrices = [getattr(direction, name).contiguous() for direction in layer]
            columns, depth = matrices[0].shape[:: -1 if backward else 1]
            packed = empty((len(layer), -(-columns // COLUMNS), depth, COLUMNS), like)
            pairs = zip(packed, matrices, strict=True)
            tasks.extend(task(pack if backward else pack_transposed, *pair) for pair in pairs)
            return packed

        def stacked(name: str, dims: int) -> Tensor:
            values = [getattr(direction, name) for direction in layer]
            return like.new_empty([0] + [1] * dims) if values[0] is None else torch.stack(values)

        bias = like.new_zeros(len(layer), len(like))
        if layer[0].bias_ih is not None:
            bias = stacked("bias_ih", 1) + stacked("bias_hh", 1)
        start = nn.functional.pad(bias, (0, -bias.shape[1] % COLUMNS))[:, None]
        parameters = cls(
            panels_ih=panels("weight_ih"),
            panels_hh=panels("weight_hh"),
            panels_hr=panels("weight_hr"),
            weight_ch=stacked("weight_ch", 2),
            norm_ih=stacked("norm_ih", 1),
            norm_hh=stacked("norm_hh", 1),
            bias=bias,
            start=start if layer[0].norm_ih is None else torch.zeros_like(start),
            norm_c=stacked("norm_c", 1),
            bias_c=stacked("bias_c", 1),
        )
        run_tasks(tasks)
        return parameters


class Saved(NamedTuple):
    """What the forward pass saves for the backward pass; no rows where none follows.

    Attributes:
        inputs: x of each frame in panels, as the gradient of its matrix wants it,
            `(ceil(in / 16), N, 16)`.
        gates: values of the gates, `(N, D, W)`; before, the input's share of the sums, unless that
            is computed within the loop.
        recurrent: what the recurrent matrix read at each frame, likewise in panels,
            `(D, ceil(R / 16), N, 16)`.
        c: before each frame, `(N, D, H)`.
        unprojected: o * tanh(c), `(D, ceil(H / 16), N, 16)`, where there is a projection.
        normed_ih: the input's share before its gain, `(N, D, W)`, where the cell normalises.
        normed_hh: the recurrent share likewise.
        scales: 1 over the deviation that each had, `(N, D, 2)`.
    """

    inputs: Array
    gates: Array
    recurrent: Array
    c: Array
    unprojected: Array
    normed_ih: Array
    normed_hh: Array
    scales: Array


class LayerState(NamedTuple):
    """Between two frames; an utterance's rows are left alone before its first and after its last.

    Attributes:
        h: `(D, B, R)`.
        c: `(D, B, H)`.
        recurrent: `(D, B, R)`, what the recurrent matrix is to read next.
    """

    h: Array
    c: Array
    recurrent: Array


class LayerGradients(NamedTuple):
    """Of each frame's sums, and of the parameters by utterance, still to be added up.

    Attributes:
        input: of the input's share of the sums, `(N, D, W)`.
        recurrent: of the recurrent share, `(N, D, W)`; empty where it is the same.
        projected: of the projection's output, `(N, D, R)`.
        weight_ch: `(D, B, G - 1, H)`.
        norm_ih: `(D, B, G * H)`.
        norm_hh: `(D, B, G * H)`.
        bias: `(D, B, G * H)`.
        norm_c: `(D, B, H)`.
        bias_c: `(D, B, H)`.
    """

    input: Array
    recurrent: Array
    projected: Array
    weight_ch: Array
    norm_ih: Array
    norm_hh: Array
    bias: Array
    norm_c: Array
    bias_c: Array


class Share(NamedTuple):
    """Of the work, for one thread: one direction of some utterances, as sorted.

    Attributes:
        direction: 0, or 1 for the one in which time runs backwards.
        low: first utterance.
        high: the one after the last.
    """

    direction: int
    low: int
    high: int


class Packing(NamedTuple):
    """Where the frames of a padded batch lie once packed.

    Attributes:
        order: `(B,)` int64, utterances from longest to shortest.
        lengths: `(B,)` int64, in that order [frames].
        starts: `(T + 1,)` int64, first packed row of each frame.
        rows: `(N,)` int64, places of the packed rows among the `B * T` padded ones.
    """

    order: Tensor
    lengths: np.ndarray[Any, Any]
    starts: np.ndarray[Any, Any]
    rows: Tensor

    @classmethod
    def of(cls, lengths: Tensor, frames: int) -> Packing:
        """Pack a batch of `(B,)` lengths, padded to `frames`."""
        order = np.argsort(-lengths.numpy(), kind="stable")
        ordered = lengths.numpy()[order]
        running = np.arange(frames)[:, None] < ordered  # (T, B)
        starts = np.concatenate(([0], running.sum(axis=1).cumsum()))
        rows = (order * frames + np.arange(frames)[:, None])[running]
        return cls(torch.from_numpy(order), ordered, starts, torch.from_numpy(rows))

    def shares(self, directions: int) -> list[Share]:
        """One a thread, alike in frames.

        A share holds the rows of at least one tile of the matrix product, six.
        """
        utterances = len(self.lengths)
        count = max(1, min(torch.get_num_threads() // directions, utterances // 6))
        frames = self.lengths.cumsum()
        ends = np.searchsorted(frames, frames[-1] * np.arange(1, count) / count).tolist()
        bounds = [0, *ends, utterances]
        return [Share(d, *span) for d in range(directions) for span in pairwise(bounds)]


def spans(total: int, least: int) -> list[tuple[int, int]]:
    """Cut `total` rows evenly, so many to a thread, each of about `least` rows or fewer."""
    threads = torch.get_num_threads()
    count = min(max(1, total), threads * max(1, round(total / (threads * least))))
    bounds = [total * k // count for k in range(count + 1)]
    return list(pairwise(bounds))


def task(function: Callable[..., None], *arguments: Any) -> Callable[..., None]:
    """A call of a compiled function, to be run by `run_tasks`; tensors become arrays."""
    return partial(function, *map(arrays, arguments))


def arrays(argument: Any) -> Any:
    """NumPy's view of a tensor or of the tensors in a tuple; all else as it is."""
    if isinstance(argument, Tensor):
        return argument.detach().numpy()
    if isinstance(argument, tuple):
        return type(argument)(*map(arrays, argument))  # named tuples
    return argument


_Region = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def run_tasks(tasks: Iterable[Callable[[], object]]) -> None:
    """Run tasks on as many threads as torch uses, begun in this order; torch's own, if possible.

    The threads of torch's OpenMP library wait for their next work by spinning, for milliseconds.
    Just after any product of torch's, threads of our own would share the cores with them. Compiled
    code enters that library through `GOMP_parallel`, and so does this.

    Raises:
        BaseException: what a task raised first, once all threads have ended.
    """
    threads, left, failures = torch.get_num_threads(), iter(list(tasks)), list[BaseException]()

    def work(_: object = None) -> None:
        try:
            for one in left:
                one()
        except BaseException as error:
            failures.append(error)

    if threads == 1:
        work()
    elif (enter := _openmp()) is not None:
        enter(_Region(work), None, threads, 0)
    else:
        list(_pool(threads).map(work, range(threads)))
    if failures:
        raise failures[0]


@cache
def _openmp() -> Any:
    """`GOMP_parallel(region, data, threads, flags)` of the library that torch brings along."""
    for path in (Path(torch.__file__).parent / "lib").glob("libgomp*"):
        try:
            enter = ctypes.CDLL(str(path)).GOMP_parallel
        except (OSError, AttributeError):
            continue
        enter.argtypes = [_Region, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        enter.restype = None
        return enter
    return None


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="lstm")
