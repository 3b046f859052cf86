"""The training loop: an epoch plan in, the best model file out, every step reproducible."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from asr.augment import Augment, WaveformAugment
from asr.checkpoint import Recognizer, save_model
from asr.data.batch import Batch, BatchLoader
from asr.data.dataset import SpeechDataset, draw_seed
from asr.data.manifest import Utterance
from asr.data.plan import Order, plan_epoch, plan_evaluation, rank_batches
from asr.data.splits import Splits, seconds
from asr.trainer.device import make_fabric
from asr.trainer.labels import check_misfits, report_misfits, split_feasible
from asr.trainer.log import RunLog
from asr.trainer.schedule import Schedule
from asr.trainer.state import Progress, Stateful, load_state, save_state
from asr.trainer.statistics import measure_features
from asr.trainer.step import Stepper, StepResult, parameter_groups
from asr.trainer.validation import Validation, validate

logger = logging.getLogger(__name__)

STATE_FILE = "state.pt"
MakeOptimizer = Callable[[Iterable[Any]], torch.optim.Optimizer]


@dataclass(frozen=True)
class Recipe:
    """What is trained, on what, and how it is varied.

    Attributes:
        recognizer: the model to train, with its features and alphabet.
        splits: utterances to learn from and to validate on.
        optimizer: makes the optimiser of parameter groups; its learning rate is the schedule's 1.
        schedule: factor on the learning rate at a share of the training.
        augment: how the utterances are varied.
    """

    recognizer: Recognizer
    splits: Splits
    optimizer: MakeOptimizer
    schedule: Schedule
    augment: Augment


class Trainer:
    """Trains a recogniser with CTC.

    The loss of an optimiser step is the sum of its utterances' losses over the number of their
    characters, all ranks and accumulated batches counted together: two ranks, or two accumulated
    batches, take the same step as each other.

    Args:
        max_epochs: times every utterance is used.
        batch_duration_s: largest padded batch of a rank [s of audio].
        accumulate: batches of a rank for one optimiser step.
        clip_norm: largest gradient norm; 0 leaves gradients as they are.
        sort_first_epoch: start with the shortest utterances.
        validate_every: epochs between validations.
        patience: validations without a better one before stopping early; 0 never stops early.
        save_every_s: time between saves of the training state within an epoch [s].
        log_every: optimiser steps between rows of steps.csv.
        num_workers: loading processes a rank; 0 loads in the training process; None is 0 on a CPU,
            where loading ahead would only take the cores from training, and 4 elsewhere.
        max_left_out: largest share of training utterances that may be left out as infeasible.
        precision: of Fabric: "32-true", "bf16-mixed", "16-mixed"; "auto" is bf16-mixed on a GPU
            that has it and 32-true elsewhere. The loss is float32 in any case.
        accelerator: "cpu", "cuda", or "auto": cuda where there is one.
        devices: processes of this machine, one a device.
        num_nodes: machines.
        tensorboard: also write TensorBoard events.
        seed: of data order, augmentation and dropout.

    Raises:
        ValueError: a count below 1, or a precision that the device does not have.
    """

    def __init__(
        self,
        max_epochs: int,
        batch_duration_s: float = 60.0,
        accumulate: int = 1,
        clip_norm: float = 5.0,
        sort_first_epoch: bool = True,
        validate_every: int = 1,
        patience: int = 0,
        save_every_s: float = 300.0,
        log_every: int = 10,
        num_workers: int | None = None,
        max_left_out: float = 0.05,
        precision: str = "auto",
        accelerator: str = "auto",
        devices: int = 1,
        num_nodes: int = 1,
        tensorboard: bool = False,
        seed: int = 0,
    ) -> None:
        for name, count in (
            ("max_epochs", max_epochs),
            ("accumulate", accumulate),
            ("validate_every", validate_every),
            ("log_every", log_every),
        ):
            if count < 1:
                raise ValueError(f"trainer.{name} {count}, expected 1 or more")
        self.max_epochs = max_epochs
        self.batch_duration_s = batch_duration_s
        self.accumulate = accumulate
        self.clip_norm = clip_norm
        self.sort_first_epoch = sort_first_epoch
        self.validate_every = validate_every
        self.patience = patience
        self.save_every_s = save_every_s
        self.log_every = log_every
        self.max_left_out = max_left_out
        self.tensorboard = tensorboard
        self.seed = seed
        self.fabric = make_fabric(accelerator, devices, num_nodes, precision)
        is_cpu = self.fabric.device.type == "cpu"
        self.num_workers = (0 if is_cpu else 4) if num_workers is None else num_workers

    def fit(self, recipe: Recipe, run_dir: Path, resume: bool = False) -> Progress:
        """Train to the end, or to an early stop.

        Writes best.safetensors (lowest dev WER, then CER), last.safetensors, the training state,
        CSV logs and curves into the run's folder.

        Args:
            recipe: what to train.
            run_dir: folder of the run.
            resume: go on from the state in `run_dir`.

        Returns:
            Where the training ended.

        Raises:
            ValueError: no utterance that can be trained on, unusable audio, a state that does not
                fit.
            OSError: missing audio, a full disk.
        """
        return _Run(self, recipe, run_dir, resume).run()


class _Run:
    """One call of `Trainer.fit`: what is fixed during it, and where it stands."""

    def __init__(self, trainer: Trainer, recipe: Recipe, run_dir: Path, resume: bool) -> None:
        self.trainer = trainer
        self.fabric = trainer.fabric
        self.recipe = recipe
        self.run_dir = run_dir
        self.recognizer = recipe.recognizer.to(self.fabric.device)
        self.utterances = self._leave_out_misfits()
        self.durations = [seconds(utterance) for utterance in self.utterances]
        optimizer = recipe.optimizer(parameter_groups(self.recognizer.model))
        self.base_lrs = [group["lr"] for group in optimizer.param_groups]
        self.stateful: dict[str, Stateful] = {
            "model": self.recognizer, "optimizer": optimizer, "precision": self.fabric._precision,
        }  # fmt: skip
        self.data_fingerprint = recipe.splits.fingerprint()  # once: it reads every text
        self.fingerprint = self._fingerprint()
        self.progress = Progress()
        if resume:
            self.progress = load_state(run_dir / STATE_FILE, self.stateful, self.fingerprint)
        self.stepper = Stepper(
            self.fabric, self.recognizer, optimizer, recipe.augment.spec, trainer.clip_norm
        )
        self._measure_features()
        self.train_loader = self._loader(self.utterances, recipe.augment.waveform)
        self.dev_loader = self._loader(recipe.splits.dev, None)
        self.log = RunLog(
            run_dir, self.fabric.global_rank == 0, self.progress.step, self.progress.validations,
            trainer.tensorboard,
        )  # fmt: skip
        self.last_save = time.monotonic()
        self.last_wer = float("nan")

    def run(self) -> Progress:
        """Train the epochs that are left."""
        self._announce()
        try:
            while self.progress.epoch < self.trainer.max_epochs and not self._is_out_of_patience():
                self._train_epoch()
                epochs = self.progress.epoch
                if epochs % self.trainer.validate_every == 0 or epochs == self.trainer.max_epochs:
                    self._validate()
                self._save()
        finally:
            self.log.close()
        best = self.progress
        self.log.say(
            "done: best dev WER %.2f %%, CER %.2f %% at step %d, after %.1f min: %s",
            100 * best.best_wer, 100 * best.best_cer, best.best_step, best.elapsed_s / 60,
            self.run_dir / "best.safetensors",
        )  # fmt: skip
        return self.progress

    def _leave_out_misfits(self) -> list[Utterance]:
        waveform = self.recipe.augment.waveform
        kept, misfits = split_feasible(
            self.recipe.splits.train, self.recognizer, waveform.fastest if waveform else 1.0
        )
        if self.fabric.global_rank == 0:
            report_misfits(misfits, self.run_dir / "left_out.jsonl")
        check_misfits(misfits, len(kept), self.trainer.max_left_out)
        return kept

    def _loader(
        self, utterances: list[Utterance] | tuple[Utterance, ...], augment: WaveformAugment | None
    ) -> BatchLoader:
        encode = self.recognizer.tokenizer.encode
        dataset = SpeechDataset(
            utterances,
            [encode(utterance.text) for utterance in utterances],
            self.recognizer.features.sample_rate,
            self.trainer.seed,
            augment,
        )
        is_cuda = self.fabric.device.type == "cuda"
        return BatchLoader(dataset, self.trainer.num_workers, pin_memory=is_cuda)

    def _measure_features(self) -> None:
        plan = plan_epoch(
            self.durations,
            seed=self.trainer.seed,
            epoch=0,
            batch_duration_s=self.trainer.batch_duration_s,
        )
        loader = self._loader(self.utterances, None)
        budget = self.trainer.batch_duration_s
        measure_features(self.recognizer, loader, plan, budget, self.fabric.device)

    def _fingerprint(self) -> str:
        """Of all that the order of the data depends on."""
        trainer = self.trainer
        settings = [
            trainer.batch_duration_s, trainer.accumulate, trainer.sort_first_epoch, trainer.seed,
            self.fabric.world_size, len(self.utterances), self.data_fingerprint,
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(settings).encode()).hexdigest()

    def _announce(self) -> None:
        parameters = sum(p.numel() for p in self.recognizer.model.parameters())
        self.log.say(
            "%d utterances, %.2f h to train on; %.2f M parameters; %s, %s, %d process(es)",
            len(self.utterances), sum(self.durations) / 3600, parameters / 1e6,
            self.fabric.device, self.fabric._precision.precision, self.fabric.world_size,
        )  # fmt: skip
        if self.progress.step:
            self.log.say(
                "resumed at step %d, epoch %d", self.progress.step, self.progress.epoch + 1
            )

    def _train_epoch(self) -> None:
        progress, world = self.progress, self.fabric.world_size
        batches = self._plan(progress.epoch)
        size = world * self.trainer.accumulate
        groups = [batches[i : i + size] for i in range(0, len(batches), size)]
        rest = groups[progress.group :]
        own = rank_batches([b for group in rest for b in group], world, self.fabric.global_rank)
        loader = self.train_loader.batches(progress.epoch, own)
        self.log.start_epoch(progress.epoch, self.trainer.max_epochs, progress.group, len(groups))
        self.recognizer.train()
        for group in rest:
            done = progress.epoch + (progress.group + 0.5) / len(groups)  # by mid-step
            share = done / self.trainer.max_epochs
            self._step(loader, group, share)
            if time.monotonic() - self.last_save > self.trainer.save_every_s:
                self._save()
        self.log.end_epoch()
        progress.epoch += 1
        progress.group = 0

    def _plan(self, epoch: int) -> list[tuple[int, ...]]:
        is_sorted = epoch == 0 and self.trainer.sort_first_epoch
        return plan_epoch(
            self.durations,
            seed=self.trainer.seed,
            epoch=epoch,
            batch_duration_s=self.trainer.batch_duration_s,
            world_size=self.fabric.world_size,
            accumulate=self.trainer.accumulate,
            order=Order.ASCENDING if is_sorted else Order.SHUFFLED,
        )

    def _step(self, loader: Iterator[Batch], group: list[tuple[int, ...]], share: float) -> None:
        start = time.monotonic()
        progress, fabric = self.progress, self.fabric
        # Dropout depends on seed, step and rank alone, so a resumed run draws the same.
        torch.manual_seed(draw_seed(self.trainer.seed, progress.step, f"rank {fabric.global_rank}"))
        factor = self.recipe.schedule(share)
        for settings, lr in zip(self.stepper.optimizer.param_groups, self.base_lrs, strict=True):
            settings["lr"] = factor * lr
        tokens = self.train_loader.dataset.tokens
        result = self.stepper.step(
            loader,
            count=len(group) // fabric.world_size,
            num_tokens=sum(len(tokens[position]) for batch in group for position in batch),
            label=f"step {progress.step + 1}",
        )
        self._after_step(group, result, time.monotonic() - start)

    def _after_step(self, group: list[tuple[int, ...]], result: StepResult, step_s: float) -> None:
        progress = self.progress
        progress.step += 1
        progress.group += 1
        audio = sum(self.durations[position] for batch in group for position in batch)
        progress.audio_s += audio
        progress.elapsed_s += step_s
        progress.train_s += step_s
        row = {
            "step": progress.step,
            "epoch": progress.epoch,
            "loss": result.loss,
            "lr": self.stepper.optimizer.param_groups[0]["lr"],
            "grad_norm": result.grad_norm,
            "utterances_per_s": sum(map(len, group)) / step_s,
            "audio_h_per_h": audio / step_s,
            "wait_share": result.waited_s / step_s,
        }
        is_recorded = progress.step == 1 or progress.step % self.trainer.log_every == 0
        self.log.step(row, self.last_wer, is_recorded)

    def _validate(self) -> None:
        start = time.monotonic()
        progress, world = self.progress, self.fabric.world_size
        dev = self.recipe.splits.dev
        durations = [seconds(utterance) for utterance in dev]
        plan = plan_evaluation(
            durations, batch_duration_s=self.trainer.batch_duration_s, world_size=world
        )
        share = rank_batches(plan, world, self.fabric.global_rank)
        # The running statistics of batch norm are each rank's own until here.
        for buffer in self.recognizer.model.buffers():
            buffer.copy_(self.fabric.broadcast(buffer))
        result = validate(self.recognizer, self.dev_loader.batches(0, share), self.fabric)
        progress.elapsed_s += time.monotonic() - start
        progress.validations += 1
        self.last_wer = result.words.rate
        self._report(result)
        if (result.words.rate, result.characters.rate) < (progress.best_wer, progress.best_cer):
            progress.best_wer, progress.best_cer = result.words.rate, result.characters.rate
            progress.best_step, progress.since_best = progress.step, 0
            self._save_model("best.safetensors", result)
        else:
            progress.since_best += 1
        self._save_model("last.safetensors", result)

    def _report(self, result: Validation) -> None:
        progress = self.progress
        wer, cer = result.words.rate, result.characters.rate
        row = {
            "step": progress.step, "epoch": progress.epoch, "elapsed_s": progress.elapsed_s,
            "audio_h": progress.audio_s / 3600, "loss": result.loss, "wer": wer, "cer": cer,
        }  # fmt: skip
        self.log.validation(row)
        self.log.say(
            "epoch %d  step %d  dev loss %.3f  WER %.2f %%  CER %.2f %%  (%.0f h/h, %.1f min)",
            progress.epoch, progress.step, result.loss, 100 * wer, 100 * cer,
            progress.audio_s / max(progress.train_s, 1e-9), progress.elapsed_s / 60,
        )  # fmt: skip
        for sample in result.samples:
            self.log.say("    reference  %s", sample.reference)
            self.log.say("    hypothesis %s", sample.hypothesis)

    def _is_out_of_patience(self) -> bool:
        patience = self.trainer.patience
        if not patience or self.progress.since_best < patience:
            return False
        self.log.say("stopped early: no better dev WER in %d validations", patience)
        return True

    def _save(self) -> None:
        # Rank 0 alone, and nobody waits for it: the clocks by which ranks would meet differ.
        self.last_save = time.monotonic()
        if self.fabric.global_rank == 0:
            save_state(self.run_dir / STATE_FILE, self.progress, self.stateful, self.fingerprint)

    def _save_model(self, name: str, result: Validation) -> None:
        if self.fabric.global_rank == 0:
            summary: Mapping[str, Any] = {
                "data_fingerprint": self.data_fingerprint,
                "step": self.progress.step,
                "epoch": self.progress.epoch,
                "audio_h": round(self.progress.audio_s / 3600, 3),
                "dev_wer": result.words.rate,
                "dev_cer": result.characters.rate,
            }
            save_model(self.run_dir / name, self.recognizer, summary)
