"""A training that a test starts as a process of its own: `python driver.py SPEC.json`.

The spec holds the trainer's settings and what is to happen to the training; what it does is told in
lines that are on the disk before the next thing happens (`events.jsonl`, one line an event).
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch

from asr.augment import Augment, Pauses, SpecAugment, WaveformAugment
from asr.data.dataset import batch_loader
from asr.data.shards import load_shar
from asr.data.splits import load_splits
from asr.recognizer import ModelSpec, Part, Recognizer
from asr.text import TextNormalizer
from asr.trainer import Recipe, checkpoint, diagnostics, step, trainer, validation
from asr.trainer.distributed import Stopped
from asr.trainer.optim import Constant
from tests.trainer.fitting import trainer_of

RATE = 8000  # [Hz]
STOPPED_STATUS = 75


class Padding:
    """Makes a state as large as that of a large model."""

    def __init__(self, mebibytes: int) -> None:
        self.tensor = torch.zeros(mebibytes << 18)  # float32

    def state_dict(self) -> dict[str, Any]:
        return {"padding": self.tensor}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.tensor = state_dict["padding"]


class Events:
    """Tells the test what happens, a line at a time, and lets it act."""

    def __init__(self, spec: dict[str, Any]) -> None:
        rank = os.environ.get("RANK", "0")
        self.path = Path(spec["run_dir"]) / f"events.{rank}.jsonl"
        self.pause = spec.get("pause", {})

    def tell(self, event: str, **facts: Any) -> None:
        with self.path.open("a") as file:
            row = {"event": event, "pid": os.getpid(), "time": time.time(), **facts}
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())
        time.sleep(self.pause.get(event, 0.0))


def instrument(spec: dict[str, Any], events: Events) -> None:
    """Tell of steps, saves and validations; kill this process where the spec says so."""
    save, learn, loss = checkpoint.StateStore.save, step.Stepper.step, validation.ctc_loss
    after_step = trainer.Training._after_step
    kill_at = dict(spec.get("kill_at", {})).get(os.environ.get("RANK", "0"), [])
    begin = trainer.Training.__init__

    def told_save(self: Any, number: int, *rest: Any) -> Path:
        events.tell("saving", step=number)
        path = save(self, number, *rest)
        events.tell("saved", step=number)
        return path

    def told_learn(self: Any, batches: Any, *rest: Any, **named: Any) -> Any:
        events.tell("learning", ids=[u.id for batch in batches or () for u in batch.utterances])
        return learn(self, batches, *rest, **named)

    def told_after(self: Any, planned: Any, result: Any, *rest: Any) -> None:
        after_step(self, planned, result, *rest)
        progress = self.progress
        events.tell("step", step=progress.step, epoch=progress.epoch, loss=result.loss.hex())
        killed = [row for row in read(events.path) if row["event"] == "killed"]
        if progress.step in kill_at and progress.step not in [row["step"] for row in killed]:
            events.tell("killed", step=progress.step)
            os.kill(os.getpid(), signal.SIGKILL)

    def told_loss(*arguments: Any) -> Any:
        events.tell("validating")
        return loss(*arguments)

    def padded(self: Any, *arguments: Any) -> None:
        begin(self, *arguments)
        events.tell("begun", step=self.progress.step, group=self.progress.group)

    checkpoint.StateStore.save = told_save  # type: ignore[method-assign]
    step.Stepper.step = told_learn  # type: ignore[method-assign]
    trainer.Training._after_step = told_after  # type: ignore[method-assign]
    trainer.Training.__init__ = padded  # type: ignore[method-assign]
    validation.ctc_loss = told_loss
    # Drawing would take two seconds of a training of one.
    diagnostics.draw_curves = diagnostics.draw_alignments = lambda *_, **__: None
    if "out_of_memory" in spec:
        run_short_of_memory(spec, events)
    if "pad_mb" in spec:
        pad_states(spec["pad_mb"])
    if "silence_s" in spec:
        trainer.batch_loader = partial(batch_loader, silence_s=spec["silence_s"])  # type: ignore[misc]
    if "forks" in spec:
        limit_forks(spec["forks"])


def run_short_of_memory(spec: dict[str, Any], events: Events) -> None:
    """Run out of memory at some batches, and tell what was learnt from the others."""
    shortages = spec["out_of_memory"].get(os.environ.get("RANK", "0"), [])
    backward = step.Stepper._backward
    steps = 0

    def short(self: Any, batch: Any, *rest: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps in shortages:
            raise torch.OutOfMemoryError("CUDA out of memory, for a test")
        kept = backward(self, batch, *rest)
        events.tell("learnt", ids=[utterance.id for utterance in kept.utterances])
        return kept

    step.Stepper._backward = short  # type: ignore[method-assign]


def pad_states(mebibytes: int) -> None:
    """Make the states as large as those of a large model."""
    pack, unpack = trainer.pack_state, checkpoint.unpack_state
    padding = Padding(mebibytes)

    def pack_padded(progress: Any, parts: Any, origin: Any) -> bytes:
        return pack(progress, {**parts, "padding": padding}, origin)

    def unpack_padded(content: bytes, parts: Any, *rest: Any) -> Any:
        return unpack(content, {**parts, "padding": padding}, *rest)

    trainer.pack_state, checkpoint.unpack_state = pack_padded, unpack_padded


def limit_forks(possible: int) -> None:
    """Let so many forks be and no more, as a limit of processes would; that does not hold root."""
    fork = os.fork
    left = possible

    def limited() -> int:
        nonlocal left
        left -= 1
        if left < 0:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return fork()

    os.fork = limited


def read(path: Path) -> list[dict[str, Any]]:
    """The events that a process told, without a last line that was cut."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text().splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            rows.append(json.loads(line))
    return rows


