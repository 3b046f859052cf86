"""Where the time of a training step goes: data, features, model, CTC, optimiser.

    python benchmarks/training.py experiment=read_english

Takes a training's own config (any override of `asr train` works), runs its first steps with the
clock stopped between the stages, and prints each stage's share of the step: the median over steps,
so that a busy machine disturbs little. The backward pass is cut at the log-probabilities: the CTC
loss and the model are timed apart, forward and backward together.

Every step is also taken, on the same batch and from the same weights, with torch.nn.LSTM in place
of this project's layer: padded (both directions see the padding) and packed, as older toolkits have
it. Which of the two comes first changes from step to step; ratios are medians over the steps.
"""

from __future__ import annotations

import copy
import logging
import os
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from asr.cli.build import build_recipe
from asr.cli.hydra_app import conf_dir
from asr.data.dataset import Batch, Planner, batch_loader, label_manifest
from asr.features import StoredNormalizer
from asr.model.ctc import ctc_loss
from asr.model.lstm import LSTM
from asr.trainer import Recipe
from asr.trainer.optim import make_optimizer

STEPS = 40
WARMUP = 5
OWN = "asr.LSTM"
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


class TorchLayer(nn.Module):
    """torch.nn.LSTM with the interface of `asr.LSTM`, batch first."""

    def __init__(self, layer: LSTM, packs: bool) -> None:
        super().__init__()
        self.packs = packs
        self.inner = nn.LSTM(
            layer.input_size, layer.hidden_size, batch_first=True,
            bidirectional=layer.bidirectional, proj_size=layer.proj_size,
        )  # fmt: skip
        self.inner.load_state_dict(layer.state_dict())

    def forward(self, x: Tensor, *, lengths: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Run the layer over `(B, T, in)`."""
        if not self.packs:
            padded: tuple[Tensor, tuple[Tensor, Tensor]] = self.inner(x)
            return padded
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        output, state = self.inner(packed)
        return pad_packed_sequence(output, batch_first=True, total_length=x.shape[1])[0], state


class Contender:
    """A model in training, and the times of its steps.

    Args:
        recipe: of the training.
        model: what takes the place of the recipe's own.
    """

    def __init__(self, recipe: Recipe, model: nn.Module) -> None:
        self.recipe, self.model = recipe, model
        self.optimizer = make_optimizer(recipe.optimizer, model)
        self.watch = Stopwatch()

    def step(self, batches: Iterator[Batch]) -> Batch:
        """One optimiser step as the trainer takes it; returns the batch."""
        recognizer, watch = self.recipe.recognizer, self.watch
        watch.steps.append({})
        with watch.stage("data"):
            batch = next(batches)
        with watch.stage("features"), torch.no_grad():
            features, lengths = recognizer.features(batch.waveforms, batch.num_samples)
            if self.recipe.augment.spec is not None:
                features = self.recipe.augment.spec(features, lengths, batch.seeds)
        with watch.stage("model"):
            log_probs, log_prob_lengths = self.model(features, lengths)
        with watch.stage("CTC"):
            cut = log_probs.detach().requires_grad_()
            losses = ctc_loss(cut, log_prob_lengths, batch.tokens, batch.token_lengths)
            (losses.sum() / batch.token_lengths.sum()).backward()
        with watch.stage("model"):
            log_probs.backward(cut.grad)
        with watch.stage("optimiser"):
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
            self.optimizer.step()
            self.optimizer.zero_grad()
        return batch

    def seconds(self, step: int) -> float:
        """Of a step but for its data, which one contender reads for all."""
        return sum(time for stage, time in self.watch.steps[step].items() if stage != "data")


def contenders(recipe: Recipe) -> dict[str, Contender]:
    """The recipe's own model first; torch's where its layer has the cell."""
    own = recipe.recognizer.model.train()
    found = {OWN: Contender(recipe, own)}
    layers: list[Any] = [layer for layer in own.layers if layer.cell in ("lstm", "projection")]
    if layers and not any(layer.coupled_gates for layer in layers):
        for name, packs in (("torch.nn.LSTM padded", False), ("torch.nn.LSTM packed", True)):
            twin = copy.deepcopy(own)
            twin.layers = nn.ModuleList(TorchLayer(layer, packs) for layer in layers)
            found[name] = Contender(recipe, twin)
    return found


def main() -> None:
    """Print the table."""
    logging.basicConfig(level=logging.WARNING)
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose("train", sys.argv[1:])
    recipe = build_recipe(config, logging.warning)
    recognizer = recipe.recognizer.train()
    (window,) = label_manifest(
        recipe.splits.train, recognizer.tokenizer, lambda some, _: [None] * len(some)
    ).epoch(1)
    plan = Planner(config.seed, config.trainer.batch_duration_s).batches(window, 1)
    loader = batch_loader(
        recognizer.features.sample_rate, config.seed, recipe.augment.waveform,
        space=recognizer.tokenizer.encode(" "), num_workers=config.trainer.num_workers or 0,
    )  # fmt: skip

    def load(epoch: int) -> Iterator[Batch]:
        return loader.load([window.request(epoch, position) for position in b] for b in plan)

    normalizer, log_mel = recognizer.features.normalizer, recognizer.features.log_mel
    if isinstance(normalizer, StoredNormalizer):
        normalizer.measure(log_mel(each.waveforms, each.num_samples) for each in load(0))
    running = contenders(recipe)
    batches = load(1)
    audio = []
    for number in range(min(STEPS + WARMUP, len(plan))):
        batch = running[OWN].step(batches)
        others = [contender for name, contender in running.items() if name != OWN]
        for contender in others if number % 2 else reversed(others):
            contender.step(iter([batch]))
        audio.append(float(batch.num_samples.sum()) / recognizer.features.sample_rate)
    _print(running, audio, config.trainer.batch_duration_s)


def _print(running: dict[str, Contender], audio: list[float], batch_duration_s: float) -> None:
    counted = range(WARMUP, len(audio))
    table = Table(title=f"median of {len(counted)} steps, {batch_duration_s:g} s batches")
    for name in ("stage", "ms a step", "share"):
        table.add_column(name, justify="left" if name == "stage" else "right")
    own = running[OWN].watch.steps
    total = statistics.median(sum(own[step].values()) for step in counted)
    for name in STAGES:
        stage_s = statistics.median(own[step][name] for step in counted)
        table.add_row(name, f"{1000 * stage_s:.1f}", f"{100 * stage_s / total:.1f} %")
    console = Console()
    console.print(table)
    rate = statistics.median(audio[step] / sum(own[step].values()) for step in counted)
    console.print(
        f"{rate:.0f} hours of audio an hour; torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads of {os.cpu_count()} processors"
    )
    for name, contender in running.items():
        ratios = [contender.seconds(step) / running[OWN].seconds(step) for step in counted]
        if name != OWN:
            console.print(f"{name}: {statistics.median(ratios):.2f} times the step, data apart")


if __name__ == "__main__":
    main()
