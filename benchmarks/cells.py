"""The cells of the LSTM layer as recognisers: alike in parameters and in training time.

    python benchmarks/cells.py plan          # sizes, cost of a step, epochs that fit
    OMP_NUM_THREADS=1 python benchmarks/cells.py train --seed 1 --lr 0.001 [--cells lstm peephole]
    python benchmarks/cells.py report

The first names, for each cell, the units that bring the model closest to the number of parameters
of the plain cell's, and the epochs that fit in its time. A step's cost is processor time, taken of
all cells in turn: a busy machine disturbs that little, and the trainings may then take the time
they need. A training that was interrupted goes on where it was. The last takes each cell at the
learning rate that gave the lowest dev WER, as the cells differ in what they bear, and evaluates the
test sets; intervals of 95 % come from drawing the test's speakers anew 2,000 times, both seeds
together.

Other words are overrides of `asr train experiment=read_english`.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from rich.console import Console
from rich.table import Table
from torch import Tensor

from asr.cli.build import build_recipe
from asr.cli.hydra_app import conf_dir
from asr.model.lstm_cell import CELLS
from asr.trainer import Recipe
from asr.trainer.checkpoint import STATE_FOLDER, StateStore

EPOCHS = 11  # of the plain cell: some 15 minutes of one core of the machine in docs/results.md
TESTS = ("speechocean762", "librispeech_dev_clean_part")
COMMON = ["experiment=read_english"]


class Size(NamedTuple):
    """Of a cell's model: H, the width of h where it is projected (0 where not), parameters."""

    hidden_size: int
    proj_size: int
    parameters: int

    def overrides(self, cell: str) -> list[str]:
        """As words of `asr train`."""
        return [
            f"model.cell={cell}", f"model.hidden_size={self.hidden_size}",
            f"model.proj_size={self.proj_size}",
        ]  # fmt: skip


