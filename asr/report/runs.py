"""Trainings side by side: what differs, what they reached, as table and CSV."""

from __future__ import annotations

import csv
import io
import math
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from asr.report.wording import RATE_NAMES, Setting, counted, shortened, visible
from asr.untrusted import read_text, shown

if TYPE_CHECKING:
    pass

ERROR_TEXT = "error.txt"  # in a run's folder: why it failed
VALIDATIONS = "validations.csv"
REPEATS = ("data.fold", "data.fold_seed", "seed")  # runs that differ in these alone are repeats

MAX_LOG_BYTES = 1 << 26  # 64 MiB: a million validations
MAX_COUNT = 10**12  # of steps and epochs

MEASURED = ("n", "WER %", "sd", "range", "CER %", "loss", "step", "audio h", "min")
CELL_LENGTH = 24  # characters of a setting's value, or of a run's name in a picture
OF_REPEATS = ("n", "sd", "range")  # columns that say nothing of single runs
MEASURES = ("wer", "cer", "loss", "step", "epoch")  # of a run's best validation, in the CSV


# --- the runs -----------------------------------------------------------------------------------


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
        best, max_epochs = self.best, self.settings.get("trainer.max_epochs")
        if best is None or not isinstance(max_epochs, int):
            return "unfinished"
        patience = self.settings.get("trainer.patience")
        since_best = len(self.validations) - 1 - self.validations.index(best)
        ran_out = isinstance(patience, int) and 0 < patience <= since_best
        is_at_its_end = ran_out or self.validations[-1].epoch >= max_epochs
        return "done" if is_at_its_end else "unfinished"


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
class RunGroup:
    """Finished runs of the same settings, but for the fold and the seed.

    Attributes:
        settings: a value for each of the columns.
        runs: best first.
    """

    settings: tuple[Setting, ...]
    runs: tuple[Run, ...]

    def spread(self, of: Callable[[ValidationRow], float]) -> Spread:
        """Tell how a quantity of the runs' best validations spreads."""
        values = [of(best) for run in self.runs if (best := run.best)]
        has_deviation = len(values) > 1 and all(map(math.isfinite, values))
        deviation = statistics.stdev(values) if has_deviation else math.nan
        return Spread(statistics.fmean(values), deviation, min(values), max(values))

    @cached_property
    def wer(self) -> Spread:
        """Best dev WER of the runs."""
        return self.spread(lambda row: row.wer)

    @cached_property
    def cer(self) -> Spread:
        """Dev CER at those."""
        return self.spread(lambda row: row.cer)


@dataclass(frozen=True)
class GroupedRuns:
    """Runs side by side.

    Attributes:
        columns: the settings that differ, or those that were asked for.
        repeats: of the fold and the seed, those that differ.
        groups: of the finished runs, lowest mean WER first, then CER.
        others: the runs that are not done, by folder.
    """

    columns: tuple[str, ...]
    repeats: tuple[str, ...]
    groups: tuple[RunGroup, ...]
    others: tuple[Run, ...]

    @cached_property
    def rate_name(self) -> str:
        """What the runs are compared by: CER where the unit of all is the character, else WER."""
        runs = [*self.others, *(run for group in self.groups for run in group.runs)]
        rates = [(row.wer, row.cer) for run in runs for row in run.validations]
        # Their files have the CER in both columns; words and characters agree at 0 and 100 % alone.
        is_one = all(wer == cer for wer, cer in rates) and any(0 < wer < 1 for wer, _ in rates)
        return RATE_NAMES["character" if is_one else "word"]

    @cached_property
    def folder(self) -> str:
        """The folder that all runs lie in."""
        runs = [*self.others, *(run for group in self.groups for run in group.runs)]
        return os.path.commonpath([os.path.dirname(os.path.abspath(run.folder)) for run in runs])

    def name(self, run: Run) -> str:
        """Give a run's folder, from the one that all runs lie in."""
        return visible(os.path.relpath(run.folder, self.folder))


