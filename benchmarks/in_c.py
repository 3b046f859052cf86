"""The plain LSTM's time loop in C beside the one in Numba, on the same arrays, on one thread.

    OMP_NUM_THREADS=1 python benchmarks/in_c.py

`cc` compiles `lstm_loop.c` into a temporary directory, and what it computes must equal what Numba
does. Both are then timed in turns, in the thread's own time: medians of the times and of the ratio
in a turn. Then the product alone, again and again, beside torch.mm. The C file needs AVX-512.
"""

from __future__ import annotations

import argparse
import ctypes
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from asr.model.kernels.cpu_backward import run_backward
from asr.model.kernels.cpu_forward import run_forward
from asr.model.kernels.cpu_launch import (
    CellKind,
    LayerState,
    Packing,
    Parameters,
    Saved,
    Share,
    arrays,
)
from asr.model.kernels.cpu_tile import COLUMNS, add_product, compiled, pack
from asr.model.kernels.fused_cpu import gradient_arrays, padded_output, saved_shapes
from asr.model.kernels.memory import empty
from asr.model.lstm_cell import Masks, Weights

Run = Callable[[], object]
SOURCE = Path(__file__).with_name("lstm_loop.c")
FLAGS = ["-O3", "-march=native", "-mprefer-vector-width=512"]
ROWS = (1, 9, 16, 96)  # of the product alone
DEPTH, WIDTH = 320, 1280  # of its weights


@dataclass(frozen=True)
class Case:
    """A pass of one direction over a batch.

    Attributes:
        batch: utterances.
        frames: of the longest.
        units: H.
        mode: forward, "keeping" what "backward" needs; forward alone, the input's share of the
            "sums given", or its "product too" computed within the loop, of 2 * H inputs.
        shortest: the shortest utterance as a share of the longest, the others between them.
    """

    batch: int
    frames: int
    units: int
    mode: str
    shortest: float = 1.0

    def __str__(self) -> str:
        return f"B{self.batch} H{self.units} T{self.frames} {self.mode}"


CASES = (
    *(Case(16, 400, 320, mode) for mode in ("keeping", "sums given", "product too", "backward")),
    *(Case(9, 108, 192, mode, 0.9) for mode in ("keeping", "product too", "backward")),
    *(Case(1, 400, 320, mode) for mode in ("sums given", "product too")),
)


def compile_c(flags: Sequence[str], folder: str) -> ctypes.CDLL:
    """The library; fails where there is no compiler."""
    library = Path(folder) / "lstm_loop.so"
    subprocess.run(["cc", *flags, "-shared", "-fPIC", "-o", library, SOURCE], check=True)
    return ctypes.CDLL(str(library))


def call(function: Any, *fields: Any) -> Run:
    """A call of C with a struct of numbers and of pointers to arrays, NULL for None."""
    kinds = [ctypes.c_int64 if isinstance(field, int) else ctypes.c_void_p for field in fields]
    named = [(f"field_{n}", kind) for n, kind in enumerate(kinds)]
    values = [field.ctypes.data if isinstance(field, np.ndarray) else field for field in fields]
    taken = type("Struct", (ctypes.Structure,), {"_fields_": named})(*values)
    return lambda _=fields: function(ctypes.byref(taken))  # holds the arrays: C has addresses only


@dataclass(frozen=True)
class Pass:
    """One pass by Numba and in C, on the same arrays.

    Attributes:
        numba: a run.
        in_c: likewise.
        changed: the arrays that it reads and changes, to be as before at each run.
        results: those that it computes.
    """

    numba: Run
    in_c: Run
    changed: tuple[Any, ...]
    results: tuple[Any, ...]


def forward_pass(arguments: Any, library: ctypes.CDLL) -> Pass:
    """Of the arguments of `run_forward`."""
    _, parameters, _, saved, inputs, state, output, starts, rows, share = arguments
    keeps = len(saved.c) > 0
    in_c = call(
        library.run_forward, saved.gates, saved.recurrent, saved.c if keeps else None, *state,
        output, inputs if len(inputs) else None, parameters.panels_ih, parameters.panels_hh,
        parameters.start, starts, rows, len(starts) - 1, state.c.shape[2], inputs.shape[1],
        share.low, share.high,
    )  # fmt: skip
    results = (*state, output, *((saved.gates, saved.recurrent, saved.c) if keeps else ()))
    return Pass(partial(run_forward, *arguments), in_c, (saved.gates, *state), results)


def backward_pass(arguments: Any, library: ctypes.CDLL) -> Pass:
    """Of the arguments of `run_backward`."""
    _, parameters, _, saved, gradients, d_output, d_h, d_c, starts, rows, share = arguments
    in_c = call(
        library.run_backward, saved.gates, saved.c, d_output, parameters.panels_hh, gradients.input,
        gradients.bias, d_h, d_c, starts, rows, len(starts) - 1, d_c.shape[2], share.low,
        share.high,
    )  # fmt: skip
    changed = gradients.bias, d_h, d_c
    return Pass(partial(run_backward, *arguments), in_c, changed, (gradients.input, *changed))


def uniform(*shape: int) -> Tensor:
    """As torch.nn.LSTM draws weights, for H as the last dimension."""
    return (torch.rand(shape) * 2 - 1) * shape[-1] ** -0.5


