"""Trainings side by side as a picture: dev WER against each setting, and the curves."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from asr.picture import png
from asr.report.runs import GroupedRuns, Run, name_end, setting_text
from asr.report.wording import Setting, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BEST, OTHER, UNDONE = "tab:red", "tab:blue", "0.6"
MOST_PANELS = 6  # settings with a panel each; of more, the groups are drawn as bars
MOST_BARS = 24
PANELS_A_ROW = 3
PANEL = (4.4, 3.6)  # width and height [inch]
DECADE = 10.0  # a numeric setting that spans it has a logarithmic axis
LABEL_LENGTH = 22  # characters of a value under a column
TITLE_LENGTH = 40  # characters of a setting's name under a panel
MOST_TICKS = 7  # values of a numeric setting that are ticks themselves


def draw_runs(runs: GroupedRuns) -> bytes:
    """Draw runs as PNG: dev WER against each setting, and the dev loss on the way.

    A dot is a run; those of the best group are red. A bar is the mean over runs of equal value, a
    thin line joins groups that differ in nothing else. The last panel has the dev loss of every
    run, dotted where it is not done.
    """
    # Imported here: `asr runs` needs neither for its table.
    from matplotlib.figure import Figure

    from asr.report.plots import plain

    drawn = runs.columns if 0 < len(runs.columns) <= MOST_PANELS else ()
    count = max(len(drawn), 1) + 1
    width = min(math.ceil(math.sqrt(count)), PANELS_A_ROW)
    height = math.ceil(count / width)
    figure = Figure(figsize=(PANEL[0] * width, PANEL[1] * height), layout="constrained")
    grid = figure.add_gridspec(height, width)
    panels = [figure.add_subplot(grid[place // width, place % width]) for place in range(count - 1)]
    curves = figure.add_subplot(grid[height - 1, (count - 1) % width :])
    for axes, key in zip(panels, drawn, strict=False):
        _draw_setting(axes, key, runs)
    if not drawn:
        _draw_bars(panels[0], runs)
    _draw_curves(curves, runs)
    for axes in (*panels, curves):
        plain(axes)
    return png(figure)


def _draw_setting(axes: Axes, key: str, runs: GroupedRuns) -> None:
    """Draw one panel: WER of every run against one of its settings."""
    column = runs.columns.index(key)
    dots = [  # value of the setting, WER [%], of the best group
        (group.settings[column], wer, number == 0)
        for number, group in enumerate(runs.groups)
        for wer in _finite_wers(group.runs)
    ]
    wers: dict[Setting, list[float]] = {}
    for value, wer, _ in dots:
        wers.setdefault(value, []).append(wer)
    places = _set_axis(axes, {value: statistics.fmean(some) for value, some in wers.items()})
    lines: dict[str, list[tuple[float, float]]] = {}  # of groups that differ in this setting alone
    for group in runs.groups:
        others = repr((group.settings[:column], group.settings[column + 1 :]))
        if math.isfinite(group.wer.mean):
            point = places[group.settings[column]], 100 * group.wer.mean
            lines.setdefault(others, []).append(point)
    for line in lines.values():
        if len(line) > 1:
            axes.plot(*zip(*sorted(line), strict=True), color="0.8", linewidth=0.8, zorder=1)
    for value, some in wers.items():
        if len(some) > 1:
            # A marker, as it is equally wide on every axis.
            axes.plot(places[value], statistics.fmean(some), color="0.25", marker="_",
                      markersize=24, markeredgewidth=2)  # fmt: skip
    for colour, is_best in ((OTHER, False), (BEST, True)):
        own = [(places[value], wer) for value, wer, best in dots if best is is_best]
        axes.scatter(
            [place for place, _ in own], [wer for _, wer in own],
            color=colour, s=24, alpha=0.9 if is_best else 0.5, linewidths=0, zorder=3,
        )  # fmt: skip
    axes.set_xlabel(shortened(setting_text(key), TITLE_LENGTH), parse_math=False)
    axes.set_ylabel(f"best dev {runs.rate_name} [%]")


def _finite_wers(runs: Sequence[Run]) -> list[float]:
    """List the best dev WERs of runs [%]."""
    rates = [run.best.wer for run in runs if run.best]
    return [100 * rate for rate in rates if math.isfinite(rate)]


def _set_axis(axes: Axes, means: Mapping[Setting, float]) -> dict[Setting, float]:
    """Set the horizontal axis for values of a setting; returns the place of each on it.

    Args:
        axes: to set.
        means: WER by value, by which values that are no numbers are sorted.
    """
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    numbers = [float(v) for v in means if isinstance(v, (int, float)) and not isinstance(v, bool)]
    if numbers and len(numbers) == len(means):
        low, high = min(numbers), max(numbers)
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
            axes.set_xticks(sorted(numbers), [f"{number:.4g}" for number in sorted(numbers)])
        return dict(zip(means, numbers, strict=True))
    values = sorted(means, key=lambda value: means[value])
    labels = [shortened(setting_text(value), LABEL_LENGTH) for value in values]
    is_long = max(map(len, labels), default=0) > 8
    axes.set_xticks(
        range(len(labels)), labels, parse_math=False,
        rotation=20 if is_long else 0, ha="right" if is_long else "center",
    )  # fmt: skip
    axes.set_xlim(-0.6, max(len(values), 1) - 0.4)
    return {value: float(place) for place, value in enumerate(values)}


def _draw_bars(axes: Axes, runs: GroupedRuns) -> None:
    """Draw groups from best to worst, or the runs of the only one: mean, range, and every run."""
    rows: list[tuple[str, list[float]]] = []
    if len(runs.groups) == 1:
        for run in runs.groups[0].runs:
            repeat = [
                f"{k.removeprefix('data.')} {setting_text(run.settings.get(k))}"
                for k in runs.repeats
            ]
            rows.append((", ".join(repeat) or name_end(runs.name(run)), _finite_wers([run])))
    else:
        for group in runs.groups:
            times = f" x{len(group.runs)}" if len(group.runs) > 1 else ""
            rows.append((name_end(runs.name(group.runs[0])) + times, _finite_wers(group.runs)))
    every = [row for row in rows if row[1]]
    rows = every[:MOST_BARS]
    if len(rows) < len(every):
        axes.set_title(f"the best {len(rows)} of {len(every)}", fontsize=9)
    for place, (_, wers) in enumerate(rows):
        colour = BEST if place == 0 else OTHER
        axes.barh(place, statistics.fmean(wers), height=0.6, color=colour, alpha=0.35)
        axes.plot((min(wers), max(wers)), (place, place), color="0.25", linewidth=1)
        axes.scatter(wers, [place] * len(wers), color=colour, s=20, linewidths=0, zorder=3)
    axes.set_yticks(range(len(rows)), [label for label, _ in rows], parse_math=False, fontsize=8)
    axes.invert_yaxis()
    axes.set(xlabel=f"best dev {runs.rate_name} [%]", xlim=(0, None))


def _draw_curves(axes: Axes, runs: GroupedRuns) -> None:
    """Draw the dev loss of every run over its steps, the best group on top."""
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    lines = [(run, UNDONE, ":") for run in runs.others if run.validations]
    for number, group in reversed(list(enumerate(runs.groups))):
        lines += [(run, BEST if number == 0 else OTHER, "-") for run in group.runs]
    for run, colour, style in lines:
        rows = [row for row in run.validations if math.isfinite(row.loss)]
        axes.plot(
            [row.step for row in rows], [row.loss for row in rows],
            color=colour, linestyle=style, linewidth=1.1, marker="." if len(rows) == 1 else "",
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
