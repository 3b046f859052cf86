"""Every cell and backend of the LSTM layer beside torch.nn.LSTM, in one run.

    OMP_NUM_THREADS=2 python benchmarks/lstm.py --picture docs/lstm_cpu.png
    python benchmarks/lstm.py --device cuda --picture docs/lstm_gpu.png

Each case is timed in rounds: in every round each contender runs once, so that a busy machine slows
all of them alike. What is shown is the median over rounds of the ratio to padded torch.nn.LSTM in
the same round, and the share of this machine's matrix product rate (torch.mm of 1024 x 1024, timed
in the same rounds) that the useful part of the work came to: padding counts for nothing. Memory is
what a training step takes at its height beyond the weights and the batch.

Loops in Python, scripted and compiled ones, stand there for comparison. On a GPU the baseline is
torch's layer, which is cuDNN's, in bf16, as all of ours are; it is also run in fp32, tf32 and fp16.
"""

from __future__ import annotations

import argparse
import re
import shutil
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from asr.model.kernels.memory import POOL
from asr.model.lstm import LSTM
from asr.model.lstm_cell import CELLS, Weights, lstm_step

Run = Callable[[], object]
Forward = Callable[[Tensor, Tensor], Tensor]
PADDED = "torch.nn.LSTM padded"
BASELINES = {"cpu": PADDED, "cuda": f"{PADDED}, bf16"}


@dataclass(frozen=True)
class Case:
    """One layer and batch.

    Attributes:
        name: for the table.
        batch: utterances.
        frames: of the longest.
        inputs: width of the input.
        units: H of a direction; every case is bidirectional.
        shortest: the shortest utterance as a share of the longest, the others between them.
        training: forward and backward, or forward alone.
    """

    name: str
    batch: int
    frames: int
    inputs: int
    units: int
    shortest: float = 1.0
    training: bool = True

    def lengths(self) -> Tensor:
        """`(B,)` int64, longest first [frames]."""
        shares = torch.linspace(1.0, self.shortest, self.batch)
        return (shares * self.frames).long()

    def flops(self) -> float:
        """Multiplications and additions of the plain cell's matrix products, without padding."""
        one_pass = 2.0 * 2 * 4 * self.units * (self.inputs + self.units)  # a frame, two directions
        return one_pass * float(self.lengths().sum()) * (3 if self.training else 1)


CASES = {
    "cpu": (
        Case("train B16", 16, 400, 640, 320),
        Case("train B16, lengths 100 to 50 %", 16, 400, 640, 320, 0.5),
        Case("train B9, T 108, 192 units", 9, 108, 384, 192, 0.9),
        Case("infer B16", 16, 400, 640, 320, training=False),
        Case("infer B1", 1, 400, 640, 320, training=False),
    ),
    "cuda": (
        Case("train B16", 16, 400, 640, 320),
        Case("train B64, 512 units", 64, 400, 1024, 512),
        Case("train B16, T 1000, 512 units", 16, 1000, 1024, 512),
        Case("train B64, lengths 100 to 50 %", 64, 400, 640, 320, 0.5),
        Case("infer B16", 16, 400, 640, 320, training=False),
        Case("infer B1", 1, 400, 640, 320, training=False),
    ),
}
ABOUT = "T 400, 640 in, 320 units, bidirectional, but where it says otherwise"


def in_type(forward: Forward, dtype: torch.dtype) -> Forward:
    """A forward pass in mixed precision, on a GPU."""

    def mixed(x: Tensor, lengths: Tensor) -> Tensor:
        with torch.autocast(x.device.type, dtype):
            return forward(x, lengths)

    return mixed


def torchs(case: Case, device: torch.device) -> dict[str, Forward]:
    """torch's own layer, padded and packed, and in the precisions of a GPU."""
    layer = nn.LSTM(case.inputs, case.units, batch_first=True, bidirectional=True).to(device)

    def padded(x: Tensor, lengths: Tensor) -> Tensor:
        return layer(x)[0]

    def packed(x: Tensor, lengths: Tensor) -> Tensor:
        output, _ = layer(pack_padded_sequence(x, lengths.cpu(), batch_first=True))
        return pad_packed_sequence(output, batch_first=True, total_length=case.frames)[0]

    def tf32(x: Tensor, lengths: Tensor) -> Tensor:
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=True):
            return layer(x)[0]

    if device.type == "cpu":
        return {PADDED: padded, "torch.nn.LSTM packed": packed}
    torch.backends.cudnn.allow_tf32 = False
    return {
        f"{PADDED}, bf16": in_type(padded, torch.bfloat16),
        f"{PADDED}, fp16": in_type(padded, torch.float16),
        f"{PADDED}, tf32": tf32,
        f"{PADDED}, fp32": padded,
        "torch.nn.LSTM packed, bf16": in_type(packed, torch.bfloat16),
    }