def read_validations(folder: Path) -> tuple[ValidationRow, ...]:
    """Read the validations of a run so far; a last line that is being written is left for later.

    Raises:
        ValueError: a file of another form, or without a validation, with the file's name.
        OSError: no such file.
    """
    path = folder / VALIDATIONS
    lines = read_text(path, "the validations of a training", MAX_LOG_BYTES).splitlines(True)
    reader = csv.DictReader([line for line in lines if line.endswith("\n")])
    amounts = ("elapsed_s", "audio_h", "loss", "wer", "cer")
    try:
        rows = tuple(
            ValidationRow(
                step=_count(line["step"]),
                epoch=_count(line["epoch"]),
                **{name: _amount(line[name]) for name in amounts},
            )
            for line in reader
        )
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise ValueError(f"{path}:{reader.line_num}: no validation: {error}") from error
    if not rows:
        raise ValueError(f"{path}: no validation yet, expected at least one")
    return rows


def _count(text: str) -> int:
    if not text.isdecimal() or len(text) > len(str(MAX_COUNT)):
        raise ValueError(f"{shown(text)}, expected a whole number up to {MAX_COUNT}")
    return int(text)


def _amount(text: str) -> float:
    """Read a number from 0 on; the loss of a text that is infeasible for CTC is infinite."""
    amount = float(text)
    if not amount >= 0:
        raise ValueError(f"{shown(text)}, expected a number from 0 on")
    return amount


def read_run(folder: Path, settings: Mapping[str, Setting]) -> Run:
    """Read a training off its folder.

    Raises:
        ValueError: validations of another form.
    """
    path, error_path = folder / VALIDATIONS, folder / ERROR_TEXT
    expected = "the validations of a training"
    begun = path.exists() and len(read_text(path, expected, MAX_LOG_BYTES).splitlines()) > 1
    error = None
    if error_path.exists():
        error = read_text(error_path, "why a training failed", MAX_LOG_BYTES).strip()
    return Run(str(folder), settings, read_validations(folder) if begun else (), error)


def group_runs(runs: Sequence[Run], columns: Sequence[str] | None = None) -> GroupedRuns:
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
            values = [run.settings.get(key) for key in columns]
            members.setdefault(tuple((type(v).__name__, v) for v in values), []).append(run)
    groups = [
        RunGroup(
            tuple(value for _, value in values),
            tuple(sorted(some, key=lambda run: min((row.wer, row.cer) for row in run.validations))),
        )
        for values, some in members.items()
    ]
    groups.sort(key=lambda group: (group.wer.mean, group.cer.mean))
    others = sorted((run for run in runs if run.state != "done"), key=lambda run: run.folder)
    repeats = [key for key in REPEATS if key not in columns and _differs(key, runs)]
    return GroupedRuns(tuple(columns), tuple(repeats), tuple(groups), tuple(others))


def _differs(key: str, runs: Sequence[Run]) -> bool:
    found = {(key in run.settings, repr(run.settings.get(key))) for run in runs}
    return len(found) > 1


def _comes_along(key: str, differ: Sequence[str], runs: Sequence[Run]) -> bool:
    """Tell whether a setting is that of its section's class, as momentum=0.9 of every RMSprop."""
    section = key.rpartition(".")[0]
    if section not in differ:
        return False
    pairs = {(repr(run.settings.get(section)), repr(run.settings.get(key))) for run in runs}
    return len({of_section for of_section, _ in pairs}) == len(pairs)


# --- table and CSV ------------------------------------------------------------------------------