def make_pass(case: Case, library: ctypes.CDLL) -> Pass:
    """What the case computes, of random numbers."""
    torch.manual_seed(0)
    units, has_inputs = case.units, case.mode == "product too"
    lengths = (torch.linspace(1.0, case.shortest, case.batch) * case.frames).long()
    packing = Packing.of(lengths, case.frames)
    where = packing.starts, packing.rows, Share(0, 0, case.batch)
    weights = uniform(4 * units, 2 * units), uniform(4 * units, units)
    layer = [Weights(*weights, *torch.rand(2, 4 * units))]
    h, c = torch.rand(2, 1, case.batch, units)
    rows, keeps = (0 if has_inputs else len(packing.rows)), case.mode in ("keeping", "backward")
    saved = Saved(*(empty(shape, h) for shape in saved_shapes(layer, rows, False, keeps)))
    saved.gates.normal_()
    inputs = torch.randn(case.batch * case.frames if has_inputs else 0, 2 * units)
    output = padded_output(case.batch * case.frames, (1, units), packing, h)
    kind, masks = CellKind(gates=4, reads_c=False), Masks(*torch.empty(3, 0, 1, 1))
    parameters, state = Parameters.of(layer), LayerState(h, c, h.clone())
    forward = kind, parameters, masks, saved, inputs, state, output, *where
    if case.mode != "backward":
        return forward_pass(views(*forward), library)
    run_forward(*views(*forward))
    parameters, ends = Parameters.of(layer, backward=True), torch.randn(2, *h.shape)
    gradients, d_output = gradient_arrays(parameters, saved, h), torch.randn(output.shape)
    backward = kind, parameters, masks, saved, gradients, d_output, *ends, *where
    return backward_pass(views(*backward), library)


def views(*arguments: Any) -> tuple[Any, ...]:
    """NumPy's, of tensors."""
    return tuple(map(arrays, arguments))


def timed(run: Run, changed: Sequence[Any] = (), before: Sequence[Any] = ()) -> float:
    """Seconds of a run that starts from `before`; of this thread alone, others count for less."""
    for array, value in zip(changed, before, strict=True):
        array[...] = value
    start = time.thread_time()
    run()
    return time.thread_time() - start


def measure(case: Case, library: ctypes.CDLL, rounds: int) -> list[float]:
    """Seconds by Numba and in C, and the ratio; AssertionError where they do not agree."""
    one = make_pass(case, library)
    runs, before, found = (one.numba, one.in_c), [array.copy() for array in one.changed], []
    for run in runs:
        for array in one.results:
            array[...] = 0
        timed(run, one.changed, before)
        found.append([array.copy() for array in one.results])
    for expected, actual in zip(*found, strict=True):
        near = 1e-5 * np.abs(expected).max()
        np.testing.assert_allclose(actual, expected, 1e-4, near, err_msg=str(case))
    turns = [[timed(run, one.changed, before) for run in runs] for _ in range(rounds)]
    return [statistics.median(own) for own in zip(*((a, b, b / a) for a, b in turns), strict=True)]


@compiled
def repeat_product(out, a, panels, times):
    """`add_product` so often, from either end in turn."""
    for n in range(times):
        add_product(out, out, a, panels, n % 2 == 1)


def measure_product(rows: int, library: ctypes.CDLL, rounds: int) -> list[float]:
    """Rates by Numba, in C and by torch [FLOP/s]; AssertionError likewise."""
    a, b, out = torch.randn(rows, DEPTH), torch.randn(DEPTH, WIDTH), torch.empty(3, rows, WIDTH)
    panels = torch.empty(WIDTH // COLUMNS, DEPTH, COLUMNS)
    pack(*views(panels, b))
    flop = 2 * rows * DEPTH * WIDTH
    times = max(2, 40_000_000 // flop)
    to, in_c, *read = views(out[0], out[1], a, panels)
    repeat_product(to, *read, 0)  # compiles
    runs: tuple[Run, ...] = (
        lambda: repeat_product(to, *read, times),
        call(library.repeat_product, in_c, *read, rows, WIDTH // COLUMNS, DEPTH, times),
        lambda: [torch.mm(a, b, out=out[2]) for _ in range(times)],
    )
    rates = []
    for _ in range(rounds):
        out.zero_()
        rates.append([flop * times / timed(run) for run in runs])
    for own, repeated in zip(out, (times, times, 1), strict=True):
        torch.testing.assert_close(own / repeated, a @ b, rtol=1e-4, atol=1e-3)
    return [statistics.median(own) for own in zip(*rates, strict=True)]


def main() -> None:
    """Compile, compare, time, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", default="", help="cases with this in their name")
    parser.add_argument("--flags", default=" ".join(FLAGS), help="for cc")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    loops = Table("", "Numba [ms]", "C [ms]", "C / Numba", title=f"cc {arguments.flags}")
    products = Table("rows", "Numba", "C", "torch.mm", title=f"{DEPTH} x {WIDTH} [GFLOP/s]")
    with tempfile.TemporaryDirectory() as folder:
        library = compile_c(arguments.flags.split(), folder)
        for case in (case for case in CASES if arguments.only in str(case)):
            numba, in_c, ratio = measure(case, library, arguments.rounds)
            loops.add_row(str(case), f"{numba * 1e3:.2f}", f"{in_c * 1e3:.2f}", f"{ratio:.3f}")
        for rows in ROWS:
            rates = measure_product(rows, library, arguments.rounds)
            products.add_row(str(rows), *(f"{rate / 1e9:.0f}" for rate in rates))
    Console(width=120).print(loops, products)


if __name__ == "__main__":
    main()