def recipe(spec: dict[str, Any]) -> Recipe:
    """The tone corpus with every draw there is: in waveforms, features and model; batch norm."""
    torch.manual_seed(0)
    model = {"subsampling": 2, "channels": 4, "hidden_size": 16, "num_layers": 1, "dropout": 0.3}
    features = Part("LogMel", {"sample_rate": RATE, "n_mels": 20})
    made = ModelSpec(features, Part("BiLstmCtc", model | {"norm": "batch"}), "abcd", {})
    load = load_shar if Path(spec["train"]).is_dir() else load_splits
    splits = load(spec["train"], spec["dev"], TextNormalizer(), "abcd")
    augment = Augment(
        WaveformAugment(
            speeds=(0.95, 1.0, 1.05),
            pauses=Pauses(around=0.3, joined=0.3, empty=0.3, longest_s=0.3, joined_s=2.0),
            gain_db=(-3.0, 3.0),
        ),
        SpecAugment(freq_width=3, time_width=3),
    )
    optimizer = partial(torch.optim.AdamW, lr=0.01)
    return Recipe(Recognizer(made), splits, optimizer, Constant(0.0), augment)


def main(spec: dict[str, Any]) -> int:
    """Train; returns the exit status."""
    torch.set_num_threads(1)
    run_dir = Path(spec["run_dir"])
    run_dir.mkdir(parents=True, exist_ok=True)
    events = Events(spec)
    instrument(spec, events)
    settings = {"log_every": 1, "scan_memory": False, "batch_duration_s": 60.0} | spec["settings"]
    resume = checkpoint.StateStore(run_dir / checkpoint.STATE_FOLDER).exists()
    try:
        trainer_of(**settings).fit(recipe(spec), run_dir, resume)
    except Stopped as stopped:
        events.tell("stopped", message=str(stopped))
        if torch.distributed.is_initialized():
            torch.distributed.barrier()
        return STOPPED_STATUS
    except ValueError as error:
        events.tell("refused", message=str(error))
        if torch.distributed.is_initialized():
            torch.distributed.barrier()
        raise
    events.tell("done")
    return 0


if __name__ == "__main__":
    sys.exit(main(json.loads(Path(sys.argv[1]).read_text())))
