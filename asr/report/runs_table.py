"""Compared trainings on the terminal and as CSV."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterable, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from asr.report.number import counted
from asr.report.runs import Comparison, Group, Run, Setting
from asr.report.visible import visible

MEASURED = ("n", "WER %", "sd", "range", "CER %", "loss", "step", "audio h", "min")
OF_REPEATS = ("n", "sd", "range")  # columns that say nothing of single runs
MEASURES = ("wer", "cer", "loss", "step", "epoch")  # of a run's best validation, in the CSV


def shown(value: Setting) -> str:
    """A setting as a config writes it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.4g}" if isinstance(value, float) else visible(str(value))


def tail(text: str, length: int = 24) -> str:
    """The end of a text, which tells paths apart."""
    return text if len(text) <= length else f"…{text[1 - length :]}"


def short_names(keys: Sequence[str]) -> list[str]:
    """The end of each dotted key that tells it from the others: `lr` of `optim.lr`."""
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


def common_folder(comparison: Comparison) -> str:
    """The folder that all runs lie in."""
    runs = [*comparison.others, *(run for group in comparison.groups for run in group.runs)]
    parents = [os.path.dirname(os.path.abspath(run.folder)) for run in runs]
    return os.path.commonpath(parents)


def groups_table(comparison: Comparison, limit: int | None = None) -> Table:
    """The finished runs, repeats in one line, the lowest mean dev WER first; never broken.

    Args:
        comparison: the compared runs.
        limit: how many lines at most; a last line says how many were left out. None: all.
    """
    has_repeats = any(len(group.runs) > 1 for group in comparison.groups)
    measures = [name for name in MEASURED if has_repeats or name not in OF_REPEATS]
    table = _table("Best dev WER")
    for name in (*map(visible, short_names(comparison.columns)), *measures):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("best run" if has_repeats else "run", no_wrap=True)
    parent = common_folder(comparison)
    for group in comparison.groups[:limit]:
        cells = _measured(group)
        table.add_row(
            *(Text(tail(shown(value))) for value in group.settings),
            *(Text(cells[name], "bold" if name == "WER %" else "") for name in measures),
            Text(visible(os.path.relpath(group.runs[0].folder, parent))),
        )
    left_out = len(comparison.groups) - len(comparison.groups[:limit])
    if left_out:
        table.caption = f"{counted(left_out, 'line')} of higher WER left out: all are in runs.csv"
    return table


def others_table(comparison: Comparison) -> Table:
    """The runs that are not done: how far they got, or why they failed."""
    table = _table("Not done")
    parent = common_folder(comparison)
    for name in ("run", "state", "epoch", "best WER % so far", "why"):
        table.add_column(name, overflow="fold")
    for run in comparison.others:
        last = run.validations[-1] if run.validations else None
        table.add_row(
            Text(visible(os.path.relpath(run.folder, parent))),
            run.state,
            str(last.epoch) if last else "0",
            f"{100 * run.best.wer:.2f}" if run.best else "-",
            Text(visible(run.error or "")),
        )
    return table


def runs_csv(comparison: Comparison) -> str:
    """Every run in a line: its group from 1 (none where it is not done), settings, measures.

    `wer` and `cer` are fractions, `audio_h` [h] and `minutes` those of the whole training so far.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    keys = (*comparison.columns, *comparison.repeats)
    titles = ("group", "run", "state", *keys, *MEASURES, "audio_h", "minutes", "error")
    writer.writerow(map(_cell, titles))
    for number, run in _numbered(comparison):
        settings = (run.settings.get(key) for key in keys)
        writer.writerow(
            [number, _cell(run.folder), run.state]
            + [_cell("null" if value is None else str(value)) for value in settings]
            + _numbers(run)
            + [_cell(run.error or "")]
        )
    return text.getvalue()


def _cell(text: str) -> str:
    """A text for a cell that a spreadsheet takes for a text, and not for something to compute.

    OWASP, "CSV Injection": what begins with =, +, - or @ gets an apostrophe in front.
    """
    shown = visible(text)
    try:
        float(shown)
    except ValueError:
        return f"'{shown}" if shown.startswith(("=", "+", "-", "@")) else shown
    return shown


def _numbered(comparison: Comparison) -> Iterable[tuple[int | str, Run]]:
    for number, group in enumerate(comparison.groups, start=1):
        for run in group.runs:
            yield number, run
    for run in comparison.others:
        yield "", run


def _numbers(run: Run) -> list[str]:
    if run.best is None:
        return [""] * (len(MEASURES) + 2)
    last = run.validations[-1]
    best = [f"{getattr(run.best, name):.6g}" for name in MEASURES]
    return [*best, f"{last.audio_h:.6g}", f"{last.elapsed_s / 60:.6g}"]


def _measured(group: Group) -> dict[str, str]:
    """A cell for each of MEASURED; of several runs the mean."""
    last = [run.validations[-1] for run in group.runs]
    wer, step = group.wer, group.spread(lambda row: row.step)
    return {
        "n": str(len(group.runs)),
        "WER %": f"{100 * wer.mean:.2f}",
        "sd": "" if math.isnan(wer.deviation) else f"{100 * wer.deviation:.2f}",
        "range": f"{100 * wer.low:.1f}-{100 * wer.high:.1f}" if len(group.runs) > 1 else "",
        "CER %": f"{100 * group.cer.mean:.2f}",
        "loss": f"{group.spread(lambda row: row.loss).mean:.3g}",
        "step": f"{step.mean:.0f}",
        "audio h": f"{sum(row.audio_h for row in last) / len(last):.2f}",
        "min": f"{sum(row.elapsed_s for row in last) / len(last) / 60:.1f}",
    }


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