def loops(case: Case, device: torch.device) -> dict[str, Forward]:
    """What one would write by hand: a loop over frames, as it is, scripted, its step compiled."""
    layer = LSTM(case.inputs, case.units, batch_first=True, bidirectional=True).to(device)
    directions = [layer.weights("l0"), layer.weights("l0_reverse")]

    def loop_with(one: Callable[[Tensor, Weights], Tensor]) -> Forward:
        def forward(x: Tensor, lengths: Tensor) -> Tensor:
            ahead, back = one(x, directions[0]), one(x.flip(1), directions[1]).flip(1)
            return torch.cat((ahead, back), dim=-1)

        return forward

    def by_step(step: Callable[..., Any]) -> Forward:
        def one(x: Tensor, w: Weights) -> Tensor:
            h = c = x.new_zeros(len(x), case.units)
            outputs = []
            for frame in (x @ w.weight_ih.T + w.bias_ih + w.bias_hh).unbind(1):
                h, c = step(frame, h, c, w)
                outputs.append(h)
            return torch.stack(outputs, dim=1)

        return loop_with(one)

    scripted = torch.jit.script(scripted_loop)

    def by_script(x: Tensor, w: Weights) -> Tensor:
        sums = x @ w.weight_ih.T + w.bias_ih + w.bias_hh
        return scripted(sums, w.weight_hh)

    found = {"loop of steps": by_step(lstm_step), "loop, torch.jit.script": loop_with(by_script)}
    if device.type == "cuda" or shutil.which("c++"):
        found["loop, step by torch.compile"] = by_step(torch.compile(lstm_step))
    return found


def scripted_loop(sums: Tensor, weight_hh: Tensor) -> Tensor:
    """The loop as TorchScript takes it: sums `(B, T, 4H)` to outputs `(B, T, H)`."""
    h = torch.zeros(sums.size(0), weight_hh.size(1), dtype=sums.dtype, device=sums.device)
    c = torch.zeros_like(h)
    outputs: list[Tensor] = []
    for frame in sums.unbind(1):
        i, f, g, o = (frame + h @ weight_hh.t()).chunk(4, dim=-1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        outputs.append(h)
    return torch.stack(outputs, dim=1)


def ours(case: Case, device: torch.device) -> dict[str, Forward]:
    """Every cell on every backend that serves it here; the projection halves the output."""
    found: dict[str, Forward] = {}
    is_cpu = device.type == "cpu"
    backends = ["native", "fused_cpu" if is_cpu else "fused_triton"]
    for cell in CELLS:
        for backend in backends:
            if backend == "native" and cell not in ("lstm", "projection"):
                continue
            layer = LSTM(
                case.inputs, case.units, batch_first=True, bidirectional=True, cell=cell,
                proj_size=case.units // 2 if cell == "projection" else 0, backend=backend,
            ).to(device)  # fmt: skip

            def forward(x: Tensor, lengths: Tensor, layer: LSTM = layer) -> Tensor:
                output, _ = layer(x, lengths=lengths)
                return output

            found[f"{cell} {backend}"] = forward if is_cpu else in_type(forward, torch.bfloat16)
    return found


def each_step(run: Run) -> Run:
    """`fused_triton` with a launch for each step, where it has one for all."""
    from asr.model.kernels import triton_launch

    def stepwise() -> None:
        with patch.object(triton_launch, "loop_kind", return_value="the benchmark asks for it"):
            run()

    return stepwise


def contenders(case: Case, device: torch.device, only: str) -> dict[str, Run]:
    """What is timed, the baseline first."""
    torch.manual_seed(0)
    x = torch.randn(case.batch, case.frames, case.inputs, device=device)
    x.requires_grad_(case.training)
    lengths = case.lengths().to(device)
    forwards = torchs(case, device) | loops(case, device) | ours(case, device)

    def timed(forward: Forward) -> Run:
        def run() -> None:
            with nullcontext() if case.training else torch.no_grad():
                output = forward(x, lengths)
            if case.training:
                output.backward(torch.ones_like(output))
            if device.type == "cuda":
                torch.cuda.synchronize()

        return run

    base = BASELINES[device.type]
    chosen = [name for name in forwards if name == base or re.search(only, name)]
    runs = {name: timed(forwards[name]) for name in chosen}
    for cell in ("lstm", "cell_recurrent", "peephole"):
        if f"{cell} fused_triton" in runs:
            name = f"{cell} fused_triton, a launch a step"
            runs[name] = each_step(runs[f"{cell} fused_triton"])
    return runs


def peak_memory(run: Run, device: torch.device) -> float:
    """What a run takes at its height beyond what there was before [MiB], on a CPU at most."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    POOL.most = POOL.used  # which torch's profiler does not see
    with torch.profiler.profile(profile_memory=True) as profile:
        run()
    height, total = 0, 0
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        total += event.nbytes()
        height = max(height, total)
    return (height + POOL.most) / 2**20


def measure(
    runs: dict[str, Run], rounds: int, name: str, device: torch.device
) -> tuple[dict[str, list[float]], float]:
    """Seconds of each contender in each round, and this machine's product rate [FLOP/s]."""
    square = torch.randn(1024, 1024, device=device)
    for run in runs.values():
        run()  # compiles, warms up
    seconds: dict[str, list[float]] = {contender: [] for contender in runs}
    products = []
    for _ in track(range(rounds), description=name, transient=True):
        # The fastest of some: the first wakes the threads.
        products.append(min(_seconds(lambda: square @ square) for _ in range(5)))
        for contender, run in runs.items():
            seconds[contender].append(_seconds(run))
    return seconds, 2 * 1024**3 / statistics.median(products)


def _seconds(run: Run) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def draw(ratios: dict[str, dict[str, float]], base: str, picture: Path) -> None:
    """Ratios of each contender, a panel a case; left of the line is faster than the baseline."""
    from matplotlib.figure import Figure

    names = [name for name in next(iter(ratios.values())) if name != base][::-1]
    figure = Figure(figsize=(3.2 * len(ratios), 0.32 * len(names) + 1.2), layout="constrained")
    panels = figure.subplots(1, len(ratios), sharex=True, sharey=True, squeeze=False)[0]
    for axes, (case, values) in zip(panels, ratios.items(), strict=True):
        for row, name in enumerate(names):
            color = "tab:blue" if "fused" in name else "tab:gray"
            axes.plot([1, values[name]], [row, row], color=color, linewidth=2)
            axes.plot(values[name], row, marker="o", color=color)
            is_faster = values[name] < 1
            axes.annotate(
                f"{values[name]:.2f}", (values[name], row), color=color, va="center", fontsize=8,
                xytext=(-7 if is_faster else 7, 0), textcoords="offset points",
                ha="right" if is_faster else "left",
            )  # fmt: skip
        axes.axvline(1, color="black", linewidth=0.8)
        axes.set(title=case, xscale="log", xlabel=f"time / {base}")
        axes.set_xticks([0.2, 0.5, 1, 2, 5, 10], labels=["0.2", "0.5", "1", "2", "5", "10"])
        axes.minorticks_off()
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="x", alpha=0.3)
    panels[0].set_yticks(range(len(names)), labels=names)
    smallest = min(min(values.values()) for values in ratios.values())
    largest = max(max(values.values()) for values in ratios.values())
    panels[0].set_xlim(smallest / 1.8, largest * 1.8)  # room for the figures
    figure.savefig(picture, dpi=110)


