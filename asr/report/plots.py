"""Charts by matplotlib: inline SVG in the colours of a page, and the picture of a tuning.

What is drawn for a page carries a class as its gid. Only that is taken over into the page, without
matplotlib's own styles, which the page's policy would not let in: the style sheet says how the
classes look, in light and dark. The kinds of error differ in colour and in pattern: substitutions
are solid, deletions hatched, insertions dotted.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from asr.metrics.calibration import Reliability
from asr.metrics.error_rate import ErrorCounts
from asr.metrics.interval import Interval
from asr.picture import png
from asr.report.evaluation import Slices
from asr.report.wording import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KINDS = (("substitutions", "sub"), ("deletions", "del"), ("insertions", "ins"))  # and their classes
MOST = 2.0  # times the highest rate: how far an interval may stretch the scale
MANY = 4  # errors more or less than this share the outermost column of a histogram
LEVELS = 12  # of the surface of a tuning
FEWEST_FOR_SURFACE = 6  # trials; fewer are dots alone

_SVG = "{http://www.w3.org/2000/svg}"
_OWN = "own "  # what the gid begins with of what a page takes over
_NUMBER = re.compile(r"-?\d+\.\d+")


# --- charts of a page ---------------------------------------------------------------------------


def stack(counts: ErrorCounts) -> str:
    """Draw how errors split into kinds, over the whole width; for the eye only."""
    figure, axes = _canvas(500, 20)
    _bars(axes, [(0.0, counts)], counts.errors / max(counts.reference_length, 1), height=1.0)
    return _inline(figure, "bar", None)


def rates(rows: Sequence[tuple[ErrorCounts, Interval | None]], overall: float) -> str:
    """Draw error rates as bars, split into kinds, with their intervals; for the eye only.

    The rows are of equal height, to stand beside a table that has the numbers.

    Args:
        rows: from the top: errors, and the interval of their rate; at least one.
        overall: rate at which a dashed line crosses all of them.
    """
    full = _reach([counts.rate for counts, _ in rows], [each for _, each in rows], overall) or 1.0
    figure, axes = _canvas(320, 32 * len(rows))
    axes.set(xlim=(0, full), ylim=(len(rows) - 0.5, -0.5))
    _bars(axes, [(place, counts) for place, (counts, _) in enumerate(rows)], full, height=0.46)
    spans = [(place, each) for place, (_, each) in enumerate(rows) if each is not None]
    _whiskers(axes, spans, full, end=0.16, arrow=0.02 * full, is_upright=False)
    axes.plot((overall, overall), axes.get_ylim(), gid=f"{_OWN}mark")
    return _inline(figure, "bar", None)


def columns(slices: Slices, overall: float, description: str, rate_name: str = "WER") -> str:
    """Draw the WER of bins in stacked columns with intervals, above the utterances in each.

    The rates stand in a line above the columns, where no whisker crosses them.

    Args:
        slices: bins from low to high; at least one.
        overall: rate of all utterances, a dashed line across.
        description: of the picture, for those who do not see it.
        rate_name: of the rate.
    """
    from matplotlib.ticker import MaxNLocator

    rows = slices.rows
    highest = _reach([row.words.rate for row in rows], [row.interval for row in rows], overall)
    ticks = MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(0, highest or 0.01)
    top = ticks[-1]
    figure, axes = _canvas(400, 262, (44, 34, 352, 140))
    axes.set(xlim=(-0.5, len(rows) - 0.5), ylim=(0, top))
    _levels(axes, ticks[1:], "grid")
    _levels(axes, [0], "base")
    for tick in ticks:
        _write(axes, -0.57, tick, f"{100 * tick:g}\u202f%", "tick", ha="right", va="center")
    _bars(axes, [(place, row.words) for place, row in enumerate(rows)], top, 0.72, is_upright=True)
    spans = [(place, row.interval) for place, row in enumerate(rows) if row.interval is not None]
    _whiskers(axes, spans, top, end=0.12, arrow=0.045 * top, is_upright=True)
    _levels(axes, [overall], "mark")
    _write(axes, -0.57, 1.1 * top, rate_name, "tick", ha="right")
    for place, row in enumerate(rows):
        rate = f"{100 * row.words.rate:.1f}" if math.isfinite(row.words.rate) else "∞"
        _write(axes, place, 1.1 * top, rate, "value")
    counts = figure.add_axes((44 / 400, 32 / 262, 352 / 400, 34 / 262))
    counts.set_axis_off()
    most = max(row.num_utterances for row in rows)
    counts.set(xlim=axes.get_xlim(), ylim=(0, most))
    boxes = [(place - 0.36, 0, 0.72, row.num_utterances) for place, row in enumerate(rows)]
    _rectangles(counts, boxes, "quantity")
    for place, row in enumerate(rows):
        edge = "none" if row.low is None else f"{row.low:.3g}\u2009+"
        _write(counts, place, row.num_utterances + 0.1 * most, number(row.num_utterances), "tick")
        _write(counts, place, -0.55 * most, edge, "label")
    _levels(counts, [0], "base")
    _write(counts, -0.57, 0, "utt.", "tick", ha="right")
    _write(counts, -0.57, -0.55 * most, slices.unit or "from", "tick", ha="right")
    return _inline(figure, "chart", description)


def diagram(found: Reliability) -> str:
    """Draw how often words of a confidence are right: on the diagonal, it can be believed."""
    from matplotlib.patches import Circle

    figure, axes = _canvas(286, 298, (36, 18, 240, 240))
    axes.set(xlim=(0, 1), ylim=(0, 1))
    _levels(axes, [0.25, 0.5, 0.75, 1.0], "grid")
    _levels(axes, [0.0], "base")
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        _write(axes, -0.03, tick, f"{tick:g}", "tick", ha="right", va="center")
        _write(axes, tick, -0.07, f"{tick:g}", "tick")
    _write(axes, 0.5, -0.13, "confidence", "tick")
    _write(axes, -0.03, 1.045, "right", "tick", ha="right")
    axes.plot((0, 1), (0, 1), gid=f"{_OWN}mark")
    most = max(each.count for each in found.bins)
    dots = [(each.confidence, each.accuracy, each.count) for each in found.bins]
    known = [(x, y, count) for x, y, count in dots if y is not None]
    across = [end for x, _, _ in known for end in (x, x, math.nan)]
    along = [end for x, y, _ in known for end in (x, y, math.nan)]
    axes.plot(across, along, gid=f"{_OWN}off")
    for x, y, count in known:
        radius = max(9 * (count / most) ** 0.5, 2.0) / 240  # so that its area is the count
        axes.add_patch(Circle((x, y), radius, clip_on=False, gid=f"{_OWN}dot"))
    description = "Share of right words over their confidence; the table has the numbers."
    return _inline(figure, "chart", description)


def histogram(differences: Mapping[int, int]) -> str:
    """Draw how many utterances have how many errors less or more in one system than in another."""
    places = range(-MANY, MANY + 1)
    counts = dict.fromkeys(places, 0)
    for errors, count in differences.items():
        counts[max(-MANY, min(MANY, errors))] += count
    most = max(counts.values())
    figure, axes = _canvas(440, 190, (0, 24, 440, 136))
    axes.set(xlim=(-MANY - 0.5, MANY + 0.5), ylim=(0, most))
    boxes = [(errors - 0.42, 0, 0.84, count) for errors, count in counts.items()]
    _rectangles(axes, boxes[:MANY], "better")
    _rectangles(axes, boxes[MANY : MANY + 1], "quantity")
    _rectangles(axes, boxes[MANY + 1 :], "worse")
    for errors, count in counts.items():
        _write(axes, errors, count + 0.04 * most, number(count), "label")
        far = "≤\u2009" if errors == -MANY else "≥\u2009" if errors == MANY else ""
        sign = "+" if errors > 0 else "\u2212"
        label = f"{far}{sign}{abs(errors)}" if errors else "same"
        _write(axes, errors, -0.14 * most, label, "label")
    _levels(axes, [0], "base")
    return _inline(figure, "chart", "Utterances by errors of B less errors of A")


def _canvas(
    width: float, height: float, box: tuple[float, float, float, float] | None = None
) -> tuple[Figure, Axes]:
    """Make a figure and axes without frame, sizes in CSS px; box is left, top, width, height."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / 72, height / 72))  # the unit of SVG is the point here
    left, top, wide, tall = box or (0, 0, width, height)
    place = (left / width, 1 - (top + tall) / height, wide / width, tall / height)
    axes = figure.add_axes(place)
    axes.set_axis_off()  # half of the time would go into ticks that nobody sees
    axes.set(xlim=(0, 1), ylim=(-0.5, 0.5))
    return figure, axes


