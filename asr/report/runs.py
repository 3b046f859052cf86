"""Trainings beside each other: what differs between them, what they reached, which are repeats."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path

from asr.untrusted import read_text

ERROR_TEXT = "error.txt"  # in a run's folder: why it failed
VALIDATIONS = "validations.csv"
MAX_FILE_BYTES = 1 << 24  # 16 MiB: some 150,000 validations
REPEATS = ("data.fold", "data.fold_seed", "seed")  # runs that differ in these alone are repeats

Setting = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class ValidationRow:
    """One line of a run's validations.csv.

    Attributes:
        step: optimiser steps until then.
        epoch: epochs until then.
        elapsed_s: time spent training and validating [s].
        audio_h: audio trained on [h].
        loss: dev CTC loss [nats a character].
        wer: dev WER, a fraction.
        cer: dev CER, a fraction.
    """

    step: int
    epoch: int
    elapsed_s: float
    audio_h: float
    loss: float
    wer: float
    cer: float


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        folder: where it lies, as the user named it.
        settings: dotted keys of its config, plain values.
        validations: in order; none if it did not get that far.
        error: why it failed, None if it did not.
    """

    folder: str
    settings: Mapping[str, Setting]
    validations: tuple[ValidationRow, ...] = ()
    error: str | None = None

    @property
    def best(self) -> ValidationRow | None:
        """The validation of the lowest WER, then CER, then the first: that of best.safetensors."""
        return min(self.validations, key=lambda row: (row.wer, row.cer), default=None)

    @property
    def state(self) -> str:
        """done, failed, or unfinished: running still, interrupted or killed."""
        if self.error is not None:
            return "failed"
        return "done" if self._is_at_its_end() else "unfinished"

    def _is_at_its_end(self) -> bool:
        best, max_epochs = self.best, self.settings.get("trainer.max_epochs")
        if best is None or not isinstance(max_epochs, int):
            return False
        patience = self.settings.get("trainer.patience")
        since_best = len(self.validations) - 1 - self.validations.index(best)
        ran_out = isinstance(patience, int) and 0 < patience <= since_best
        return ran_out or self.validations[-1].epoch >= max_epochs


@dataclass(frozen=True, slots=True)
class Spread:
    """Some values of one quantity.

    Attributes:
        mean: their mean.
        deviation: their standard deviation, n - 1 in the denominator; NaN of a single one.
        low: the smallest.
        high: the largest.
    """

    mean: float
    deviation: float
    low: float
    high: float


@dataclass(frozen=True)
class Group:
    """Finished runs of the same settings, but for the fold and the seed.

    Attributes:
        settings: a value for each of the comparison's columns.
        runs: best first.
    """

    settings: tuple[Setting, ...]
    runs: tuple[Run, ...]

    def spread(self, of: Callable[[ValidationRow], float]) -> Spread:
        """A quantity of the runs' best validations."""
        return _spread([of(best) for run in self.runs if (best := run.best)])

    @cached_property
    def wer(self) -> Spread:
        """Best dev WER of the runs."""
        return self.spread(lambda row: row.wer)

    @cached_property
    def cer(self) -> Spread:
        """Dev CER at those."""
        return self.spread(lambda row: row.cer)


@dataclass(frozen=True)
class Comparison:
    """Runs side by side.

    Attributes:
        columns: the settings that differ, or those that were asked for.
        repeats: of the fold and the seed, those that differ.
        groups: of the finished runs, lowest mean WER first, then CER.
        others: the runs that are not done, by folder.
    """

    columns: tuple[str, ...]
    repeats: tuple[str, ...]
    groups: tuple[Group, ...]
    others: tuple[Run, ...]