def main() -> None:
    """Time every case, print the table and draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default="", help="contenders whose name matches this pattern")
    parser.add_argument("--picture", type=Path, help="where to draw the ratios")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    arguments = parser.parse_args()
    device = arguments.device
    cases, base = CASES[device.type], BASELINES[device.type]
    rows: dict[str, list[str]] = {}
    ratios: dict[str, dict[str, float]] = {}
    memory: dict[str, float] = {}
    for case in cases:
        runs = contenders(case, device, arguments.only)
        seconds, rate = measure(runs, arguments.rounds, case.name, device)
        ratios[case.name] = {
            name: statistics.median(a / b for a, b in zip(own, seconds[base], strict=True))
            for name, own in seconds.items()
        }
        for name, own in seconds.items():
            rows.setdefault(name, []).append(_entry(case, device, name, own, rate, ratios))
        if case is cases[0]:
            memory = {name: peak_memory(run, device) for name, run in runs.items()}
    where = (
        f"{torch.get_num_threads()} threads"
        if device.type == "cpu"
        else torch.cuda.get_device_name()
    )
    table = Table(title=f"Time over {base}. {ABOUT}; {where}, torch {torch.__version__}")
    table.add_column("")
    for case in cases:
        table.add_column(case.name, justify="right")
    table.add_column(f"{cases[0].name} [MiB]", justify="right")
    for name, entries in rows.items():
        table.add_row(name, *entries, f"{memory[name]:.0f}")
    Console(width=180).print(table)
    if arguments.picture:
        draw(ratios, base, arguments.picture)


def _entry(
    case: Case, device: torch.device, name: str, own: list[float], rate: float,
    ratios: dict[str, dict[str, float]],
) -> str:  # fmt: skip
    """Of the table: a ratio, of the baseline its time, on a CPU the share of the product rate."""
    seconds = statistics.median(own)
    is_base = name == BASELINES[device.type]
    entry = f"{seconds * 1000:.4g} ms" if is_base else f"{ratios[case.name][name]:.2f}"
    if device.type == "cpu" and name.startswith(("torch", "loop", "lstm")):
        entry += f" ({case.flops() / seconds / rate:.0%})"
    return entry


if __name__ == "__main__":
    main()