def recipe(words: list[str]) -> Recipe:
    """Of a training with these overrides."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return build_recipe(compose("train", [*COMMON, *words]), logging.warning)


def parameters(words: list[str]) -> int:
    """Of the model."""
    return sum(p.numel() for p in recipe(words).recognizer.model.parameters())


def find_sizes(words: list[str]) -> dict[str, Size]:
    """Each cell's size; a projection halves its cell's width."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        units = compose("train", [*COMMON, *words]).model.hidden_size
    wanted = parameters([*words, "model.cell=lstm"])
    sizes = {}
    for cell in CELLS:
        low, high = units // 2, units * 2
        while high - low > 2:  # by halves: the number of parameters rises with the units
            middle = (low + high) // 4 * 2
            size = Size(middle, middle // 2 if cell == "projection" else 0, 0)
            if parameters([*words, *size.overrides(cell)]) < wanted:
                low = middle
            else:
                high = middle
        found = [
            Size(h, p, parameters([*words, *Size(h, p, 0).overrides(cell)]))
            for h in (low, high)
            for p in [h // 2 if cell == "projection" else 0]
        ]
        sizes[cell] = min(found, key=lambda size: abs(size.parameters - wanted))
    return sizes


def step_costs(sizes: dict[str, Size], words: list[str]) -> dict[str, float]:
    """Processor time of a step of each cell's model over that of the plain one's, in one thread."""
    torch.set_num_threads(1)
    models = {
        cell: recipe([*words, *size.overrides(cell)]).recognizer.model.train()
        for cell, size in sizes.items()
    }
    features, lengths = torch.randn(8, 500, 40), torch.linspace(500, 400, 8).long()
    seconds: dict[str, list[float]] = {cell: [] for cell in models}
    for round_ in range(14):
        for cell, model in models.items():
            taken = _step_time(model, features, lengths)
            if round_ >= 3:
                seconds[cell].append(taken)
    plain = seconds["lstm"]
    return {
        cell: statistics.median(own / base for own, base in zip(times, plain, strict=True))
        for cell, times in seconds.items()
    }


def _step_time(model: torch.nn.Module, features: Tensor, lengths: Tensor) -> float:
    start = time.thread_time()
    log_probs, _ = model(features, lengths)
    log_probs.square().sum().backward()
    return time.thread_time() - start


def plan(path: Path, words: list[str]) -> None:
    """Write and print sizes, costs and epochs."""
    sizes = find_sizes(words)
    costs = step_costs(sizes, words)
    rows = {
        cell: {**size._asdict(), "cost": costs[cell], "epochs": round(EPOCHS / costs[cell])}
        for cell, size in sizes.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, indent=2) + "\n")
    _print("Plan", rows)


def run_name(cell: str, lr: float, seed: int) -> str:
    """Of a training."""
    return f"cell_{cell}_{lr:g}_{seed}"


def train(path: Path, cells: list[str], lr: float, seed: int, words: list[str]) -> None:
    """Train each cell with one seed, one after the other; what is done is not done again."""
    rows = json.loads(path.read_text())
    for cell in cells:
        row, name = rows[cell], run_name(cell, lr, seed)
        size = Size(row["hidden_size"], row["proj_size"], 0)
        run_dir = Path("runs/train") / name
        if StateStore(run_dir / STATE_FOLDER).exists():
            command = ["train", f"resume={run_dir}"]
        else:
            command = [
                "train", *COMMON, *words, *size.overrides(cell), f"name={name}", f"seed={seed}",
                f"optim.lr={lr}", f"trainer.max_epochs={row['epochs']}", "trainer.accelerator=cpu",
            ]  # fmt: skip
        subprocess.run([sys.executable, "-m", "asr", *command], check=True)


def report(path: Path, lrs: list[float], seeds: list[int]) -> None:
    """Evaluate each cell at its best rate on the test sets; print WER and CER with intervals."""
    rows = json.loads(path.read_text())
    for cell, row in rows.items():
        dev = {lr: dev_wers(cell, lr, seeds) for lr in lrs}
        for lr, wers in dev.items():
            row[f"dev WER, lr {lr:g}"] = " and ".join(f"{wer:.1f}" for wer in wers.values())
        found = {lr: min(wers.values()) for lr, wers in dev.items() if wers}
        if not found:
            continue
        lr = min(found, key=lambda lr: found[lr])
        for test in TESTS:
            evaluations = [evaluation(run_name(cell, lr, seed), test) for seed in dev[lr]]
            row[f"{test} WER"] = rate(evaluations, "words")
            row[f"{test} CER"] = rate(evaluations, "characters")
    _print("Test sets", rows)


def dev_wers(cell: str, lr: float, seeds: list[int]) -> dict[int, float]:
    """The lowest dev WER of the trainings there are [%], by seed."""
    wers = {}
    for seed in seeds:
        validations = Path("runs/train") / run_name(cell, lr, seed) / "validations.csv"
        if validations.exists():
            with validations.open(newline="") as file:
                wers[seed] = 100 * min(float(row["wer"]) for row in csv.DictReader(file))
    return wers


def evaluation(name: str, test: str) -> dict[str, Any]:
    """The report of one model on one test set, made if it is not there."""
    made = Path("runs/evaluate") / f"{name}_{test}" / "evaluation.json"
    if not made.exists():
        words = [
            f"model_file=runs/train/{name}/best.safetensors", f"manifest=data/{test}/test.jsonl",
            f"name={name}_{test}",
        ]  # fmt: skip
        subprocess.run([sys.executable, "-m", "asr", "evaluate", *words], check=True)
    report: dict[str, Any] = json.loads(made.read_text())
    return report


def rate(evaluations: list[dict[str, Any]], unit: str) -> str:
    """Error rate of several models over one test set: each, all together, and the interval [%]."""
    each = [[speaker[unit] for speaker in found["speakers"]] for found in evaluations]
    errors = np.array([[counts["errors"] for counts in one] for one in each]).sum(axis=0)
    lengths = np.array([[counts["reference_length"] for counts in one] for one in each]).sum(axis=0)
    drawn = np.random.default_rng(0).integers(0, len(errors), (2000, len(errors)))
    rates = errors[drawn].sum(axis=1) / lengths[drawn].sum(axis=1)
    low, high = 100 * np.quantile(rates, [0.025, 0.975])
    single = " and ".join(
        f"{100 * sum(c['errors'] for c in one) / sum(c['reference_length'] for c in one):.1f}"
        for one in each
    )
    return f"{100 * errors.sum() / lengths.sum():.1f} ({low:.1f} to {high:.1f}; seeds {single})"


def _print(title: str, rows: dict[str, dict[str, Any]]) -> None:
    table = Table(title=title)
    table.add_column("cell")
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    for name in columns:
        table.add_column(name, justify="right")
    for cell, row in rows.items():
        values = [row.get(name, "") for name in columns]
        table.add_row(cell, *(f"{v:.2f}" if isinstance(v, float) else str(v) for v in values))
    Console(width=260).print(table)


def main() -> None:
    """Plan, train or report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("plan", "train", "report"))
    parser.add_argument("overrides", nargs="*", help="of asr train")
    parser.add_argument("--plan", type=Path, default=Path("runs/cells.json"))
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=list(CELLS))
    parser.add_argument("--seed", type=int, default=1, help="of the training")
    parser.add_argument("--lr", type=float, default=0.003, help="of the training")
    parser.add_argument(
        "--lrs", type=float, nargs="+", default=[0.003, 0.001], help="of the report"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2], help="of the report")
    arguments = parser.parse_args()
    if arguments.what == "plan":
        plan(arguments.plan, arguments.overrides)
    elif arguments.what == "train":
        train(arguments.plan, arguments.cells, arguments.lr, arguments.seed, arguments.overrides)
    else:
        report(arguments.plan, arguments.lrs, arguments.seeds)


if __name__ == "__main__":
    main()
