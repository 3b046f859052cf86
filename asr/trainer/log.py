"""What a training says: plain lines, a progress bar, CSV files, TensorBoard."""

from __future__ import annotations

import csv
import io
import logging
import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from asr.atomic_file import append_text, replace_text
from asr.untrusted import read_text, shown

logger = logging.getLogger(__name__)

STEP_FIELDS = (
    "step", "epoch", "loss", "lr", "grad_norm", "blank_share", "step_s", "utterances_per_s",
    "audio_h_per_h", "wait_share",
)  # fmt: skip
VALIDATION_FIELDS = (
    "step", "epoch", "elapsed_s", "audio_h", "loss", "wer", "cer", "train_loss", "blank_share",
    "clipped_share",
)  # fmt: skip
EXACT = ("loss", "train_loss")  # columns with every digit, so that two curves can be compared
MAX_LOG_BYTES = 1 << 30  # 1 GiB: ten million rows
PLAIN_EVERY_S = 15.0  # [s] between the lines that stand in for a bar where there is no terminal
UNITS = (
    "units: loss in nats a character; lr learning rate; utt/s utterances a second; h/h hours of "
    "audio an hour; waiting, share of the time without a batch"
)


class RunLog:
    """Everything one rank writes about its training; silent on ranks other than 0.

    Args:
        run_dir: folder of the run.
        is_writer: True on rank 0.
        max_epochs: of the training.
        blocks: parts of the model, whose gradient norms have columns in steps.csv.
        step: the step that a resumed training goes on from; later rows of steps.csv are cut.
        validations: validations it has done by then; later rows of validations.csv are cut.
        tensorboard: also write TensorBoard events under <run_dir>/tensorboard.
        rate_name: of what the best model is chosen by: WER, or CER where the unit is the character.

    Raises:
        ValueError: TensorBoard is asked for but not installed.
    """

    def __init__(
        self,
        run_dir: Path,
        is_writer: bool,
        max_epochs: int,
        blocks: Sequence[str] = (),
        step: int = 0,
        validations: int = 0,
        tensorboard: bool = False,
        rate_name: str = "WER",
    ) -> None:
        self.run_dir = run_dir
        self.is_writer = is_writer
        self.max_epochs = max_epochs
        self.rate_name = rate_name
        self.step_fields = (*STEP_FIELDS, *(f"grad_norm_{block}" for block in blocks))
        self._spoke = 0.0
        self._began: tuple[float, float] | None = None  # epochs done then, and when [s]
        self._board: Any = None
        if tensorboard and is_writer:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise ValueError(
                    "trainer.tensorboard=true needs TensorBoard, which is not installed: "
                    "pip install 'lstm-asr[track]'"
                ) from error
            self._board = SummaryWriter(str(run_dir / "tensorboard"))
        self._bar: Progress | None = None
        if is_writer:
            steps = rows_of(run_dir / "steps.csv") if step else []
            kept = [row for row in steps if int(row[0]) <= step]
            _write_rows(run_dir / "steps.csv", self.step_fields, kept)
            done = rows_of(run_dir / "validations.csv")[:validations] if validations else []
            _write_rows(run_dir / "validations.csv", VALIDATION_FIELDS, done)

    def rates(self, wer: float, cer: float, gap: str) -> str:
        """Write error rates: where the unit is the character, one is all."""
        rates = f"CER {100 * cer:.2f} %"
        return rates if self.rate_name == "CER" else f"WER {100 * wer:.2f} %{gap}{rates}"

    def say(self, message: str, *arguments: object) -> None:
        """One line for people."""
        if self.is_writer:
            logger.info(message, *arguments)

    def warn(self, message: str, *arguments: object) -> None:
        """One line for people about what should not be."""
        if self.is_writer:
            logger.warning(message, *arguments)

    def start_epoch(self, epoch: int) -> None:
        """Open the bar of an epoch, from 0."""
        if not self.is_writer or not sys.stderr.isatty():
            return
        self._bar = Progress(
            TextColumn(f"epoch {epoch + 1}/{self.max_epochs}"),
            BarColumn(),
            TextColumn("{task.percentage:.0f} %"),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
            transient=True,
        )
        self._bar.add_task("", total=1.0, state="")
        self._bar.start()

    def end_epoch(self) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def step(self, row: Mapping[str, Any], epochs_done: float, wer: float, record: bool) -> None:
        """Show an optimiser step, and record it where asked.

        Args:
            row: a value for each of `step_fields`.
            epochs_done: epochs of the training that are done with it.
            wer: the last dev WER (or CER), a fraction; NaN before the first.
            record: also write it to steps.csv and TensorBoard.
        """
        if not self.is_writer:
            return
        validated = "" if math.isnan(wer) else f"dev {self.rate_name} {100 * wer:.1f} %  "
        state = (
            f"loss {row['loss']:.3f}  lr {row['lr']:.3g}  {validated}"
            f"{row['utterances_per_s']:.1f} utt/s  {row['audio_h_per_h']:.0f} h/h  "
            f"waiting {100 * row['wait_share']:.1f} %{self._left(epochs_done)}"
        )
        if self._bar is not None:
            share = epochs_done - row["epoch"]
            self._bar.update(self._bar.task_ids[0], completed=share, state=state)
        elif time.monotonic() - self._spoke > PLAIN_EVERY_S:
            self._spoke = time.monotonic()
            epoch = f"{row['epoch'] + 1}/{self.max_epochs}"
            logger.info("step %d  epoch %s  %s", row["step"], epoch, state)
        if record:
            self._record("steps", self.step_fields, row)

    def validation(self, row: Mapping[str, Any]) -> None:
        """Record a validation.

        Args:
            row: a value for each of VALIDATION_FIELDS.
        """
        if self.is_writer:
            self._record("validations", VALIDATION_FIELDS, row)

    def close(self) -> None:
        """Finish what is open."""
        self.end_epoch()
        if self._board is not None:
            self._board.close()

    def _left(self, epochs_done: float) -> str:
        """The time to the last epoch, at the speed since the first step; nothing with that one."""
        now = time.monotonic()
        self._began = self._began or (epochs_done, now)
        before, began = self._began
        if epochs_done <= before:
            return ""
        left_s = (self.max_epochs - epochs_done) * (now - began) / (epochs_done - before)
        minutes = math.ceil(left_s / 60)
        hours = f"{minutes // 60} h " if minutes >= 60 else ""
        return f"  {hours}{minutes % 60} min left"

    def _record(self, name: str, names: tuple[str, ...], row: Mapping[str, Any]) -> None:
        values = [
            f"{row[key]:.6g}" if isinstance(row[key], float) and key not in EXACT else row[key]
            for key in names
        ]
        append_text(self.run_dir / f"{name}.csv", _lines([values]))
        if self._board is not None:
            prefix = "train" if name == "steps" else "dev"
            for key in names[2:]:
                self._board.add_scalar(f"{prefix}/{key}", row[key], row["step"])


def rows_of(path: Path) -> list[list[str]]:
    """The rows of a CSV file without its header, nor a last one that was cut while written.

    Raises:
        ValueError: no regular file, too large, or no rows that begin with a step.
    """
    if not path.exists():
        return []
    lines = read_text(path, "the log of a training", MAX_LOG_BYTES).splitlines(keepends=True)
    rows = [row for row in csv.reader(line for line in lines if line.endswith("\n")) if row][1:]
    for row in rows:
        if not row[0].isdecimal():
            raise ValueError(f"{path}: a row begins with {shown(row[0])}, expected a step")
    return rows


def _write_rows(path: Path, names: tuple[str, ...], rows: list[list[str]]) -> None:
    replace_text(path, _lines([list(names), *rows]))


def _lines(rows: list[list[Any]]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue()
