"""The plain LSTM's time loop in C beside the one in Numba, on the same arrays, on one thread.

    OMP_NUM_THREADS=1 python benchmarks/in_c.py

`cc` compiles `lstm_loop.c` into a temporary directory, and what it computes must equal what Numba
does. Both are then timed in turns, in the thread's own time: medians of the times and of the ratio
in a turn. Then the product alone, again and again, beside torch.mm.

Another tile: --define TILE_ROWS=12 TILE_PANELS=2 CELL_ROWS=6. Without AVX-512: --flags="-O3 -mavx2
-mfma" and NUMBA_CPU_NAME=haswell NUMBA_CPU_FEATURES= ATEN_CPU_CAPABILITY=avx2.
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

from asr.model.kernels.compiled import compiled
from asr.model.kernels.cpu_arrays import Drawn, State
from asr.model.kernels.cpu_backward import run_backward
from asr.model.kernels.cpu_forward import run_forward
from asr.model.kernels.cpu_tile import add_product
from asr.model.kernels.fused_cpu import _gradient_room, _room, _Stacked
from asr.model.kernels.packing import Packing, Share, _arrays

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
    """One pass; the arrays it reads and changes, to be as before at each run; what it computes."""

    run: Run
    changed: tuple[Any, ...]
    results: tuple[Any, ...]


def forward_pass(arguments: Any, library: ctypes.CDLL | None) -> Pass:
    """By Numba, or by C where there is a library."""
    _, parameters, _, kept, inputs, state, output, starts, rows, share = arguments
    keeps = len(kept.c) > 0
    run: Run = partial(run_forward, *arguments)
    if library:
        run = call(
            library.run_forward, kept.gates, kept.recurrent, kept.c if keeps else None, *state,
            output, inputs if len(inputs) else None, parameters.panels_ih, parameters.panels,
            parameters.bias, starts, rows, len(starts) - 1, state.c.shape[2], inputs.shape[1],
            share.low, share.high,
        )  # fmt: skip
    results = (*state, output, *((kept.gates, kept.recurrent, kept.c) if keeps else ()))
    return Pass(run, (kept.gates, *state), results)


def backward_pass(arguments: Any, library: ctypes.CDLL | None) -> Pass:
    """Likewise."""
    _, parameters, _, kept, gradients, d_output, d_h, d_c, starts, rows, share = arguments
    run: Run = partial(run_backward, *arguments)
    if library:
        run = call(
            library.run_backward, kept.gates, kept.c, d_output, parameters.panels, gradients.input,
            d_h, d_c, starts, rows, len(starts) - 1, d_c.shape[2], share.low, share.high,
        )  # fmt: skip
    return Pass(run, (d_h, d_c), (gradients.input, d_h, d_c))


def uniform(*shape: int) -> Tensor:
    """As torch.nn.LSTM draws weights, for H as the last dimension."""
    return (torch.rand(shape) * 2 - 1) * shape[-1] ** -0.5


def clone(value: Any) -> Any:
    """Arrays in nested tuples, copied; all else as it is."""
    if isinstance(value, tuple):
        copies = map(clone, value)
        return type(value)(*copies) if hasattr(value, "_fields") else tuple(copies)
    return value.copy() if isinstance(value, np.ndarray) else value


def passes(case: Case, library: ctypes.CDLL) -> tuple[Pass, Pass]:
    """The case by Numba and in C."""
    torch.manual_seed(0)
    units, has_inputs = case.units, case.mode == "product too"
    lengths = (torch.linspace(1.0, case.shortest, case.batch) * case.frames).long()
    packing = Packing.of(lengths, case.frames)
    frames, where = len(packing.rows), (packing.starts, packing.rows, Share(0, 0, case.batch))
    weights = uniform(1, 4 * units, 2 * units), uniform(1, 4 * units, units)
    stacked = _Stacked(*weights, torch.rand(1, 4 * units), *[torch.empty(0)] * 6)
    parameters, drawn = stacked.parameters(with_input=has_inputs), Drawn(*torch.empty(3, 0, 1, 1))
    inputs = torch.randn(frames if has_inputs else 0, 2 * units)
    sums = torch.randn(0 if has_inputs else frames, 1, 4 * units)
    h, c = torch.rand(2, 1, case.batch, units)
    kept = _room(sums, parameters, h, c, case.mode in ("keeping", "backward"))
    output = torch.zeros(case.batch * case.frames, 1, units)
    kind, state = stacked.kind(False), State(h, c, h.clone())
    arguments = views(kind, parameters, drawn, kept, inputs, state, output, *where)
    if case.mode == "backward":
        run_forward(*arguments)
        gradients, d_output = _gradient_room(stacked, kept, h), torch.randn(output.shape)
        ends, parameters = torch.randn(2, *h.shape), stacked.parameters(backward=True)
        arguments = views(kind, parameters, drawn, kept, gradients, d_output, *ends, *where)
    make = backward_pass if case.mode == "backward" else forward_pass
    return make(arguments, None), make(clone(arguments), library)


def views(*arguments: Any) -> tuple[Any, ...]:
    """NumPy's, of tensors."""
    return tuple(map(_arrays, arguments))