def _reach(rates: Sequence[float], intervals: Sequence[Interval | None], overall: float) -> float:
    """Find where the scale ends: an interval that goes far beyond would flatten the bars."""
    highest = max([rate for rate in rates if math.isfinite(rate)] + [overall])
    return max([highest, *(min(each.high, MOST * highest) for each in intervals if each)])


def _bars(
    axes: Axes,
    rows: Sequence[tuple[float, ErrorCounts]],
    full: float,
    height: float,
    is_upright: bool = False,
) -> None:
    """Draw rates at their places, split into kinds; the scale goes to `full`."""
    starts = dict.fromkeys((place for place, _ in rows), 0.0)
    if not is_upright:
        axes.set_xlim(0, full or 1)
    for name, class_ in KINDS:
        boxes = []
        for place, counts in rows:
            share = getattr(counts, name) / max(counts.reference_length, 1)
            if share and counts.reference_length:
                across, along = (place - height / 2, height), (starts[place], share)
                (x, wide), (y, tall) = (across, along) if is_upright else (along, across)
                boxes.append((x, y, wide, tall))
                starts[place] += share
        _rectangles(axes, boxes, class_)


def _whiskers(
    axes: Axes,
    spans: Sequence[tuple[float, Interval]],
    full: float,
    end: float,
    arrow: float,
    is_upright: bool,
) -> None:
    """Draw intervals across the ends of bars; one that leaves the scale ends in an arrow.

    Args:
        axes: to draw on.
        spans: places of the bars, and intervals.
        full: end of the scale.
        end: half the width of a whisker's end, in the unit of the places.
        arrow: length of an arrow, in the unit of the scale.
        is_upright: the bars are columns.
    """
    lines, ends = [], []
    for place, interval in spans:
        low, high = interval.low, min(interval.high, full)
        lines.append([(low, place), (high, place)])
        ends.append([(low, place - end), (low, place + end)])
        back = high - arrow if interval.high > full else high
        ends.append([(back, place - end), (high, place), (back, place + end)])
    for class_, drawn in (("halo", lines), ("reach", lines + ends)):
        along = [point[0] for line in drawn for point in (*line, (math.nan, math.nan))]
        across = [point[1] for line in drawn for point in (*line, (math.nan, math.nan))]
        x, y = (across, along) if is_upright else (along, across)
        axes.plot(x, y, gid=f"{_OWN}{class_}", clip_on=False)


