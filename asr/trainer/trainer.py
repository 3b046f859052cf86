"""A training, to be read from top to bottom: its settings, epochs, steps, validations and saves."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import tee
from pathlib import Path
from typing import Any

from asr.augment import Augment
from asr.data.dataset import (
    Batch,
    ManifestWindows,
    PlannedStep,
    Planner,
    Request,
    batch_loader,
    draw_seed,
    label_manifest,
)
from asr.data.manifest import seconds
from asr.data.plan import plan_evaluation, rank_batches
from asr.data.shards import SharWindows, StreamedSplits
from asr.data.splits import Splits
from asr.data.workers import Interrupted
from asr.features import StoredNormalizer
from asr.finding import Finding
from asr.recognizer import Recognizer
from asr.trainer.checkpoint import (
    BEST_FILE,
    STATE_FOLDER,
    AudioStamps,
    Origin,
    Progress,
    StateStore,
    drop_models,
    pack_state,
    restore,
    save_models,
)
from asr.trainer.diagnostics import Diagnostics, scan_memory
from asr.trainer.distributed import Leaving, Stopped, StopRequest, World, join_world
from asr.trainer.expected_state import Stateful
from asr.trainer.left_out import LeftOut, check_feasible
from asr.trainer.log import UNITS, RunLog
from asr.trainer.optim import MakeOptimizer, Schedule, WeightAverage, freeze, make_optimizer
from asr.trainer.step import Stepper, StepResult, check_finite
from asr.trainer.validation import Validation, check_readable, validate

logger = logging.getLogger(__name__)

LEFT_OUT_FILE = "left_out.jsonl"
GPU_WORKERS = 4  # loading processes a rank, where the settings leave their number open
MEASURED_S = 3600.0  # [s] audio that stored feature statistics are measured on
STATE_SLACK = 1 << 30  # [bytes] of a state beside its weights and moments
LACKS = (Interrupted, ValueError, OSError)  # why a rank may have no batch


# --- what a training is made of ----------------------------------------------------------------


@dataclass(frozen=True)
class Recipe:
    """What is trained, on what, and how it is varied.

    Attributes:
        recognizer: the model to train, with its features and alphabet.
        splits: utterances to learn from and to validate on.
        optimizer: makes the optimiser of parameter groups; its learning rate is the schedule's 1.
        schedule: factor on the learning rate at a share of the training.
        augment: how the utterances are varied.
        start: where the weights came from, for the training summary; empty for fresh ones.
        settings: by the keys of the config, what the weights depend on, as text: what differs from
            those of a state is told where a training goes on from it.
    """

    recognizer: Recognizer
    splits: Splits | StreamedSplits
    optimizer: MakeOptimizer
    schedule: Schedule
    augment: Augment
    start: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(kw_only=True)
class Trainer:
    """Trains a recogniser with CTC, as its settings say.

    What each setting means stands beside its default, in conf/trainer/default.yaml. The loss of an
    optimiser step is the sum of its utterances' losses over the number of their characters, all
    ranks and accumulated batches counted together: two ranks, or two accumulated batches, take the
    same step as each other.

    Attributes:
        world: device, precision and ranks, which are joined when a trainer is made.

    Raises:
        ValueError: a setting out of its range, or a device or precision that is not there.
    """

    max_epochs: int
    batch_duration_s: float
    accumulate: int
    frozen_layers: int
    layer_decay: float
    ema_decay: float
    clip_norm: float
    sort_first_epoch: bool
    validate_every: int
    patience: int
    save_every_s: float
    save_every_steps: int
    keep_states: int
    keep_models: int
    log_every: int
    num_workers: int | None
    max_left_out: float
    scan_memory: bool
    worst: int
    precision: str
    accelerator: str
    devices: int
    num_nodes: int
    tensorboard: bool
    seed: int
    world: World = field(init=False)

    def __post_init__(self) -> None:
        for name, least in (
            ("max_epochs", 1), ("accumulate", 1), ("validate_every", 1), ("save_every_steps", 0),
            ("keep_states", 1), ("keep_models", 0), ("log_every", 1), ("worst", 0), ("devices", 1),
            ("num_nodes", 1), ("num_workers", 0), ("max_left_out", 0), ("clip_norm", 0),
            ("save_every_s", 0), ("patience", 0),
        ):  # fmt: skip
            count = getattr(self, name)
            if count is not None and count < least:
                raise ValueError(f"trainer.{name} {count}, expected {least} or more")
        if self.max_left_out > 1:
            raise ValueError(f"trainer.max_left_out {self.max_left_out:g}, expected 0 to 1")
        self.world = join_world(self.accelerator, self.devices, self.num_nodes, self.precision)

    def fit(
        self,
        recipe: Recipe,
        run_dir: Path,
        resume: bool = False,
        ready: Callable[[], None] = lambda: None,
    ) -> Progress:
        """Train to the end, or to an early stop.

        Writes best.safetensors (lowest dev WER, then CER), last.safetensors, the training states,
        CSV logs and pictures into the run's folder.

        Args:
            recipe: what to train.
            run_dir: folder of the run, which the ranks share.
            resume: go on from the newest state in `run_dir`.
            ready: called before the first step, once recipe, settings and state fit each other.

        Returns:
            Where the training ended.

        Raises:
            Stopped: SIGTERM, SIGUSR1 or Ctrl-C asked it to leave; the state is saved.
            ValueError: no utterance that can be trained on, too many that cannot, a state that does
                not fit, weights that are not finite; a batch that cannot be loaded, with the state
                saved.
            OSError: a full disk; the states before are as they were.
        """
        return Training(self, recipe, run_dir, resume).run(ready)


# --- one training ------------------------------------------------------------------------------


class Training:
    """One call of `Trainer.fit`: what is fixed during it, and where it stands.

    Args:
        settings: how the training goes.
        recipe: what is trained.
        run_dir: folder of the run, which the ranks share.
        resume: go on from the newest state in it.
    """

    def __init__(self, settings: Trainer, recipe: Recipe, run_dir: Path, resume: bool) -> None:
        self.settings, self.recipe, self.run_dir = settings, recipe, run_dir
        self.world = settings.world
        self.is_writer = self.world.rank == 0
        self.recognizer = recipe.recognizer.to(self.world.device)
        self.stop = StopRequest()
        rank, size = self.world.rank, self.world.size

        # What it learns from, without what CTC cannot learn from.
        waveform, splits = recipe.augment.waveform, recipe.splits
        fastest = waveform.fastest if waveform else 1.0
        gate = partial(check_feasible, recognizer=self.recognizer, fastest=fastest)
        tokenizer = self.recognizer.tokenizer
        self.windows: ManifestWindows | SharWindows
        if isinstance(splits, Splits):
            self.windows = label_manifest(splits.train, tokenizer, gate)
            before = [*splits.left_out, *self.windows.left_out]
        else:
            self.windows = splits.train.open(tokenizer, gate, settings.seed, rank, size)
            before = []  # it is told window by window
        self.left_out = LeftOut(
            before, self.windows.num_utterances, settings.max_left_out,
            run_dir / LEFT_OUT_FILE, self.is_writer,
        )  # fmt: skip
        self.left_out.begin(resume)
        if self.windows.longest_s > settings.batch_duration_s:
            raise ValueError(
                f"the longest training utterance lasts {self.windows.longest_s:.2f} s, expected at "
                f"most batch_duration_s = {settings.batch_duration_s:g} s"
            )
        self.planner = Planner(
            settings.seed, settings.batch_duration_s, settings.accumulate,
            settings.sort_first_epoch, rank, size,
        )  # fmt: skip
        # On a CPU, loading ahead would only take the cores from training.
        usual_workers = GPU_WORKERS if self.world.device.type == "cuda" else 0
        self.loader = batch_loader(
            self.recognizer.features.sample_rate,
            settings.seed,
            waveform,
            space=tokenizer.encode(" ") if " " in tokenizer.alphabet else (),
            num_workers=usual_workers if settings.num_workers is None else settings.num_workers,
            pin_memory=self.world.device.type == "cuda",
            is_stop=lambda: self.stop.is_made,
        )

        # What learns.
        freeze(self.recognizer.model, settings.frozen_layers)
        optimizer = make_optimizer(recipe.optimizer, self.recognizer.model, settings.layer_decay)
        self.base_lrs = [group["lr"] for group in optimizer.param_groups]
        self.average = WeightAverage(self.recognizer.model, settings.ema_decay)
        self.stepper = Stepper(
            self.world, self.recognizer, optimizer, recipe.augment.spec, settings.clip_norm
        )

        # Where it stands.
        self.progress = Progress()
        self.last_save = time.monotonic()
        self.last_wer = math.nan
        self.is_resumed = resume
        self._open_states()

    def _open_states(self) -> None:
        """Name all that a resume needs, and go on from the newest state if that is asked for."""
        settings, recipe = self.settings, self.recipe
        self.dev_audio = AudioStamps(recipe.splits.dev, self.is_writer)
        self.parts: dict[str, Stateful] = {
            "model": self.recognizer, "optimizer": self.stepper.optimizer,
            "precision": self.stepper.scaler, "average": self.average, "dev_audio": self.dev_audio,
        }  # fmt: skip
        if isinstance(recipe.splits, Splits):  # shards have a sha256
            self.parts["audio"] = AudioStamps(recipe.splits.train, self.is_writer)
        # Moments and an average take a few times what the weights take, for any optimiser we know.
        weights = sum(value.nbytes for value in self.recognizer.state_dict().values())
        self.store = StateStore(
            self.run_dir / STATE_FOLDER, settings.keep_states, STATE_SLACK + 16 * weights
        )
        self.data_fingerprint = recipe.splits.fingerprint()  # once: it reads every text
        plan = [
            settings.batch_duration_s, settings.accumulate, settings.sort_first_epoch,
            settings.seed, self.world.size, self.windows.num_utterances, self.data_fingerprint,
        ]  # fmt: skip
        self.origin = Origin(
            run=secrets.token_hex(8),
            plan=hashlib.sha256(json.dumps(plan).encode()).hexdigest(),
            surroundings=self.world.environment(),
            optimizer=type(self.stepper.optimizer).__name__,
            settings=recipe.settings,
        )
        if self.is_resumed:
            self.progress, self.origin = restore(
                self.store, self.parts, self.origin, self.world, self.windows.count()
            )

    def run(self, ready: Callable[[], None]) -> Progress:
        """Train the epochs that are left; wherever that ends, the state is saved."""
        settings, progress = self.settings, self.progress
        with closing(self.loader):
            self._begin()
            ready()
            # Loading processes end before the stop is passed on to whom it was for.
            with self.stop, closing(self.loader), closing(self.log):
                self._announce()
                if not progress.step:
                    self.save()  # a folder that cannot be written to is found out now
                try:
                    while progress.epoch < settings.max_epochs:
                        if settings.patience and progress.since_best >= settings.patience:
                            self.log.say(
                                "stopped early: no better dev %s in %d validations",
                                self.log.rate_name, settings.patience,
                            )  # fmt: skip
                            break
                        self._train_epoch()
                        self._end_epoch()
                except Leaving as leaving:
                    self.save()
                    raise leaving.reason from leaving.reason.__cause__
        self.log.say(
            "done: best dev %s at step %d, after %.1f min: %s",
            self.log.rates(progress.best_wer, progress.best_cer, ", "), progress.best_step,
            progress.elapsed_s / 60, self.run_dir / BEST_FILE,
        )  # fmt: skip
        return progress

    # --- before the first step -----------------------------------------------------------------

    def _begin(self) -> None:
        """Find out what would stop the training later, and make the run's folder its own."""
        settings, progress, dev = self.settings, self.progress, self.recipe.splits.dev
        # Before any thread reads ahead: a fork copies a lock that another thread holds.
        self.loader.start()
        # Dev is read once; where a state says so, only what has changed since.
        changed = self.dev_audio.changed
        positions = self.world.broadcast(lambda: range(len(dev)) if changed is None else changed)
        if positions:
            check_readable(self._dev_batches(positions), dev, self.world)
        if self.is_writer and not self.is_resumed:
            self.store.clear()
        if self.is_writer and (settings.keep_models or not self.is_resumed):
            drop_models(self.run_dir, progress.step, settings.keep_models)
        self.log = RunLog(
            self.run_dir, self.is_writer, settings.max_epochs, self.stepper.block_names,
            progress.step, progress.validations, settings.tensorboard,
            "CER" if self.recognizer.unit == "character" else "WER",
        )  # fmt: skip
        self.diagnostics = Diagnostics(self.recognizer, self.world, self.log, settings.worst)
        normalizer = self.recognizer.features.normalizer
        if isinstance(normalizer, StoredNormalizer) and not normalizer.is_measured:
            self._measure_features(normalizer)

    def _measure_features(self, normalizer: StoredNormalizer) -> None:
        """Measure the feature statistics on about an hour, as one rank alone would have it."""
        window = self.windows.of_one_rank().load(0, 0)
        plan = replace(self.planner, rank=0, world_size=1).batches(window, 0)
        batches = self.loader.load(
            [window.request(0, position, is_varied=False) for position in batch]
            for batch in plan[: math.ceil(MEASURED_S / self.settings.batch_duration_s)]
        )
        on_device = (batch.to(self.world.device) for batch in batches)
        log_mel = self.recognizer.features.log_mel
        normalizer.measure(log_mel(batch.waveforms, batch.num_samples) for batch in on_device)

    def _announce(self) -> None:
        """Tell what is trained, and try the largest batch."""
        settings, windows, log = self.settings, self.windows, self.log
        parameters = sum(parameter.numel() for parameter in self.recognizer.model.parameters())
        log.say(
            "%d utterances, %.2f h to train on; %.2f M parameters; %s, %s, %d process(es)",
            windows.num_utterances, windows.seconds / 3600, parameters / 1e6,
            self.world.device, self.world.precision, self.world.size,
        )  # fmt: skip
        if self.progress.step:
            log.say("resumed at step %d, epoch %d", self.progress.step, self.progress.epoch + 1)
        if settings.scan_memory:
            window = windows.load(1, 0)
            scan_memory(
                self.stepper, log, window, self.planner.batches(window, 1),
                self.recipe.augment.waveform, settings.batch_duration_s,
            )  # fmt: skip
        log.say(UNITS)

    # --- an epoch ------------------------------------------------------------------------------

    def _train_epoch(self) -> None:
        """Take the optimiser steps that are left of an epoch."""
        progress, settings = self.progress, self.settings
        self.recognizer.train()
        self.diagnostics.worst.take()  # of an epoch without a validation, nobody took them
        self.left_out.start_epoch()
        self.log.start_epoch(progress.epoch)
        windows = self.windows.epoch(progress.epoch, progress.window)
        # The loading processes are some batches ahead of the steps.
        steps, ahead = tee(self.planner.steps(windows, progress.epoch, progress.group))
        batches = self.loader.load(batch for step in ahead for batch in step.requests)
        for step in steps:
            self._leave_out(f"window {step.window + 1}", step.left_out)
            if not step.requests:
                continue  # nothing of its window can be trained on
            start = time.monotonic()
            try:
                own, lack = [next(batches) for _ in step.requests], None
            except LACKS as error:
                own, lack = None, error
            waited_s = time.monotonic() - start
            factor = self.recipe.schedule(step.epochs_done / settings.max_epochs)
            for group, lr in zip(self.stepper.optimizer.param_groups, self.base_lrs, strict=True):
                group["lr"] = factor * lr
            result = self.stepper.step(
                own,
                num_tokens=step.num_tokens,
                # Dropout depends on seed, step and rank alone, so a resumed run draws the same.
                seed=draw_seed(settings.seed, progress.step, f"rank {self.world.rank}"),
                is_stop=self.stop.is_made,
            )
            if result is None:  # some rank had no batch, and no rank has taken the step
                raise self._leaving(lack)
            self.average.update()
            self._after_step(step, result, waited_s, time.monotonic() - start)
            if result.is_stop:
                raise self._leaving()
            every = settings.save_every_steps
            is_old = time.monotonic() - self.last_save > settings.save_every_s
            if is_old or (every and progress.step % every == 0):
                self.save()
        self.log.end_epoch()

    def _after_step(
        self, step: PlannedStep, result: StepResult, waited_s: float, step_s: float
    ) -> None:
        """Count a step, and tell of it."""
        progress, settings = self.progress, self.settings
        progress.step += 1
        progress.window, progress.group = step.window, step.group + 1
        progress.audio_s += step.audio_s
        progress.elapsed_s += step_s
        progress.train_s += step_s
        # Sums for the next validation, which a resume needs too.
        progress.recent_steps += 1
        progress.recent_loss += result.loss
        progress.recent_blanks += result.blank_share
        progress.recent_clipped += 0 < settings.clip_norm < result.grad_norm
        if not (math.isfinite(result.grad_norm) or self.stepper.scaler.is_enabled()):
            self.log.warn("step %d: gradient is not finite, step skipped", progress.step)
        requests = {each.utterance.id: each for batch in step.requests for each in batch}
        self.diagnostics.worst.add(result.losses, requests)
        row = {
            "step": progress.step,
            "epoch": progress.epoch,
            "loss": result.loss,
            "lr": self.stepper.optimizer.param_groups[-1]["lr"],  # of the uppermost block
            "grad_norm": result.grad_norm,
            "blank_share": result.blank_share,
            "step_s": step_s,
            "utterances_per_s": step.num_utterances / step_s,
            "audio_h_per_h": step.audio_s / step_s,
            "wait_share": waited_s / step_s,
        }
        for name, norm in zip(self.stepper.block_names, result.block_norms, strict=True):
            row[f"grad_norm_{name}"] = norm
        is_recorded = progress.step == 1 or progress.step % settings.log_every == 0
        self.log.step(row, step.epochs_done, self.last_wer, is_recorded)
        if result.num_incidents:
            incidents = self.world.gather(result.incidents)
            for note in (note for each in incidents for note in each.notes):
                self.log.warn("step %d: %s", progress.step, note)
            found = [finding for each in incidents for finding in each.left_out]
            self._leave_out(f"step {progress.step}", found)

    def _end_epoch(self) -> None:
        """Validate where it is time to; the epoch counts as done only after that."""
        progress, settings = self.progress, self.settings
        epochs = progress.epoch + 1
        is_due = epochs % settings.validate_every == 0 or epochs == settings.max_epochs
        result = None
        with self.average.applied():
            if is_due:
                start = time.monotonic()
                # The running statistics of batch norm are each rank's own until here.
                for buffer in self.recognizer.model.buffers():
                    self.world.copy_from_first(buffer)
                everything = self._dev_batches(range(len(self.recipe.splits.dev)))
                result = validate(self.recognizer, self._agreed(everything), self.world)
                progress.elapsed_s += time.monotonic() - start
            progress.epoch, progress.left_out = epochs, 0
            progress.window = progress.group = 0
            if result is not None:
                self._after_validation(result)
        self.save()  # outside of `applied`: a state has the training's own weights

    def _after_validation(self, result: Validation) -> None:
        """Tell of a validation, and save its model."""
        progress, settings = self.progress, self.settings
        wer, cer = result.words.rate, result.characters.rate
        self.last_wer = wer
        steps = max(progress.recent_steps, 1)
        self.log.validation({
            "step": progress.step, "epoch": progress.epoch, "elapsed_s": progress.elapsed_s,
            "audio_h": progress.audio_s / 3600, "loss": result.loss, "wer": wer, "cer": cer,
            "train_loss": progress.recent_loss / steps,
            "blank_share": progress.recent_blanks / steps,
            "clipped_share": progress.recent_clipped / steps,
        })  # fmt: skip
        progress.recent_steps = progress.recent_clipped = 0
        progress.recent_loss = progress.recent_blanks = 0.0
        self.log.say(
            "epoch %d  step %d  dev loss %.3f  %s  (%.0f h/h, %.1f min)",
            progress.epoch, progress.step, result.loss, self.log.rates(wer, cer, "  "),
            progress.audio_s / max(progress.train_s, 1e-9), progress.elapsed_s / 60,
        )  # fmt: skip
        for sample in result.samples:
            self.log.say("    reference  %s", self.recognizer.readable(sample.reference))
            self.log.say("    hypothesis %s", self.recognizer.readable(sample.hypothesis))
        is_last = progress.epoch == settings.max_epochs
        self.diagnostics.validation(self.recipe.splits.dev, is_last)

        progress.validations += 1
        progress.since_best += 1
        is_best = (wer, cer) < (progress.best_wer, progress.best_cer)
        if is_best:
            progress.best_wer, progress.best_cer = wer, cer
            progress.best_step, progress.since_best = progress.step, 0
        if self.is_writer:
            check_finite(self.recognizer, self.progress.step, self.run_dir)
            summary = {
                **self.recipe.start,
                "data_fingerprint": self.data_fingerprint,
                "step": progress.step,
                "epoch": progress.epoch,
                "audio_h": round(progress.audio_s / 3600, 3),
                "dev_wer": wer,
                "dev_cer": cer,
            }
            save_models(self.run_dir, self.recognizer, summary, is_best, settings.keep_models)

    # --- saves and stops -----------------------------------------------------------------------

    def save(self) -> None:
        """Save the state, by rank 0 alone; nobody waits for it."""
        self.last_save = time.monotonic()
        if self.is_writer:
            check_finite(self.recognizer, self.progress.step, self.run_dir)
            content = pack_state(self.progress, self.parts, self.origin)
            self.store.save(self.progress.step, self.origin.run, content)

    def _leaving(self, lack: Exception | None = None) -> Leaving:
        """Why all ranks leave, the same on each: an error of the first that has one, or a stop.

        Args:
            lack: why this rank has no batch, if so.
        """
        lacks = self.world.gather(lack)
        errors = [each for each in lacks if isinstance(each, (ValueError, OSError))]
        asked = self.stop.signal.name if self.stop.signal else "another process's signal"
        where = f"at step {self.progress.step}, saved"
        stopped = Stopped(f"stopped by {asked} {where}: go on with resume={self.run_dir}")
        return Leaving(errors[0] if errors else stopped)

    # --- data ----------------------------------------------------------------------------------

    def _leave_out(self, when: str, found: Sequence[Finding]) -> None:
        self.progress.left_out += len(found)
        self.left_out.add(when, found, self.progress.left_out)

    def _dev_batches(self, positions: Sequence[int]) -> Iterator[Batch]:
        """This rank's share of some dev utterances."""
        dev, encode = self.recipe.splits.dev, self.recognizer.tokenizer.encode
        plan = plan_evaluation(
            [seconds(dev[position]) for position in positions],
            batch_duration_s=self.settings.batch_duration_s,
            world_size=self.world.size,
        )
        return self.loader.load(
            [
                Request(0, dev[positions[k]], encode(dev[positions[k]].text), is_varied=False)
                for k in batch
            ]
            for batch in rank_batches(plan, self.world.size, self.world.rank)
        )

    def _agreed(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Dev batches, as long as every rank has its own and none is asked to stop.

        Raises:
            Leaving: on every rank at once.
        """
        while True:
            batch, lack = None, None
            try:
                batch = next(batches, None)
                if batch is not None and batch.faults:
                    fault = batch.faults[0]
                    raise ValueError(f"dev utterance {fault.id}: {fault.reason}")
            except LACKS as error:
                lack = error
            # A rank that left alone would keep the others waiting in the next all-reduce.
            if self.world.any(self.stop.is_made or lack is not None):
                raise self._leaving(lack)
            if batch is None:
                return
            yield batch
