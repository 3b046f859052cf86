"""Bars as inline SVG: sizes in per cent of the width, so that they stretch and their text does not.

The three kinds of error differ in colour and in pattern: substitutions are solid, deletions
hatched, insertions dotted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from asr.metrics.error_rate import ErrorCounts
from asr.metrics.interval import Interval
from asr.report.markup import Markup, element

KINDS = (("substitutions", "sub"), ("deletions", "del"), ("insertions", "ins"))


@dataclass(frozen=True, slots=True)
class Scale:
    """What the width of several bars stands for.

    Attributes:
        full: Rate at the right end.
        mark: Rate at which a line crosses every bar: that of all utterances.
    """

    full: float
    mark: float


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


def stacked_bar(counts: ErrorCounts) -> Markup:
    """How the errors split into kinds, over the whole width; for the eye only."""
    return element("svg", *_parts(counts, counts.errors), class_="bar", aria_hidden="true")


def rate_bar(counts: ErrorCounts, interval: Interval | None, scale: Scale) -> Markup:
    """An error rate split into kinds with its interval; for the eye only, beside its numbers."""
    full = scale.full * counts.reference_length
    shapes = _parts(counts, full) if full else []
    if interval is not None and scale.full:
        shapes.append(whisker(interval.low / scale.full, interval.high / scale.full))
    if scale.full:
        shapes.append(_upright(scale.mark / scale.full, "0", "100%", "mark"))
    return element("svg", *shapes, class_="bar", aria_hidden="true")


def plain_bar(share: float) -> Markup:
    """One bar over a share (0 to 1) of the width; for the eye only."""
    return element(
        "svg", rect("quantity", 0.0, share, "0", "100%"), class_="bar thin", aria_hidden="true"
    )


def whisker(low: float, high: float) -> Markup:
    """A line between two shares of the width, with ends; one beyond the width has no end there."""
    inside = min(high, 1.0)
    lines = [
        element(
            "line",
            class_=class_,
            x1=f"{low:.3%}",
            x2=f"{inside:.3%}",
            y1="50%",
            y2="50%",
        )
        for class_ in ("halo", "reach")
    ]
    ends = [_upright(low, "20%", "80%", "reach")]
    if high <= 1.0:
        ends.append(_upright(high, "20%", "80%", "reach"))
    return element("g", *lines, *ends, class_="whisker")


def rect(class_: str, left: float, width: float, y: str, height: str) -> Markup:
    """A rectangle, its left edge and width as shares of the drawing's width."""
    return element("rect", class_=class_, x=f"{left:.3%}", y=y, width=f"{width:.3%}", height=height)


def round_scale(rates: list[float]) -> tuple[float, float]:
    """A round step and the multiple of it that holds all rates, in two to five steps."""
    highest = max((rate for rate in rates if math.isfinite(rate)), default=0.0) or 0.01
    power = 10.0 ** math.floor(math.log10(highest / 5))
    step = next(power * scale for scale in (1, 2, 5, 10) if highest <= 5 * power * scale)
    return step, step * math.ceil(highest / step)


def _parts(counts: ErrorCounts, full: float) -> list[Markup]:
    """Substitutions, deletions and insertions side by side; `full` errors fill the width."""
    parts, start = [], 0.0
    for name, class_ in KINDS:
        share = getattr(counts, name) / full if full else 0.0
        if share:
            parts.append(rect(class_, start, share, "0", "100%"))
        start += share
    return parts


def _upright(share: float, top: str, bottom: str, class_: str) -> Markup:
    return element("line", class_=class_, x1=f"{share:.3%}", x2=f"{share:.3%}", y1=top, y2=bottom)
