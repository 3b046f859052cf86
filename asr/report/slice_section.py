"""The parts of the page that show the error rate of parts of the data, with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence

from asr.report.bars import Scale, rate_bar
from asr.report.chart import Column, column_chart
from asr.report.evaluation import Evaluation
from asr.report.markup import Content, Markup, element
from asr.report.number import between, bounds, length, number, percent
from asr.report.section import note, row, section, table
from asr.report.slices import SPEAKER, Slice, Slices, cut

UNKNOWN = "(none given)"
_TITLES = {
    SPEAKER: "By speaker",
    "duration": "By duration",
    "reference_length": "By length of the reference",
    "snr": "By signal-to-noise ratio",
}
_MOST = 2.0  # times the highest rate: how far an interval may stretch the scale


def slice_section(evaluation: Evaluation) -> Markup:
    """A picture for everything that the evaluation is cut by."""
    if not evaluation.slice_by:
        return section("slices", "Slices", note("None were asked for: slice_by is empty."))
    every = [cut(evaluation, by) for by in evaluation.slice_by]
    figures = [_figure(evaluation, slices) for slices in every]
    legend = note(
        "Bars are word error rates split into substitutions, deletions and insertions as above; "
        "the dark line across a bar's end is its 95\u202f% interval, the dashed line the rate of "
        "all utterances. Bins hold like numbers of utterances."
    )
    return section("slices", "Slices", legend, element("div", *figures, class_="slices"))


def _figure(evaluation: Evaluation, slices: Slices) -> Markup:
    title = _TITLES.get(slices.by)
    heading = element(
        "h3", *((title,) if title else ("By field ", element("bdi", slices.by))), id=None
    )
    if any(each.low is not None for each in slices.rows):
        return element("div", heading, _columns(evaluation, slices), class_="slice")
    wide = "slice wide" if slices.by == SPEAKER else "slice"
    return element("div", heading, _bars(evaluation, slices), class_=wide)


def _bars(evaluation: Evaluation, slices: Slices) -> Markup:
    """Categories, the highest rate first; of speakers there is more to tell."""
    scale = Scale(_reach(slices.rows, evaluation.words.rate), evaluation.words.rate)
    is_speaker = slices.by == SPEAKER
    head = ("Speaker" if is_speaker else "Value", "", "WER", "95 %", "Words", "Utterances")
    more = ("S", "D", "I", "CER", "Audio") if is_speaker else ()
    rows = [
        row(
            _category(slices, each),
            rate_bar(each.words, each.interval, scale),
            element("strong", percent(each.words.rate)),
            between(each.interval),
            number(each.words.reference_length),
            number(each.num_utterances),
            *(_more(each) if is_speaker else ()),
        )
        for each in slices.rows
    ]
    return table(f"Errors by {slices.by}", (*head, *more), rows)


def _more(each: Slice) -> tuple[str, ...]:
    words = each.words
    counts = map(number, (words.substitutions, words.deletions, words.insertions))
    return (*counts, percent(each.characters.rate), length(each.duration_s))


def _category(slices: Slices, each: Slice) -> Content:
    name = UNKNOWN if each.value is None else element("bdi", each.value)
    if slices.by != SPEAKER:
        return name
    return element("a", name, href="#utterances", data_speaker=each.value or "")


def _columns(evaluation: Evaluation, slices: Slices) -> Markup:
    """Bins of numbers, from low to high, and those without a number last."""
    columns = [
        Column(_edge(each), each.words, each.interval, each.num_utterances) for each in slices.rows
    ]
    unit = slices.unit or "from"
    described = f"Columns of word error rate by {slices.by}; the table below has the numbers."
    head = (f"{slices.by} [{slices.unit}]" if slices.unit else slices.by, "WER", "95 %")
    rows = [
        row(
            UNKNOWN
            if each.low is None or each.high is None
            else bounds(each.low, each.high, each.high == slices.highest),
            percent(each.words.rate),
            between(each.interval),
            *map(number, (each.words.substitutions, each.words.deletions, each.words.insertions)),
            number(each.words.reference_length),
            number(each.num_utterances),
        )
        for each in slices.rows
    ]
    numbers = table(f"Errors by {slices.by}", (*head, "S", "D", "I", "Words", "Utterances"), rows)
    return element(
        "div",
        column_chart(columns, unit, evaluation.words.rate, described),
        element("details", element("summary", "The numbers"), numbers),
    )


def _edge(each: Slice) -> str:
    """The lower bound, from which on the column stands."""
    return "none" if each.low is None else f"{each.low:.3g}\u2009+"


def _reach(rows: Sequence[Slice], overall: float) -> float:
    """The rate at the right end: of the longest bar, or of its interval where that is not far."""
    highest = max((row.words.rate for row in rows if math.isfinite(row.words.rate)), default=0.0)
    highest = max(highest, overall)
    highs = [min(row.interval.high, _MOST * highest) for row in rows if row.interval]
    return max([highest, *highs])
