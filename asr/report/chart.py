"""Columns of error rates over something that has an order: duration, length, noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from asr.metrics.error_rate import ErrorCounts
from asr.metrics.interval import Interval
from asr.report.bars import KINDS, rect, round_scale
from asr.report.markup import Markup, element
from asr.report.number import number

# Heights [CSS px], from the top.
_RATE_TOP, _RATE_BASE = 24, 184
_COUNT_TOP, _COUNT_BASE = 216, 250
_BIN_LABEL, _HEIGHT = 268, 276


@dataclass(frozen=True, slots=True)
class Column:
    """One bin of a chart.

    Attributes:
        label: Short, below the column.
        words: Word errors.
        interval: Of their rate; None where there is none.
        num_utterances: In the bin.
    """

    label: str
    words: ErrorCounts
    interval: Interval | None
    num_utterances: int


def column_chart(columns: Sequence[Column], unit: str, overall: float, description: str) -> Markup:
    """WER in stacked columns with intervals, above the number of utterances in each.

    Args:
        columns: In order; at least one.
        unit: Of the labels, on the axis.
        overall: Rate of all utterances, a line across.
        description: Of the picture, for those who do not see it.
    """
    highs = [each.interval.high for each in columns if each.interval]
    highest = max(
        (each.words.rate for each in columns if math.isfinite(each.words.rate)), default=0
    )
    # An interval that goes far beyond every column would flatten all of them.
    capped = [min(high, 2 * highest) for high in highs]
    step, top = round_scale([highest, overall, *capped])
    ticks = [step * index for index in range(round(top / step) + 1)]
    most = max(each.num_utterances for each in columns)
    plot = [_level(_rate_y(tick / top), "base" if tick == 0 else "grid") for tick in ticks]
    for index, each in enumerate(columns):
        plot.extend(_column(index / len(columns), 1 / len(columns), each, top, most))
    plot.append(_level(_COUNT_BASE, "base"))
    plot.append(_level(_rate_y(overall / top), "mark"))
    return element(
        "div",
        _axis(ticks, top, unit),
        element("svg", *plot, class_="plot", height=str(_HEIGHT)),
        class_="chart",
        role="img",
        aria_label=description,
    )


def _axis(ticks: Sequence[float], top: float, unit: str) -> Markup:
    labels = [
        element("text", f"{100 * tick:g}%", x="38", y=f"{_rate_y(tick / top) + 4:.1f}")
        for tick in ticks
    ]
    names = [
        element("text", "WER", class_="name", x="38", y="10"),
        element("text", "utt.", class_="name", x="38", y=str(_COUNT_BASE)),
        element("text", unit, class_="name", x="38", y=str(_BIN_LABEL)),
    ]
    return element("svg", *labels, *names, class_="axis", width="44", height=str(_HEIGHT))


def _column(left: float, width: float, column: Column, top: float, most: int) -> list[Markup]:
    """Both columns of one bin with their numbers; left and width are shares of the plot."""
    bar_left, bar_width, centre = left + 0.14 * width, 0.72 * width, left + 0.5 * width
    words, parts, height = column.words, [], 0.0
    if words.reference_length:
        for name, class_ in KINDS:
            share = getattr(words, name) / words.reference_length / top
            height += share
            y, part = _rate_y(height), share * (_RATE_BASE - _RATE_TOP)
            if share:
                parts.append(rect(class_, bar_left, bar_width, f"{y:.1f}", f"{part:.1f}"))
        reach = height
        if column.interval is not None:
            reach = max(height, min(column.interval.high / top, 1.0))
            parts.extend(_whisker(column.interval, top, centre, 0.12 * width))
        text = f"{words.rate:.1%}".removesuffix("%")
        parts.append(_label(text, centre, _rate_y(reach) - 5))
    tall = column.num_utterances / most * (_COUNT_BASE - _COUNT_TOP)
    y = _COUNT_BASE - tall
    parts.append(rect("quantity", bar_left, bar_width, f"{y:.1f}", f"{tall:.1f}"))
    parts.append(_label(number(column.num_utterances), centre, y - 4, faint=True))
    parts.append(_label(column.label, centre, _BIN_LABEL))
    return parts


def _whisker(interval: Interval, top: float, centre: float, half: float) -> list[Markup]:
    low, high = _rate_y(interval.low / top), _rate_y(min(interval.high / top, 1.0))
    upright = {"x1": f"{centre:.3%}", "x2": f"{centre:.3%}", "y1": f"{low:.1f}"}
    upright["y2"] = f"{high:.1f}"
    ends = [low] if interval.high > top else [low, high]
    lines = [element("line", class_=class_, **upright) for class_ in ("halo", "reach")]
    for y in ends:
        lines.append(
            element(
                "line",
                class_="reach",
                x1=f"{centre - half:.3%}",
                x2=f"{centre + half:.3%}",
                y1=f"{y:.1f}",
                y2=f"{y:.1f}",
            )
        )
    return [element("g", *lines, class_="whisker")]


def _rate_y(share: float) -> float:
    return _RATE_BASE - share * (_RATE_BASE - _RATE_TOP)


def _level(y: float, class_: str) -> Markup:
    return element("line", class_=class_, x1="0", x2="100%", y1=f"{y:.1f}", y2=f"{y:.1f}")


def _label(text: str, centre: float, y: float, faint: bool = False) -> Markup:
    return element("text", text, class_="faint" if faint else None, x=f"{centre:.3%}", y=f"{y:.1f}")
