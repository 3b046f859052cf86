"""The LSTM layer's backends beside torch.nn.LSTM, padded and packed, in one run.

    OMP_NUM_THREADS=2 python benchmarks/lstm.py

Each case is timed in rounds: in every round each contender runs once, so that a busy machine slows
all of them alike. What is shown is the median over rounds of the ratio to padded torch.nn.LSTM in
the same round, and the share of this machine's matrix product rate (torch.mm of 1024 x 1024, timed
in the same rounds) that the useful part of the work came to: padding counts for nothing.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from asr.model.lstm import LSTM

Run = Callable[[], object]
BASELINE = "torch padded"


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
        """Multiplications and additions of the matrix products, padding left out."""
        one_pass = 2.0 * 2 * 4 * self.units * (self.inputs + self.units)  # a frame, two directions
        return one_pass * float(self.lengths().sum()) * (3 if self.training else 1)


CASES = (
    Case("train, B 16, 640 in, 320 units", 16, 400, 640, 320),
    Case("train, the same, lengths 100 to 50 %", 16, 400, 640, 320, 0.5),
    Case("train, B 9, 384 in, 192 units, lengths 100 to 90 %", 9, 108, 384, 192, 0.9),
    Case("infer, B 16, 640 in, 320 units", 16, 400, 640, 320, training=False),
    Case("infer, B 1, 640 in, 320 units", 1, 400, 640, 320, training=False),
)


def contenders(case: Case) -> dict[str, Run]:
    """What is timed, with the same weights and input."""
    torch.manual_seed(0)
    theirs = nn.LSTM(case.inputs, case.units, batch_first=True, bidirectional=True)
    x = torch.randn(case.batch, case.frames, case.inputs, requires_grad=case.training)
    lengths = case.lengths()
    gradient = torch.randn(case.batch, case.frames, 2 * case.units)

    def packed() -> Tensor:
        output, _ = theirs(pack_padded_sequence(x, lengths, batch_first=True))
        return pad_packed_sequence(output, batch_first=True, total_length=case.frames)[0]

    forwards: dict[str, Callable[[], Tensor]] = {
        BASELINE: lambda: theirs(x)[0],
        "torch packed": packed,
    }
    for backend in ("native", "fused_cpu"):
        layer = LSTM(case.inputs, case.units, batch_first=True, bidirectional=True, backend=backend)
        layer.load_state_dict(theirs.state_dict())
        forwards[backend] = lambda layer=layer: layer(x, lengths=lengths)[0]

    def timed(forward: Callable[[], Tensor]) -> Run:
        if not case.training:
            return torch.no_grad()(forward)
        return lambda: forward().backward(gradient)

    return {name: timed(forward) for name, forward in forwards.items()}


def measure(case: Case, rounds: int) -> tuple[dict[str, list[float]], list[float]]:
    """Seconds of each contender in each round, and those of a matrix product of 2 GFLOP."""
    runs = contenders(case)
    square = torch.randn(1024, 1024)
    for run in runs.values():
        run()  # compiles, warms up
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    products = []
    for _ in range(rounds):
        products.append(_seconds(lambda: square @ square))
        for name, run in runs.items():
            seconds[name].append(_seconds(run))
    return seconds, products


def _seconds(run: Run) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> None:
    """Time every case and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    table = Table(title=f"Ratio to {BASELINE} ({torch.get_num_threads()} threads), median")
    table.add_column("case")
    names = list(contenders(CASES[-1]))
    for heading in (f"{BASELINE} [ms]", *names[1:], "fused_cpu of the product rate"):
        table.add_column(heading, justify="right")
    for case in CASES:
        seconds, products = measure(case, rounds)
        base = seconds[BASELINE]
        ratios = [
            statistics.median(own / other for own, other in zip(seconds[name], base, strict=True))
            for name in names[1:]
        ]
        peak = 2 * 1024**3 / statistics.median(products)
        share = case.flops() / statistics.median(seconds["fused_cpu"]) / peak
        table.add_row(
            case.name,
            f"{statistics.median(base) * 1000:.1f}",
            *(f"{ratio:.2f}" for ratio in ratios),
            f"{share:.0%}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