def timed(run: Run, changed: Sequence[Any] = (), before: Sequence[Any] = ()) -> float:
    """Seconds of a run that starts from `before`; of this thread alone, others count for less."""
    for array, value in zip(changed, before, strict=True):
        array[...] = value
    start = time.thread_time()
    run()
    return time.thread_time() - start


def measure(case: Case, library: ctypes.CDLL, rounds: int) -> list[float]:
    """Seconds by Numba and in C, and the ratio; AssertionError where they do not agree."""
    pair = passes(case, library)
    before = clone(pair[0].changed)
    for one in pair:
        timed(one.run, one.changed, before)
    for expected, actual in zip(pair[0].results, pair[1].results, strict=True):
        near = 1e-5 * np.abs(expected).max()
        np.testing.assert_allclose(actual, expected, 1e-4, near, err_msg=str(case))
    turns = [[timed(one.run, one.changed, before) for one in pair] for _ in range(rounds)]
    return [statistics.median(own) for own in zip(*((a, b, b / a) for a, b in turns), strict=True)]


@compiled
def repeat_product(out, a, panels, times):
    """`add_product` so often, from either end in turn."""
    for n in range(times):
        add_product(out, a, panels, n % 2 == 1)


def measure_product(rows: int, library: ctypes.CDLL, rounds: int) -> list[float]:
    """Rates by Numba, in C and by torch [FLOP/s]; AssertionError likewise."""
    a, b, out = torch.randn(rows, DEPTH), torch.randn(DEPTH, WIDTH), torch.empty(3, rows, WIDTH)
    panels = b.unflatten(1, (-1, 16)).transpose(0, 1).contiguous()
    flop = 2 * rows * DEPTH * WIDTH
    times = max(2, 40_000_000 // flop)
    to, in_c, *read = views(out[0], out[1], a, panels)
    repeat_product(to, *read, 0)  # compiles
    runs: tuple[Run, ...] = (
        lambda: repeat_product(to, *read, times),
        call(library.repeat_product, in_c, *read, rows, WIDTH // 16, DEPTH, times),
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
    parser.add_argument("--define", nargs="*", default=[], help="NAME=VALUE, in the C file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    flags = [*arguments.flags.split(), *(f"-D{name}" for name in arguments.define)]
    loops = Table("", "Numba [ms]", "C [ms]", "C / Numba", title=f"cc {' '.join(flags)}")
    products = Table("rows", "Numba", "C", "torch.mm", title=f"{DEPTH} x {WIDTH} [GFLOP/s]")
    with tempfile.TemporaryDirectory() as folder:
        library = compile_c(flags, folder)
        for case in (case for case in CASES if arguments.only in str(case)):
            numba, in_c, ratio = measure(case, library, arguments.rounds)
            loops.add_row(str(case), f"{numba * 1e3:.2f}", f"{in_c * 1e3:.2f}", f"{ratio:.3f}")
        for rows in ROWS:
            rates = measure_product(rows, library, arguments.rounds)
            products.add_row(str(rows), *(f"{rate / 1e9:.0f}" for rate in rates))
    Console(width=120).print(loops, products)


if __name__ == "__main__":
    main()
