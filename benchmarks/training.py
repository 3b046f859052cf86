"""Where the time of a training step goes: data, features, model, CTC, optimiser.

    python benchmarks/training.py experiment=read_english

Takes a training's own config (any override of `asr train` works), runs its first steps with the
clock stopped between the stages, and prints each stage's share of the step: the median over steps,
so that a busy machine disturbs little. The backward pass is cut at the log-probabilities: the CTC
loss and the model are timed apart, forward and backward together.
"""

from __future__ import annotations

import logging
import os
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from hydra import compose, initialize_config_dir
from rich.console import Console
from rich.table import Table

from asr.cli.build import build_recipe
from asr.cli.hydra_app import conf_dir
from asr.data.batch import Batch, BatchLoader
from asr.data.dataset import SpeechDataset
from asr.data.plan import plan_epoch
from asr.data.splits import seconds
from asr.model.ctc import ctc_loss
from asr.trainer.statistics import measure_features
from asr.trainer.step import parameter_groups
from asr.trainer.trainer import Recipe

STEPS = 40
WARMUP = 5
STAGES = ("data", "features", "model", "CTC", "optimiser")


class Stopwatch:
    """Seconds of each stage, step by step."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the block's time to a stage of the present step."""
        start = time.perf_counter()
        yield
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times = self.steps[-1]
        times[name] = times.get(name, 0.0) + time.perf_counter() - start


def step(recipe: Recipe, batches: Iterator[Batch], optimizer: torch.optim.Optimizer,
         watch: Stopwatch) -> float:  # fmt: skip
    """One optimiser step as the trainer takes it; returns its audio [s]."""
    recognizer = recipe.recognizer
    watch.steps.append({})
    with watch.stage("data"):
        batch = next(batches)
    with watch.stage("features"), torch.no_grad():
        features, lengths = recognizer.features(batch.waveforms, batch.num_samples)
        if recipe.augment.spec is not None:
            features = recipe.augment.spec(features, lengths, batch.seeds)
    with watch.stage("model"):
        log_probs, log_prob_lengths = recognizer.model(features, lengths)
    with watch.stage("CTC"):
        cut = log_probs.detach().requires_grad_()
        losses = ctc_loss(cut, log_prob_lengths, batch.tokens, batch.token_lengths)
        (losses.sum() / batch.token_lengths.sum()).backward()
    with watch.stage("model"):
        log_probs.backward(cut.grad)
    with watch.stage("optimiser"):
        torch.nn.utils.clip_grad_norm_(recognizer.model.parameters(), 5.0)
        optimizer.step()
        optimizer.zero_grad()
    return float(batch.num_samples.sum()) / recognizer.features.sample_rate


def main() -> None:
    """Print the table."""
    logging.basicConfig(level=logging.WARNING)
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose("train", sys.argv[1:])
    recipe = build_recipe(config, logging.warning)
    recognizer = recipe.recognizer.train()
    utterances = recipe.splits.train
    dataset = SpeechDataset(
        utterances,
        [recognizer.tokenizer.encode(utterance.text) for utterance in utterances],
        recognizer.features.sample_rate,
        config.seed,
        recipe.augment.waveform,
    )
    plan = plan_epoch(
        [seconds(utterance) for utterance in utterances],
        seed=config.seed,
        epoch=1,
        batch_duration_s=config.trainer.batch_duration_s,
    )
    optimizer = recipe.optimizer(parameter_groups(recognizer.model))
    loader = BatchLoader(dataset, config.trainer.num_workers or 0)
    measure_features(recognizer, loader, plan, config.trainer.batch_duration_s, torch.device("cpu"))
    batches = loader.batches(1, plan[: STEPS + WARMUP])
    watch = Stopwatch()
    rates = []
    for _ in range(min(STEPS + WARMUP, len(plan))):
        audio = step(recipe, batches, optimizer, watch)
        rates.append(audio / sum(watch.steps[-1].values()))
    _print(watch, rates, config.trainer.batch_duration_s)


def _print(watch: Stopwatch, rates: list[float], batch_duration_s: float) -> None:
    counted = watch.steps[WARMUP:]
    total = statistics.median(sum(times.values()) for times in counted)
    table = Table(title=f"median of {len(counted)} steps, {batch_duration_s:g} s batches")
    for name in ("stage", "ms a step", "share"):
        table.add_column(name, justify="left" if name == "stage" else "right")
    for name in STAGES:
        stage_s = statistics.median(times[name] for times in counted)
        table.add_row(name, f"{1000 * stage_s:.1f}", f"{100 * stage_s / total:.1f} %")
    console = Console()
    console.print(table)
    rate = statistics.median(rates[WARMUP:])
    console.print(
        f"{rate:.0f} hours of audio an hour; torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads of {os.cpu_count()} processors"
    )


if __name__ == "__main__":
    main()
