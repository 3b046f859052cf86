"""Watches a training: what went wrong, what it finds hard, and what its curves mean."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from asr.data.dataset import Request, load_request
from asr.data.manifest import Utterance
from asr.decoder import Greedy
from asr.finding import Finding, append_findings, summarise
from asr.recognizer import Recognizer
from asr.text import printable
from asr.trainer.diagnosis import Loud, Worst, advise, write_worst
from asr.trainer.distributed import World
from asr.trainer.feed import WindowFeed
from asr.trainer.log import RunLog
from asr.trainer.memory import GIB, scan_memory
from asr.trainer.picture import Heard, draw_alignments
from asr.trainer.recipe import Settings
from asr.trainer.state import Progress
from asr.trainer.step import Incidents, Stepper, StepResult

SHOWN = 10  # utterances that were left out, in the log; the file has all
DRAWN = 3  # dev utterances in alignments.png
DRAW_EVERY_S = 60.0  # [s] between drawings of it


class Observer:
    """Looks at each step and validation; tells the log, and writes what people look at.

    Args:
        recognizer: what is trained.
        world: ranks and device.
        log: where it speaks.
        settings: of the training.
        num_utterances: of an epoch, before those that are left out while training.
    """

    def __init__(
        self,
        recognizer: Recognizer,
        world: World,
        log: RunLog,
        settings: Settings,
        num_utterances: int,
    ) -> None:
        self.recognizer = recognizer
        self.world = world
        self.log = log
        self.settings = settings
        self.num_utterances = num_utterances
        self._feed: WindowFeed | None = None
        self._requests: dict[str, Request] = {}  # of the worst, which outlast their window
        self.worst = Worst(settings.worst)
        self._advice: str | None = None
        self._drew = -math.inf
        self._named = 0
        self._faults: list[Finding] = []  # of this epoch

    def scan_memory(self, stepper: Stepper, feed: WindowFeed, slowest: float) -> None:
        """Try the largest batch of a window, and say what it takes."""
        batches = [batch for group in feed.groups for batch in group]
        scan = scan_memory(stepper, batches, feed.durations, feed.window.tokens, slowest)
        self.log.say(
            "largest batch: %d utterances of up to %.1f s; %.1f of %.1f GiB of memory in use",
            scan.utterances, scan.longest_s, scan.peak / GIB, scan.total / GIB,
        )  # fmt: skip
        for note in scan.notes:
            self.log.warn(
                "the largest batch does not fit: %s; expected a smaller trainer.batch_duration_s "
                "than %g", note, self.settings.batch_duration_s,
            )  # fmt: skip

    def start_epoch(self) -> None:
        """Forget the utterances of the epoch before."""
        self.worst = Worst(self.settings.worst)
        self._feed = None
        self._requests = {}
        self._faults = []

    def start_window(self, feed: WindowFeed, progress: Progress, path: Path) -> None:
        """Name the utterances of a window that are left out, and stop where they are too many.

        Args:
            feed: of the window.
            progress: where the utterances of the epoch that were left out are counted.
            path: JSON lines that all are appended to.

        Raises:
            ValueError: more of the utterances left out than may be; on all ranks at once.
        """
        self._keep_requests()
        self._feed = feed
        if progress.group:  # gone on with after a resume: they are counted
            return
        window = feed.window
        self._leave_out(f"window {window.index + 1}", window.left_out, progress, (), path)

    def step(self, progress: Progress, result: StepResult) -> None:
        """Note a step: its sums go into the progress, so that a resume has them too."""
        clip = self.settings.clip_norm
        progress.recent_steps += 1
        progress.recent_loss += result.loss
        progress.recent_blanks += result.blank_share
        progress.recent_clipped += 0 < clip < result.grad_norm
        self.worst.add(result.losses)
        if not (math.isfinite(result.grad_norm) or self._has_scaler()):
            self.log.warn("step %d: gradient is not finite, step skipped", progress.step)

    def check_left_out(
        self, progress: Progress, result: StepResult, before: Sequence[Finding], path: Path
    ) -> None:
        """Tell what went wrong in a step, on any rank, and stop where it is too much.

        Args:
            progress: where the utterances of the epoch that were left out are counted.
            result: of the step.
            before: utterances left out before the training.
            path: JSON lines that all are appended to.

        Raises:
            ValueError: more of the utterances left out than may be; on all ranks at once.
        """
        if not result.num_incidents:
            return
        incidents: list[Incidents] = self.world.gather(result.incidents)
        faults = [fault for each in incidents for fault in each.left_out]
        for note in (note for each in incidents for note in each.notes):
            self.log.warn("step %d: %s", progress.step, note)
        self._leave_out(f"step {progress.step}", faults, progress, before, path)

    def _leave_out(
        self,
        when: str,
        faults: Sequence[Finding],
        progress: Progress,
        before: Sequence[Finding],
        path: Path,
    ) -> None:
        if not faults:
            return
        progress.left_out += len(faults)
        for fault in faults[: max(SHOWN - self._named, 0)]:
            self.log.warn("%s: left out %s", when, printable(str(fault)))
        self._named += len(faults)
        if self.log.is_writer:
            append_findings(path, faults)
        self._faults += faults
        total = self.num_utterances + len(before)
        left_out = progress.left_out + len(before)
        if left_out > self.settings.max_left_out * total:
            raise ValueError(
                f"{left_out} of {total} training utterances cannot be used, expected at most "
                f"{self.settings.max_left_out:.0%} (trainer.max_left_out): "
                f"{summarise([*before, *self._faults])}, all in {path}; last: {faults[-1]}"
            )

    def means(self, progress: Progress) -> dict[str, float]:
        """Of the steps since the last validation; they are counted anew from here."""
        steps = max(progress.recent_steps, 1)
        means = {
            "train_loss": progress.recent_loss / steps,
            "blank_share": progress.recent_blanks / steps,
            "clipped_share": progress.recent_clipped / steps,
        }
        progress.recent_steps = progress.recent_clipped = 0
        progress.recent_loss = progress.recent_blanks = 0.0
        return means

    def validation(self, dev: Sequence[Utterance], is_last: bool) -> None:
        """After a validation: advice, the loudest utterances, and a picture."""
        loudest = self._loudest()
        if not self.log.is_writer:
            return
        advice = advise(self.log.points())
        if advice is not None and advice != self._advice:
            self.log.warn("%s", advice)
        self._advice = advice
        if loudest:
            write_worst(self.log.run_dir / "worst.jsonl", loudest)
        if is_last or time.monotonic() - self._drew > DRAW_EVERY_S:
            some = dev[:: max(len(dev) // DRAWN, 1)][:DRAWN]
            chosen = [Request(0, utterance, ()) for utterance in some]
            draw_alignments(self.log.run_dir / "alignments.png", self._heard(chosen))
            self._drew = time.monotonic()

    def _has_scaler(self) -> bool:
        return self.world.precision == "16-mixed"

    def _keep_requests(self) -> None:
        """Hold on to what the worst utterances are heard from, as their window will go."""
        names = self.worst.names()
        if self._feed is not None:
            window = self._feed.window
            new = set(names) - self._requests.keys()
            for position, utterance in enumerate(window.utterances):
                if utterance.id in new:
                    self._requests[utterance.id] = window.request(self._feed.epoch, position)
        self._requests = {name: self._requests[name] for name in names}

    def _loudest(self) -> list[Loud]:
        """The training utterances with the highest loss, with what is heard, on rank 0."""
        self._keep_requests()
        losses = self.worst.take()
        requests = [self._requests[name] for name, _ in losses]
        heard = {each.id: each.hypothesis for each in self._heard(requests)}
        own = [
            Loud(
                name, str(request.utterance.audio_filepath), round(loss, 4),
                request.utterance.text, heard.get(name, ""),
            )
            for (name, loss), request in zip(losses, requests, strict=True)
        ]  # fmt: skip
        everyone: list[list[Loud]] = self.world.gather(own)
        found = sorted((loud for each in everyone for loud in each), key=lambda loud: -loud.loss)
        return found[: self.settings.worst]

    def _heard(self, requests: Iterable[Request]) -> list[Heard]:
        """What the model makes of utterances, one by one; those without sound are passed over."""
        was_training = self.recognizer.training
        self.recognizer.eval()
        heard = [each for each in map(self._hear, requests) if each is not None]
        self.recognizer.train(was_training)
        return heard

    @torch.inference_mode()
    def _hear(self, request: Request) -> Heard | None:
        recognizer, device, utterance = self.recognizer, self.world.device, request.utterance
        try:
            loaded = load_request(request, recognizer.features.sample_rate)
        except (OSError, ValueError):
            return None  # left out and named where it was to be learnt from
        waveform = torch.from_numpy(loaded)[None].to(device)
        num_samples = torch.tensor([len(loaded)], device=device)
        features, lengths = recognizer.features(waveform, num_samples)
        log_probs, log_prob_lengths = recognizer.model(features, lengths)
        tokens = Greedy()(log_probs, log_prob_lengths)[0][0].tokens
        return Heard(
            id=utterance.id,
            reference=utterance.text,
            hypothesis=recognizer.tokenizer.decode(tokens),
            features=features[0, : lengths[0]].cpu().numpy(),
            frame_shift_s=recognizer.features.frame_shift_s,
            probs=log_probs[0, : log_prob_lengths[0]].exp().cpu().numpy(),
            output_shift_s=recognizer.frame_shift_s,
            alphabet=recognizer.tokenizer.alphabet,
        )