def _rectangles(
    axes: Axes, boxes: Sequence[tuple[float, float, float, float]], class_: str
) -> None:
    """Draw rectangles of left, bottom, width and height as one path: many patches take long."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    corners = [
        corner
        for x, y, wide, tall in boxes
        for corner in ((x, y), (x, y + tall), (x + wide, y + tall), (x + wide, y), (x, y))
    ]
    codes = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY] * len(boxes)
    if boxes:
        axes.add_artist(PathPatch(Path(corners, codes), gid=_OWN + class_))


def _levels(axes: Axes, levels: Sequence[float], class_: str) -> None:
    left, right = axes.get_xlim()
    x = [left, right, math.nan] * len(levels)
    y = [end for level in levels for end in (level, level, math.nan)]
    order = 0 if class_ == "grid" else 2
    axes.plot(x, y, gid=_OWN + class_, clip_on=False, zorder=order)


def _write(
    axes: Axes, x: float, y: float, text: str, class_: str, ha: str = "center", va: str = "baseline"
) -> None:
    axes.text(x, y, text, gid=_OWN + class_, ha=ha, va=va, fontsize=12, parse_math=False)


def _inline(figure: Figure, class_: str, description: str | None) -> str:
    """Make an SVG element of a figure's classed shapes: paths and texts, and nothing else.

    Args:
        figure: drawn; its size in points is that in CSS px.
        class_: of the element.
        description: for those who do not see it; None hides it from them.
    """
    from matplotlib import rc_context

    file = io.StringIO()
    with rc_context({"svg.fonttype": "none", "path.simplify": False}):  # texts stay texts
        figure.savefig(file, format="svg", metadata={"Date": None})
    source = ElementTree.fromstring(file.getvalue())
    width, height = (72 * inches for inches in figure.get_size_inches())
    made = ElementTree.Element(
        "svg", {"class": class_, "viewBox": f"0 0 {width:g} {height:g}"}
        | ({"aria-hidden": "true", "preserveAspectRatio": "none"} if description is None
           else {"role": "img", "aria-label": description}),
    )  # fmt: skip
    for group in source.iter(f"{_SVG}g"):
        name = group.get("id", "")
        if not name.startswith(_OWN):
            continue
        name = name.removeprefix(_OWN)
        for path in group.findall(f"{_SVG}path"):
            shape = " ".join(_NUMBER.sub(lambda n: f"{float(n[0]):.4g}", path.get("d", "")).split())
            last = made[-1] if len(made) else None
            if last is not None and last.tag == "path" and last.get("class") == name:
                last.set("d", f"{last.get('d')} {shape}")
            else:
                ElementTree.SubElement(made, "path", {"class": name, "d": shape})
        for text in group.findall(f"{_SVG}text"):
            anchor = re.search(r"text-anchor: (\w+)", text.get("style", ""))
            place = {name: f"{float(text.get(name, '0')):.4g}" for name in ("x", "y")}
            found = {"text-anchor": anchor[1]} if anchor else {}
            ElementTree.SubElement(made, "text", {"class": name} | place | found).text = text.text
    return ElementTree.tostring(made, encoding="unicode")


# --- the picture of a tuning --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Trial:
    """Weights of a decoder, and the errors on dev with them.

    Attributes:
        weights: those of `BeamSearch` that are searched, by name.
        words: word errors.
        characters: character errors.
    """

    weights: Mapping[str, float]
    words: ErrorCounts
    characters: ErrorCounts

    @property
    def cost(self) -> tuple[float, float]:
        """WER, and CER where it is equal; the lower the better."""
        return self.words.rate, self.characters.rate


def best(trials: Sequence[Trial]) -> Trial:
    """Find the trial with the lowest WER; of equals that with the lowest CER, then the first."""
    return min(trials, key=lambda trial: trial.cost)


def draw_tuning(trials: Sequence[Trial], baseline: float, rate_name: str = "WER") -> bytes:
    """Draw a tuning as PNG: WER over the weights, over the unknown words' score, over time.

    Over the weights WER is interpolated between the trials; where none is near, it is left white.

    Args:
        trials: in their order, at least one.
        baseline: WER without a language model, a fraction.
        rate_name: WER, or CER where that is what is tuned.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14.5, 3.9), layout="constrained")
    surface, prior, unknown, course = figure.subplots(1, 4, width_ratios=(1.4, 1, 1, 1))
    found, wers = best(trials), [100 * trial.words.rate for trial in trials]
    x, y = ([trial.weights[name] for trial in trials] for name in ("lm_weight", "word_bonus"))
    ceiling = sorted(wers)[len(wers) * 3 // 4]  # the worst quarter would hide the valley
    shown = [min(wer, ceiling) for wer in wers]
    if len(set(zip(x, y, strict=True))) >= FEWEST_FOR_SURFACE and min(shown) < ceiling:
        surface.tricontourf(x, y, shown, levels=LEVELS, cmap="viridis_r", alpha=0.85)
    dots = surface.scatter(
        x, y, c=shown, cmap="viridis_r", s=18, edgecolors="white", linewidths=0.5
    )
    colours = figure.colorbar(dots, ax=surface)
    colours.set_label(f"dev {rate_name} [%], {ceiling:.1f} and more in one colour")
    star: dict[str, Any] = {"marker": "*", "color": "tab:red", "markersize": 14}
    surface.plot(found.weights["lm_weight"], found.weights["word_bonus"], **star)
    surface.set(xlabel="lm_weight", ylabel="word_bonus [nats]")
    title = f"best: {100 * found.words.rate:.2f} %; dots of any other weights"
    surface.set_title(title, fontsize="medium")

    numbers = range(1, len(trials) + 1)
    for axes, name, places in (
        (prior, "prior_weight", [trial.weights["prior_weight"] for trial in trials]),
        (unknown, "unk_score [nats]", [trial.weights["unk_score"] for trial in trials]),
        (course, "trial", numbers),
    ):
        axes.scatter(places, wers, s=18, alpha=0.6, linewidths=0)
        number = trials.index(found)
        axes.plot(places[number], wers[number], **star)
        axes.set(xlabel=name, ylabel=f"dev {rate_name} [%]")
        plain(axes)

    lowest = [100 * best(trials[:count]).words.rate for count in numbers]
    course.step(numbers, lowest, where="post", color="tab:red")
    course.axhline(100 * baseline, color="0.4", linestyle="dotted")
    course.annotate("without a language model", (1, 100 * baseline), va="bottom", fontsize="small")
    return png(figure)


def plain(axes: Axes) -> None:
    """Take half of the frame away, and put a grid behind what is drawn."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)
