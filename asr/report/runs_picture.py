"""A picture of compared trainings: dev WER against each setting, and the dev loss on the way."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING

from asr.report.runs import Comparison, Group, Run, Setting
from asr.report.runs_table import common_folder, shown, tail

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BEST, OTHER, UNDONE = "tab:red", "tab:blue", "0.6"
MOST_PANELS = 6  # settings with a panel each; of more, the groups are drawn as bars
MOST_BARS = 24
PANELS_A_ROW = 3
PANEL = (4.4, 3.6)  # width and height [inch]
DECADE = 10.0  # a numeric setting that spans it has a logarithmic axis
LABEL_LENGTH = 22  # characters of a value under a column

MOST_TICKS = 7  # values of a numeric setting that are ticks themselves

Dot = tuple[Setting, float, bool]  # value of the setting, WER [%], of the best group


def draw_runs(comparison: Comparison) -> bytes:
    """Draw compared runs as PNG.

    A dot is a run; those of the best group are red. A bar is the mean over runs of equal value, a
    thin line joins groups that differ in nothing else. The last panel has the dev loss of every
    run, dotted where it is not done.
    """
    from matplotlib.figure import Figure

    drawn = comparison.columns if 0 < len(comparison.columns) <= MOST_PANELS else ()
    count = max(len(drawn), 1) + 1
    width = min(math.ceil(math.sqrt(count)), PANELS_A_ROW)
    height = math.ceil(count / width)
    figure = Figure(figsize=(PANEL[0] * width, PANEL[1] * height), layout="constrained")
    grid = figure.add_gridspec(height, width)
    panels = [figure.add_subplot(grid[place // width, place % width]) for place in range(count - 1)]
    curves = figure.add_subplot(grid[height - 1, (count - 1) % width :])
    for axes, key in zip(panels, drawn, strict=False):
        _setting(axes, key, comparison)
    if not drawn:
        _bars(panels[0], comparison)
    _curves(curves, comparison)
    for axes in (*panels, curves):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        axes.set_axisbelow(True)
    image = BytesIO()
    with warnings.catch_warnings():
        # A name may hold letters that the font lacks: boxes stand for them, the CSV has them.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(image, format="png", dpi=120)
    return image.getvalue()


def _setting(axes: Axes, key: str, comparison: Comparison) -> None:
    """One panel: WER of every run against one of its settings."""
    column = comparison.columns.index(key)
    dots = _dots(comparison, column)
    places = _axis(axes, dots)
    for line in _lines(comparison, column):
        points = sorted((places[value], wer) for value, wer in line)
        axes.plot(*zip(*points, strict=True), color="0.8", linewidth=0.8, zorder=1)
    for value, place in places.items():
        some = [wer for other, wer, _ in dots if other == value]
        if len(some) > 1:
            mean = sum(some) / len(some)
            # A marker, as it is equally wide on every axis.
            axes.plot(place, mean, color="0.25", marker="_", markersize=24, markeredgewidth=2)
    for colour, is_best in ((OTHER, False), (BEST, True)):
        own = [(places[value], wer) for value, wer, best in dots if best is is_best]
        axes.scatter(
            [place for place, _ in own], [wer for _, wer in own],
            color=colour, s=24, alpha=0.9 if is_best else 0.5, linewidths=0, zorder=3,
        )  # fmt: skip
    axes.set_xlabel(_short(shown(key), 40), parse_math=False)
    axes.set_ylabel("best dev WER [%]")


def _dots(comparison: Comparison, column: int) -> list[Dot]:
    return [
        (group.settings[column], 100 * run.best.wer, number == 0)
        for number, group in enumerate(comparison.groups)
        for run in group.runs
        if run.best and math.isfinite(run.best.wer)
    ]


def _lines(comparison: Comparison, column: int) -> list[list[tuple[Setting, float]]]:
    """Value and mean WER [%] of the groups that differ in one setting alone."""
    lines: dict[str, list[tuple[Setting, float]]] = {}
    for group in comparison.groups:
        others = repr((group.settings[:column], group.settings[column + 1 :]))
        if math.isfinite(group.wer.mean):
            point = (group.settings[column], 100 * group.wer.mean)
            lines.setdefault(others, []).append(point)
    return [line for line in lines.values() if len(line) > 1]


def _axis(axes: Axes, dots: Sequence[Dot]) -> dict[Setting, float]:
    """Set the horizontal axis; returns the place of each value on it."""
    values = list(dict.fromkeys(value for value, _, _ in dots))
    numbers = [float(v) for v in values if isinstance(v, (int, float)) and not isinstance(v, bool)]
    if numbers and len(numbers) == len(values):
        _numeric_axis(axes, sorted(numbers))
        return dict(zip(values, numbers, strict=True))
    values.sort(key=lambda value: _mean(dots, value))
    labels = [_short(shown(value)) for value in values]
    is_long = max(map(len, labels), default=0) > 8
    axes.set_xticks(
        range(len(labels)), labels, parse_math=False,
        rotation=20 if is_long else 0, ha="right" if is_long else "center",
    )  # fmt: skip
    axes.set_xlim(-0.6, max(len(values), 1) - 0.4)
    return {value: float(place) for place, value in enumerate(values)}


def _numeric_axis(axes: Axes, numbers: Sequence[float]) -> None:
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    low, high = numbers[0], numbers[-1]
    if low > 0 and high / low >= DECADE:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=8))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.set_xlim(low / (high / low) ** 0.08, high * (high / low) ** 0.08)
    else:
        margin = 0.08 * (high - low) or 0.5 * abs(high) or 0.5
        axes.set_xlim(low - margin, high + margin)
    if len(numbers) <= MOST_TICKS:
        axes.set_xticks(numbers, [f"{number:.4g}" for number in numbers])


def _mean(dots: Sequence[Dot], value: Setting) -> float:
    some = [wer for other, wer, _ in dots if other == value]
    return sum(some) / len(some)


def _bars(axes: Axes, comparison: Comparison) -> None:
    """Groups from best to worst, or the runs of the only one: mean, range, and every run."""
    every = _bar_rows(comparison)
    rows = every[:MOST_BARS]
    if len(rows) < len(every):
        axes.set_title(f"the best {len(rows)} of {len(every)}", fontsize=9)
    for place, (_, wers) in enumerate(rows):
        mean = sum(wers) / len(wers)
        colour = BEST if place == 0 else OTHER
        axes.barh(place, mean, height=0.6, color=colour, alpha=0.35)
        axes.plot((min(wers), max(wers)), (place, place), color="0.25", linewidth=1)
        axes.scatter(wers, [place] * len(wers), color=colour, s=20, linewidths=0, zorder=3)
    axes.set_yticks(range(len(rows)), [label for label, _ in rows], parse_math=False, fontsize=8)
    axes.invert_yaxis()
    axes.set(xlabel="best dev WER [%]", xlim=(0, None))


def _bar_rows(comparison: Comparison) -> list[tuple[str, list[float]]]:
    groups, parent = comparison.groups, common_folder(comparison)
    if len(groups) == 1:
        return [
            (_repeat(run, comparison.repeats, parent), [100 * run.best.wer])
            for run in groups[0].runs
            if run.best and math.isfinite(run.best.wer)
        ]
    rows = [(_name(group, parent), _finite(group)) for group in groups]
    return [(label, wers) for label, wers in rows if wers]


def _finite(group: Group) -> list[float]:
    rates = [run.best.wer for run in group.runs if run.best]
    return [100 * rate for rate in rates if math.isfinite(rate)]


def _name(group: Group, parent: str) -> str:
    name = tail(shown(os.path.relpath(group.runs[0].folder, parent)))
    return name + (f" x{n}" if (n := len(group.runs)) > 1 else "")


def _repeat(run: Run, repeats: Sequence[str], parent: str) -> str:
    named = [f"{key.removeprefix('data.')} {shown(run.settings.get(key))}" for key in repeats]
    return ", ".join(named) or tail(shown(os.path.relpath(run.folder, parent)))


def _curves(axes: Axes, comparison: Comparison) -> None:
    """The dev loss of every run over its steps, the best group on top."""
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    lines = [(run, UNDONE, ":") for run in comparison.others if run.validations]
    for number, group in reversed(list(enumerate(comparison.groups))):
        lines += [(run, BEST if number == 0 else OTHER, "-") for run in group.runs]
    for run, colour, style in lines:
        rows = [row for row in run.validations if math.isfinite(row.loss)]
        marker = "." if len(rows) == 1 else ""
        axes.plot(
            [row.step for row in rows], [row.loss for row in rows],
            color=colour, linestyle=style, linewidth=1.1, marker=marker,
            alpha=0.4 if colour == OTHER else 0.9,
        )  # fmt: skip
    for label, colour, style in (
        ("best", BEST, "-"),
        ("others", OTHER, "-"),
        ("not done", UNDONE, ":"),
    ):
        if any(line[1] == colour for line in lines):
            axes.plot([], [], color=colour, linestyle=style, label=label)
    axes.set(xlabel="step", ylabel="dev loss [nats a character]", yscale="log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0), numticks=20))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    if lines:
        axes.legend(frameon=False, loc="upper right")


def _short(text: str, length: int = LABEL_LENGTH) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
