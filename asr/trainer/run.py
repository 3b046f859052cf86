"""One training: its epochs, steps and validations, saved so that any stop can be gone on from."""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import torch

from asr.data.batch import Batch
from asr.data.dataset import draw_seed
from asr.data.plan import plan_evaluation, rank_batches
from asr.data.splits import Splits, seconds
from asr.data.workers import Interrupted
from asr.trainer.audio_stamps import AudioStamps
from asr.trainer.average import WeightAverage
from asr.trainer.distributed import Stopped, StopRequest, World
from asr.trainer.expected_state import Stateful
from asr.trainer.feed import Group, WindowFeed
from asr.trainer.kept_models import BEST_FILE, drop_models, save_models
from asr.trainer.log import RunLog
from asr.trainer.observer import Observer
from asr.trainer.parameters import freeze, make_optimizer
from asr.trainer.recipe import Recipe, Settings
from asr.trainer.state import Origin, Progress, differences, pack_state, unpack_state
from asr.trainer.statistics import measure_features
from asr.trainer.step import Stepper, StepResult
from asr.trainer.store import StateStore
from asr.trainer.supply import Supply
from asr.trainer.validation import Validation, check_readable, validate

logger = logging.getLogger(__name__)

STATE_FOLDER = "state"
LEFT_OUT_FILE = "left_out.jsonl"
STATE_SLACK = 1 << 30  # [bytes] of a state beside its weights and moments
LACKS = (Interrupted, ValueError, OSError)  # why a rank may have no batch


class _Leaving(Exception):  # noqa: N818 -- it carries one
    """The training is to end where its state can be saved.

    Args:
        reason: what is to be raised then.
    """

    def __init__(self, reason: Exception) -> None:
        super().__init__(reason)
        self.reason = reason


