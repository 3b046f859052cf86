"""Bars as inline SVG: sizes in per cent of the width, so that they stretch and their text does not.

The three kinds of error differ in colour and in pattern: substitutions are solid, deletions
hatched, insertions dotted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from asr.metrics.error_rate import ErrorCounts
from asr.report.evaluation import DurationErrors
from asr.report.markup import Markup, element
from asr.report.number import number

KINDS = (("substitutions", "sub"), ("deletions", "del"), ("insertions", "ins"))

# Heights of the duration chart [CSS px], from the top.
_RATE_TOP, _RATE_BASE = 22, 182
_COUNT_TOP, _COUNT_BASE = 222, 262
_EDGE_LABEL, _HEIGHT = 280, 288


def patterns() -> Markup:
    """The fillings that all charts of a page refer to, once a page."""
    hatch = element(
        "pattern",
        element("rect", class_="paint", width="5", height="5"),
        element("rect", class_="gap", width="2", height="5"),
        id="hatch",
        class_="del",
        width="5",
        height="5",
        patternUnits="userSpaceOnUse",
        patternTransform="rotate(45)",
    )
    dots = element(
        "pattern",
        element("rect", class_="paint", width="5", height="5"),
        element("circle", class_="gap", cx="2.5", cy="2.5", r="1.3"),
        id="dots",
        class_="ins",
        width="5",
        height="5",
        patternUnits="userSpaceOnUse",
    )
    return element(
        "svg",
        element("defs", hatch, dots),
        class_="patterns",
        width="0",
        height="0",
        aria_hidden="true",
    )


def stacked_bar(counts: ErrorCounts, full: float) -> Markup:
    """Substitutions, deletions and insertions side by side; for the eye only, beside its numbers.

    Args:
        counts: The errors.
        full: How many errors fill the whole width.
    """
    parts, start = [], 0.0
    for name, class_ in KINDS:
        share = getattr(counts, name) / full if full else 0.0
        if share:
            parts.append(_rect(class_, start, share, "0", "100%"))
        start += share
    return element("svg", *parts, class_="bar", aria_hidden="true")


def plain_bar(share: float) -> Markup:
    """One bar over a share (0 to 1) of the width; for the eye only."""
    return element(
        "svg", _rect("quantity", 0.0, share, "0", "100%"), class_="bar thin", aria_hidden="true"
    )


def duration_chart(rows: Sequence[DurationErrors]) -> Markup:
    """WER in stacked columns by duration, above the number of utterances in each.

    Args:
        rows: Bins in order, as `by_duration` gives them.
    """
    step, top = _scale([row.words.rate for row in rows if math.isfinite(row.words.rate)])
    ticks = [step * index for index in range(round(top / step) + 1)]
    most = max(row.num_utterances for row in rows)
    plot: list[Markup] = [
        _line(_rate_y(tick / top), "base" if tick == 0 else "grid") for tick in ticks
    ]
    for index, row in enumerate(rows):
        plot.extend(_column(index / len(rows), 1 / len(rows), row, top, most))
        plot.append(_label(f"{row.start_s:g}", index / len(rows), _EDGE_LABEL, index == 0))
    plot.append(_line(_COUNT_BASE, "base"))
    return element(
        "div",
        _axis(ticks, top),
        element("svg", *plot, class_="plot", height=str(_HEIGHT)),
        class_="chart",
        role="img",
        aria_label="Columns of word error rate by duration; the table below has the numbers.",
    )


def _axis(ticks: Sequence[float], top: float) -> Markup:
    labels = [
        element("text", f"{100 * tick:g}%", x="38", y=f"{_rate_y(tick / top) + 4:.1f}")
        for tick in ticks
    ]
    names = [
        element("text", "WER", class_="name", x="38", y="10"),
        element("text", "utt.", class_="name", x="38", y=str(_COUNT_BASE)),
        element("text", "sec.", class_="name", x="38", y=str(_EDGE_LABEL)),
    ]
    return element("svg", *labels, *names, class_="axis", width="44", height=str(_HEIGHT))


def _column(left: float, width: float, row: DurationErrors, top: float, most: int) -> list[Markup]:
    """Both columns of one bin with their numbers; left and width are shares of the plot."""
    bar_left, bar_width, centre = left + 0.14 * width, 0.72 * width, left + 0.5 * width
    parts, height = [], 0.0
    if row.words.reference_length:
        for name, class_ in KINDS:
            share = getattr(row.words, name) / row.words.reference_length / top
            height += share
            y, part = _rate_y(height), share * (_RATE_BASE - _RATE_TOP)
            if share:
                parts.append(_rect(class_, bar_left, bar_width, f"{y:.1f}", f"{part:.1f}"))
        text = f"{row.words.rate:.1%}".removesuffix("%")
        parts.append(_label(text, centre, _rate_y(height) - 5))
    tall = row.num_utterances / most * (_COUNT_BASE - _COUNT_TOP)
    y = _COUNT_BASE - tall
    parts.append(_rect("quantity", bar_left, bar_width, f"{y:.1f}", f"{tall:.1f}"))
    parts.append(_label(number(row.num_utterances), centre, y - 4, faint=True))
    return parts


def _scale(rates: Sequence[float]) -> tuple[float, float]:
    """A round step and the multiple of it that holds all rates, in two to five steps."""
    highest = max(rates, default=0.0) or 0.01
    power = 10.0 ** math.floor(math.log10(highest / 5))
    step = next(power * scale for scale in (1, 2, 5, 10) if highest <= 5 * power * scale)
    return step, step * math.ceil(highest / step)


def _rate_y(share: float) -> float:
    return _RATE_BASE - share * (_RATE_BASE - _RATE_TOP)


def _rect(class_: str, left: float, width: float, y: str, height: str) -> Markup:
    return element("rect", class_=class_, x=f"{left:.3%}", y=y, width=f"{width:.3%}", height=height)


def _line(y: float, class_: str) -> Markup:
    return element("line", class_=class_, x1="0", x2="100%", y1=f"{y:.1f}", y2=f"{y:.1f}")


def _label(text: str, centre: float, y: float, first: bool = False, faint: bool = False) -> Markup:
    classes = " ".join(name for name, on in (("first", first), ("faint", faint)) if on) or None
    return element("text", text, class_=classes, x=f"{centre:.3%}", y=f"{y:.1f}")