def read_validations(folder: Path) -> tuple[ValidationRow, ...]:
    """The validations of a run so far; a last line that is being written is left for later.

    Raises:
        ValueError: a file of another form, or without a validation, with the file's name.
        OSError: no such file.
    """
    path = folder / VALIDATIONS
    text = io.StringIO(_text(path), newline="")
    reader = csv.DictReader([line for line in text if line.endswith("\n")])
    try:
        rows = tuple(_row(line) for line in reader)
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise ValueError(f"{path}:{reader.line_num}: no validation: {error}") from error
    if not rows:
        raise ValueError(f"{path}: no validation yet, expected at least one")
    return rows


def _text(path: Path) -> str:
    return read_text(path, "a file of a training", MAX_FILE_BYTES)


def read_run(folder: Path, settings: Mapping[str, Setting]) -> Run:
    """A training off its folder.

    Raises:
        ValueError: validations of another form.
    """
    path, error_path = folder / VALIDATIONS, folder / ERROR_TEXT
    begun = path.is_file() and len(_text(path).splitlines()) > 1
    error = _text(error_path).strip() if error_path.is_file() else None
    return Run(str(folder), settings, read_validations(folder) if begun else (), error)


def compare(runs: Sequence[Run], columns: Sequence[str] | None = None) -> Comparison:
    """Group the repeats among runs, and sort by what they reached.

    Args:
        runs: at least one.
        columns: settings to group by; None takes all that differ, but for those of repeats and
            those that come with the class that a section builds.

    Raises:
        ValueError: a column that no run has.
    """
    known = list(dict.fromkeys(key for run in runs for key in run.settings))
    for key in columns or ():
        if key not in known:
            near = get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else "expected a key of the runs' configs"
            raise ValueError(f"no run has the setting {key!r}: {hint}")
    if columns is None:
        differ = [key for key in known if key not in REPEATS and _differs(key, runs)]
        columns = [key for key in differ if not _comes_along(key, differ, runs)]
    members: dict[tuple[tuple[str, Setting], ...], list[Run]] = {}
    for run in runs:
        if run.state == "done":
            # With their types: 1, 1.0 and True are equal, and other settings.
            values = tuple((type(v).__name__, v) for v in _values(run, columns))
            members.setdefault(values, []).append(run)
    groups = [
        Group(tuple(value for _, value in values), tuple(sorted(some, key=_rank)))
        for values, some in members.items()
    ]
    groups.sort(key=lambda group: (group.wer.mean, group.cer.mean))
    others = sorted((run for run in runs if run.state != "done"), key=lambda run: run.folder)
    repeats = [key for key in REPEATS if key not in columns and _differs(key, runs)]
    return Comparison(tuple(columns), tuple(repeats), tuple(groups), tuple(others))


def _values(run: Run, columns: Sequence[str]) -> tuple[Setting, ...]:
    return tuple(run.settings.get(key) for key in columns)


def _differs(key: str, runs: Sequence[Run]) -> bool:
    found = {(key in run.settings, repr(run.settings.get(key))) for run in runs}
    return len(found) > 1


def _comes_along(key: str, differ: Sequence[str], runs: Sequence[Run]) -> bool:
    """Whether a setting is that of its section's class, as momentum=0.9 of every RMSprop."""
    section = key.rpartition(".")[0]
    if section not in differ:
        return False
    pairs = {(repr(run.settings.get(section)), repr(run.settings.get(key))) for run in runs}
    return len({of_section for of_section, _ in pairs}) == len(pairs)


def _rank(run: Run) -> tuple[float, float]:
    best = run.best
    assert best is not None, "a run that is done has validations"
    return best.wer, best.cer


def _row(line: Mapping[str, str]) -> ValidationRow:
    return ValidationRow(
        step=int(line["step"]),
        epoch=int(line["epoch"]),
        elapsed_s=float(line["elapsed_s"]),
        audio_h=float(line["audio_h"]),
        loss=float(line["loss"]),
        wer=float(line["wer"]),
        cer=float(line["cer"]),
    )


def _spread(values: Sequence[float]) -> Spread:
    deviation = statistics.stdev(values) if len(values) > 1 else math.nan
    return Spread(statistics.fmean(values), deviation, min(values), max(values))