class Run:
    """One call of `Trainer.fit`: what is fixed during it, and where it stands.

    Args:
        settings: how the training goes.
        world: device, precision and ranks.
        recipe: what is trained.
        run_dir: folder of the run, which the ranks share.
        resume: go on from the newest state in it.
    """

    def __init__(
        self, settings: Settings, world: World, recipe: Recipe, run_dir: Path, resume: bool
    ) -> None:
        self.settings = settings
        self.world = world
        self.is_writer = world.rank == 0
        self.recipe = recipe
        self.run_dir = run_dir
        self.recognizer = recipe.recognizer.to(world.device)
        left_out = run_dir / LEFT_OUT_FILE if self.is_writer else None
        self.stop = StopRequest()
        self.supply = Supply(settings, world, recipe, left_out, resume, self.stop)
        self.feed = self.supply.feed()
        freeze(self.recognizer.model, settings.frozen_layers)
        optimizer = make_optimizer(recipe.optimizer, self.recognizer.model, settings.layer_decay)
        self.average = WeightAverage(self.recognizer.model, settings.ema_decay)
        self.base_lrs = [group["lr"] for group in optimizer.param_groups]
        self.stepper = Stepper(
            world, self.recognizer, optimizer, recipe.augment.spec, settings.clip_norm
        )
        self.stateful: dict[str, Stateful] = {
            "model": self.recognizer, "optimizer": optimizer, "precision": self.stepper.scaler,
            "average": self.average,
        }  # fmt: skip
        if isinstance(recipe.splits, Splits):  # shards have a sha256
            self.stateful["audio"] = AudioStamps(recipe.splits.train, self.is_writer)
        self.data_fingerprint = recipe.splits.fingerprint()  # once: it reads every text
        # Moments and an average take a few times what the weights take, for any optimiser we know.
        weights = sum(value.nbytes for value in self.recognizer.state_dict().values())
        self.store = StateStore(
            run_dir / STATE_FOLDER, settings.keep_states, STATE_SLACK + 16 * weights
        )
        self.progress = Progress()
        plan = self._fingerprint(self.feed.windows.totals.utterances)
        self.origin = Origin(
            secrets.token_hex(8), plan, world.surroundings(), type(optimizer).__name__,
            recipe.settings,
        )  # fmt: skip
        if resume:
            self._restore()
        self.dev_loader = self.supply.dev_loader()
        try:
            check_readable(self._dev_batches(), recipe.splits.dev, world)
        finally:
            self.dev_loader.close()  # until the first validation its processes would do nothing
        if self.is_writer and not resume:
            self.store.clear()
        if self.is_writer and (settings.keep_models or not resume):
            drop_models(run_dir, self.progress.step, settings.keep_models)
        batches = self.supply.unvaried_batches(self.feed)
        measure_features(self.recognizer, batches, settings.batch_duration_s, world.device)
        self.log = RunLog(
            run_dir, self.is_writer, self.stepper.block_names, self.progress.step,
            self.progress.validations, settings.tensorboard,
        )  # fmt: skip
        self.observer = Observer(
            self.recognizer, world, self.log, settings, self.feed.windows.totals.utterances
        )
        self.last_save = time.monotonic()
        self.last_wer = float("nan")

    def run(self) -> Progress:
        """Train the epochs that are left."""
        with self.stop:
            try:
                self.feed.loader.start()
                self._announce()
                if not self.progress.step:
                    self._save()  # a folder that cannot be written to is found out now
                while self.progress.epoch < self.settings.max_epochs and self._has_patience():
                    self._train_epoch()
                    self._finish_epoch()
            finally:
                self.log.close()
                self.feed.loader.close()
                self.dev_loader.close()
        best = self.progress
        self.log.say(
            "done: best dev WER %.2f %%, CER %.2f %% at step %d, after %.1f min: %s",
            100 * best.best_wer, 100 * best.best_cer, best.best_step, best.elapsed_s / 60,
            self.run_dir / BEST_FILE,
        )  # fmt: skip
        return self.progress

    def _fingerprint(self, num_utterances: int) -> str:
        """Of all that the order of the data depends on."""
        settings = self.settings
        facts = [
            settings.batch_duration_s, settings.accumulate, settings.sort_first_epoch,
            settings.seed, self.world.size, num_utterances, self.data_fingerprint,
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def _restore(self) -> None:
        """Rank 0 reads the newest whole state, and all go on from it."""

        def read() -> tuple[bytes, Path]:
            self.store.clean()
            return self.store.load()

        content, path = self.world.broadcast(read)
        now = self.origin
        self.progress, was = unpack_state(content, self.stateful, now, path)
        self.origin = replace(now, run=was.run, surroundings=was.surroundings)
        if self.progress.window >= self.feed.windows.count():
            raise ValueError(
                f"{path}: window {self.progress.window}, expected one of the "
                f"{self.feed.windows.count()} of an epoch"
            )
        if not self.is_writer:
            return
        if changed := differences(was.surroundings, now.surroundings):
            logger.warning("resumed, but not to the last bit: %s", changed)
        if was.settings and (changed := differences(was.settings, now.settings)):
            logger.warning("resumed with other settings than before: %s", changed)

    def _announce(self) -> None:
        parameters = sum(p.numel() for p in self.recognizer.model.parameters())
        totals = self.feed.windows.totals
        self.log.say(
            "%d utterances, %.2f h to train on; %.2f M parameters; %s, %s, %d process(es)",
            totals.utterances, totals.seconds / 3600, parameters / 1e6,
            self.world.device, self.world.precision, self.world.size,
        )  # fmt: skip
        if self.progress.step:
            self.log.say(
                "resumed at step %d, epoch %d", self.progress.step, self.progress.epoch + 1
            )
        if self.settings.scan_memory:
            waveform = self.recipe.augment.waveform
            self.observer.scan_memory(
                self.stepper, self.feed.of(self.feed.windows.load(1, 0), 1),
                waveform.slowest if waveform else 1.0,
            )  # fmt: skip

    def _train_epoch(self) -> None:
        progress = self.progress
        self.observer.start_epoch()
        self.recognizer.train()
        for feed in self.feed.epoch(progress.epoch, progress.window):
            if feed.window.index > progress.window:
                progress.window, progress.group = feed.window.index, 0
            self._train_window(feed)

    def _train_window(self, feed: WindowFeed) -> None:
        progress = self.progress
        if progress.group > len(feed.groups):
            raise ValueError(
                f"{self.run_dir}: the state is of step {progress.group} of a window, expected at "
                f"most {len(feed.groups)}"
            )
        self.observer.start_window(feed, progress, self.run_dir / LEFT_OUT_FILE)
        rest = feed.groups[progress.group :]
        self.log.start_epoch(
            progress.epoch, self.settings.max_epochs, progress.group, len(feed.groups)
        )
        steps = feed.steps(rest)
        for group in rest:
            is_stop = self._step(feed, steps, group)
            if is_stop:
                self._leave(self._stopped())
            if self._is_time_to_save():
                self._save()
        self.log.end_epoch()

    def _step(self, feed: WindowFeed, steps: Iterator[list[Batch]], group: Group) -> bool:
        """Take one optimiser step; returns whether any rank was asked to stop."""
        start = time.monotonic()
        batches, lack = None, None
        try:
            batches = next(steps)
        except LACKS as error:
            lack = error
        waited_s = time.monotonic() - start
        factor = self.recipe.schedule(feed.done(self.progress.group) / self.settings.max_epochs)
        for settings, lr in zip(self.stepper.optimizer.param_groups, self.base_lrs, strict=True):
            settings["lr"] = factor * lr
        result = self.stepper.step(
            batches,
            num_tokens=feed.num_tokens(group),
            # Dropout depends on seed, step and rank alone, so a resumed run draws the same.
            seed=draw_seed(self.settings.seed, self.progress.step, f"rank {self.world.rank}"),
            is_stop=self.stop.is_made,
        )
        if result is None:  # on every rank: nobody has taken the step
            self._leave(self._reason(lack))
        self.average.update()
        self._after_step(feed, group, result, waited_s, time.monotonic() - start)
        return result.is_stop

    def _after_step(
        self, feed: WindowFeed, group: Group, result: StepResult, waited_s: float, step_s: float
    ) -> None:
        progress = self.progress
        audio_s = feed.audio_s(group)
        progress.step += 1
        progress.group += 1
        progress.audio_s += audio_s
        progress.elapsed_s += step_s
        progress.train_s += step_s
        lr = self.stepper.optimizer.param_groups[-1]["lr"]  # of the uppermost block
        self.observer.step(progress, result)
        row = {
            "step": progress.step,
            "epoch": progress.epoch,
            "loss": result.loss,
            "lr": lr,
            "grad_norm": result.grad_norm,
            "blank_share": result.blank_share,
            "step_s": step_s,
            "utterances_per_s": sum(map(len, group)) / step_s,
            "audio_h_per_h": audio_s / step_s,
            "wait_share": waited_s / step_s,
        }
        for name, norm in zip(self.stepper.block_names, result.block_norms, strict=True):
            row[f"grad_norm_{name}"] = norm
        is_recorded = progress.step == 1 or progress.step % self.settings.log_every == 0
        self.log.step(row, self.last_wer, is_recorded)
        left_out = self.run_dir / LEFT_OUT_FILE
        self.observer.check_left_out(progress, result, self.supply.misfits, left_out)

    def _finish_epoch(self) -> None:
        """Validate where it is time to; the epoch counts as done only after that."""
        progress, settings = self.progress, self.settings
        epochs = progress.epoch + 1
        is_due = epochs % settings.validate_every == 0 or epochs == settings.max_epochs
        try:
            with self.average.applied():
                result = self._validate() if is_due else None
                progress.epoch, progress.left_out = epochs, 0
                progress.window = progress.group = 0
                if result is not None:
                    self._report(result)
                    self._keep_models(result)
        except _Leaving as leaving:
            # Only here: a state has the training's own weights, not their average.
            self._leave(leaving.reason)
        self._save()

    def _dev_batches(self) -> Iterator[Batch]:
        """This rank's share of what is validated on."""
        world = self.world.size
        plan = plan_evaluation(
            [seconds(utterance) for utterance in self.recipe.splits.dev],
            batch_duration_s=self.settings.batch_duration_s,
            world_size=world,
        )
        return self.dev_loader.batches(0, rank_batches(plan, world, self.world.rank))

    def _validate(self) -> Validation:
        start = time.monotonic()
        # The running statistics of batch norm are each rank's own until here.
        for buffer in self.recognizer.model.buffers():
            self.world.copy_from_first(buffer)
        try:
            result = validate(
                self.recognizer, self._dev_batches(), self.world, self._leave_if_asked
            )
        except LACKS as lack:
            self._leave_if_asked(lack)  # where the other ranks are by now
            raise
        self.progress.elapsed_s += time.monotonic() - start
        return result

    def _report(self, result: Validation) -> None:
        progress = self.progress
        progress.validations += 1
        self.last_wer = result.words.rate
        wer, cer = result.words.rate, result.characters.rate
        row = {
            "step": progress.step, "epoch": progress.epoch, "elapsed_s": progress.elapsed_s,
            "audio_h": progress.audio_s / 3600, "loss": result.loss, "wer": wer, "cer": cer,
        }  # fmt: skip
        self.log.validation(row | self.observer.means(progress))
        self.log.say(
            "epoch %d  step %d  dev loss %.3f  WER %.2f %%  CER %.2f %%  (%.0f h/h, %.1f min)",
            progress.epoch, progress.step, result.loss, 100 * wer, 100 * cer,
            progress.audio_s / max(progress.train_s, 1e-9), progress.elapsed_s / 60,
        )  # fmt: skip
        for sample in result.samples:
            self.log.say("    reference  %s", sample.reference)
            self.log.say("    hypothesis %s", sample.hypothesis)
        is_last = progress.epoch == self.settings.max_epochs
        self.observer.validation(self.recipe.splits.dev, is_last)

    def _keep_models(self, result: Validation) -> None:
        progress = self.progress
        wer, cer = result.words.rate, result.characters.rate
        is_best = (wer, cer) < (progress.best_wer, progress.best_cer)
        progress.since_best += 1
        if is_best:
            progress.best_wer, progress.best_cer = wer, cer
            progress.best_step, progress.since_best = progress.step, 0
        if self.is_writer:
            self._check_weights()
            summary = {
                **self.recipe.start,
                "data_fingerprint": self.data_fingerprint,
                "step": progress.step,
                "epoch": progress.epoch,
                "audio_h": round(progress.audio_s / 3600, 3),
                "dev_wer": wer,
                "dev_cer": cer,
            }
            save_models(self.run_dir, self.recognizer, summary, is_best, self.settings.keep_models)

    def _has_patience(self) -> bool:
        patience = self.settings.patience
        if not patience or self.progress.since_best < patience:
            return True
        self.log.say("stopped early: no better dev WER in %d validations", patience)
        return False

    def _leave_if_asked(self, lack: Exception | None = None) -> None:
        """Between two batches of a validation, which is then done again after a resume.

        Args:
            lack: why this rank has no batch.

        Raises:
            _Leaving: on every rank, where one was asked to stop or has no batch.
        """
        if self.world.any(self.stop.is_made or lack is not None):
            raise _Leaving(self._reason(lack))

    def _reason(self, lack: Exception | None) -> Exception:
        """Why all ranks leave, the same on each: an error of the first that has one, or a stop."""
        lacks: list[Exception | None] = self.world.gather(lack)
        errors = [each for each in lacks if isinstance(each, (ValueError, OSError))]
        return errors[0] if errors else self._stopped()

    def _leave(self, reason: Exception) -> NoReturn:
        """Save, and end the training.

        Raises:
            Stopped: it was asked to.
            ValueError, OSError: batches cannot be loaded.
        """
        self._save()
        self.log.close()
        raise reason

    def _stopped(self) -> Stopped:
        asked = self.stop.signal.name if self.stop.signal else "another process's signal"
        where = f"at step {self.progress.step}, saved"
        return Stopped(f"stopped by {asked} {where}: go on with resume={self.run_dir}")

    def _is_time_to_save(self) -> bool:
        every = self.settings.save_every_steps
        is_step = every > 0 and self.progress.step % every == 0
        return is_step or time.monotonic() - self.last_save > self.settings.save_every_s

    def _save(self) -> None:
        # Rank 0 alone, and nobody waits for it: the clocks by which ranks would meet differ.
        self.last_save = time.monotonic()
        if self.is_writer:
            self._check_weights()
            content = pack_state(self.progress, self.stateful, self.origin)
            self.store.save(self.progress.step, self.origin.run, content)

    def _check_weights(self) -> None:
        for name, value in self.recognizer.state_dict().items():
            if not bool(torch.isfinite(value).all()):
                raise ValueError(
                    f"weight {name} is not finite after step {self.progress.step}, nothing was "
                    f"saved: go on from the last state with a lower rate, resume={self.run_dir} "
                    "optim.lr=..."
                )
