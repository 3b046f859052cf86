"""The part of the page that shows whether confidences can be believed."""

from __future__ import annotations

from asr.metrics.calibration import Reliability, ReliabilityBin
from asr.report.evaluation import Evaluation
from asr.report.markup import Markup, element
from asr.report.number import number, percent
from asr.report.section import note, row, section, table

_SIZE = 240  # of the diagram [units of its drawing]
_MARGIN = 34
_WIDEST = 9  # radius of the bin with the most words


def calibration_section(evaluation: Evaluation) -> list[Markup]:
    """A reliability diagram with its numbers; nothing where no word has a confidence."""
    found = evaluation.reliability
    if found is None:
        return []
    text = (
        "How often words of a confidence are right. On the diagonal, confidence 0.8 means right 80 "
        "times in a hundred; below it the model is too sure of itself. A dot's area is its number "
        "of words. Expected calibration error "
    )
    rows = [
        row(
            f"{each.low:.1f} to {each.high:.1f}",
            number(each.count),
            f"{each.confidence:.3f}" if each.count else "\u2013",
            "\u2013" if each.accuracy is None else percent(each.accuracy),
        )
        for each in found.bins
    ]
    numbers = table(
        "Confidence and accuracy of words", ("Confidence", "Words", "Mean", "Right"), rows
    )
    return [
        section(
            "calibration",
            "Confidence",
            note(text, element("b", f"{found.ece:.3f}"), f", {number(found.num_words)} words."),
            element("div", _diagram(found), numbers, class_="calibration"),
        )
    ]


def _diagram(found: Reliability) -> Markup:
    most = max(each.count for each in found.bins)
    shapes: list[Markup] = []
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        shapes.append(_line(0, tick, 1, tick, "base" if tick == 0 else "grid"))
        shapes.append(_text(f"{tick:g}", _MARGIN - 6, _y(tick) + 4, "end"))
        shapes.append(_text(f"{tick:g}", _x(tick), _y(0) + 16, "middle"))
    shapes.append(_line(0, 0, 1, 1, "mark"))
    shapes.extend(shape for each in found.bins for shape in _dot(each, most))
    shapes.append(_text("confidence", _x(0.5), _y(0) + 32, "middle"))
    shapes.append(_text("right", _MARGIN - 6, 12, "end"))
    return element(
        "svg",
        *shapes,
        class_="diagram chart",
        viewBox=f"0 0 {_SIZE + _MARGIN + 12} {_SIZE + _MARGIN + 24}",
        role="img",
        aria_label="Share of right words over their confidence; the table has the numbers.",
    )


def _dot(each: ReliabilityBin, most: int) -> list[Markup]:
    if each.accuracy is None:
        return []
    radius = max(_WIDEST * (each.count / most) ** 0.5, 2.0)
    return [
        _line(each.confidence, each.confidence, each.confidence, each.accuracy, "off"),
        element(
            "circle",
            cx=f"{_x(each.confidence):.1f}",
            cy=f"{_y(each.accuracy):.1f}",
            r=f"{radius:.1f}",
        ),
    ]


def _x(share: float) -> float:
    return _MARGIN + _SIZE * share


def _y(share: float) -> float:
    return 18 + _SIZE * (1 - share)


def _line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    return element(
        "line",
        class_=class_,
        x1=f"{_x(x1):.1f}",
        y1=f"{_y(y1):.1f}",
        x2=f"{_x(x2):.1f}",
        y2=f"{_y(y2):.1f}",
    )


def _text(text: str, x: float, y: float, anchor: str) -> Markup:
    return element("text", text, class_=anchor, x=f"{x:.1f}", y=f"{y:.1f}")