def groups_table(runs: GroupedRuns, limit: int | None = None) -> Table:
    """Show the finished runs, repeats in one line, the lowest mean dev WER first; never broken.

    Args:
        runs: side by side.
        limit: how many lines at most; a last line says how many were left out. None: all.
    """
    has_repeats = any(len(group.runs) > 1 for group in runs.groups)
    measures = [name for name in MEASURED if has_repeats or name not in OF_REPEATS]
    measures = [name for name in measures if name != "CER %" or runs.rate_name == "WER"]
    table = _table(f"Best dev {runs.rate_name}")
    headings = (name.replace("WER", runs.rate_name) for name in measures)
    for name in (*map(visible, short_names(runs.columns)), *headings):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("best run" if has_repeats else "run", no_wrap=True)
    for group in runs.groups[:limit]:
        last = [run.validations[-1] for run in group.runs]
        wer = group.wer
        cells = {
            "n": str(len(group.runs)),
            "WER %": f"{100 * wer.mean:.2f}",
            "sd": "" if math.isnan(wer.deviation) else f"{100 * wer.deviation:.2f}",
            "range": f"{100 * wer.low:.1f}-{100 * wer.high:.1f}" if len(group.runs) > 1 else "",
            "CER %": f"{100 * group.cer.mean:.2f}",
            "loss": f"{group.spread(lambda row: row.loss).mean:.3g}",
            "step": f"{group.spread(lambda row: row.step).mean:.0f}",
            "audio h": f"{sum(row.audio_h for row in last) / len(last):.2f}",
            "min": f"{sum(row.elapsed_s for row in last) / len(last) / 60:.1f}",
        }
        table.add_row(
            *(Text(name_end(setting_text(value))) for value in group.settings),
            *(Text(cells[name], "bold" if name == "WER %" else "") for name in measures),
            Text(runs.name(group.runs[0])),
        )
    left_out = len(runs.groups) - len(runs.groups[:limit])
    if left_out:
        table.caption = (
            f"{counted(left_out, 'line')} of higher {runs.rate_name} left out: all are in runs.csv"
        )
    return table


def others_table(runs: GroupedRuns) -> Table:
    """Show the runs that are not done: how far they got, or why they failed."""
    table = _table("Not done")
    for name in ("run", "state", "epoch", f"best {runs.rate_name} % so far", "why"):
        table.add_column(name, overflow="fold")
    for run in runs.others:
        table.add_row(
            Text(runs.name(run)),
            run.state,
            str(run.validations[-1].epoch if run.validations else 0),
            f"{100 * run.best.wer:.2f}" if run.best else "-",
            Text(visible(run.error or "")),
        )
    return table


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))


def short_names(keys: Sequence[str]) -> list[str]:
    """Find the end of each dotted key that tells it from the others: `lr` of `optim.lr`."""
    names = []
    for key in keys:
        parts = key.split(".")
        ends = [".".join(parts[start:]) for start in reversed(range(len(parts)))]
        others = [other for other in keys if other != key]
        unique = (
            end for end in ends if not any(f".{other}".endswith(f".{end}") for other in others)
        )
        names.append(next(unique, key))
    return names


def setting_text(value: Setting) -> str:
    """Write a setting as a config does."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.4g}" if isinstance(value, float) else visible(str(value))


def name_end(text: str) -> str:
    """Keep the end of a text, which tells paths apart."""
    return shortened(text, CELL_LENGTH, keep_end=True)


def runs_csv(runs: GroupedRuns) -> str:
    """Write every run in a line: its group from 1 (none where it is not done), settings, measures.

    `wer` and `cer` are fractions, `audio_h` [h] and `minutes` those of the whole training so far.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    keys = (*runs.columns, *runs.repeats)
    titles = ("group", "run", "state", *keys, *MEASURES, "audio_h", "minutes", "error")
    writer.writerow(map(_cell, titles))
    done = [(str(n), run) for n, group in enumerate(runs.groups, start=1) for run in group.runs]
    for number, run in [*done, *(("", run) for run in runs.others)]:
        settings = [run.settings.get(key) for key in keys]
        measures = [""] * (len(MEASURES) + 2)
        if run.best is not None:
            last = run.validations[-1]
            amounts = [*(getattr(run.best, name) for name in MEASURES), last.audio_h]
            measures = [f"{amount:.6g}" for amount in (*amounts, last.elapsed_s / 60)]
        writer.writerow(
            [number, _cell(run.folder), run.state]
            + [_cell("null" if value is None else str(value)) for value in settings]
            + measures
            + [_cell(run.error or "")]
        )
    return text.getvalue()


def _cell(text: str) -> str:
    """Write a cell that a spreadsheet takes for a text, and not for something to compute.

    OWASP, "CSV Injection": what begins with =, +, - or @ gets an apostrophe in front.
    """
    text = visible(text)
    try:
        float(text)
    except ValueError:
        return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text
    return text
