"""The top of the page: how good the model is, and where it fails."""

from __future__ import annotations

import math

from asr.metrics.error_rate import ErrorCounts, confusions
from asr.metrics.interval import Interval
from asr.report.bars import KINDS, stacked_bar
from asr.report.confusion_section import confusion_link
from asr.report.evaluation import EvaluatedUtterance, Evaluation, by_speaker
from asr.report.markup import Content, Markup, element, join
from asr.report.number import counted, length, number, percent, told
from asr.report.section import section
from asr.report.utterance_section import speaker_name

_HALF = 0.5  # of all errors
_ENOUGH_WORDS = 20  # a speaker with fewer is no finding


def rates(evaluation: Evaluation) -> Markup:
    """WER and CER, large, with their intervals and split into kinds of error."""
    words, characters = evaluation.intervals.words, evaluation.intervals.characters
    return element(
        "section",
        element("h2", "Error rates", id="rates-title", class_="aside"),
        _rate("Word error rate", "word", evaluation.words, words, "rate first"),
        _rate("Character error rate", "character", evaluation.characters, characters, "rate"),
        id="rates",
        aria_labelledby="rates-title",
    )


def facts(evaluation: Evaluation) -> Markup:
    """How much was evaluated, and how fast."""
    utterances = evaluation.utterances
    right = sum(each.errors.words.errors == 0 for each in utterances)
    speakers = {each.speaker for each in utterances} - {None}
    shown: list[tuple[str, str, str]] = [
        ("Utterances", number(len(utterances)), ""),
        ("Entirely right", percent(right / len(utterances)), counted(right, "utterance")),
        ("Audio", length(evaluation.duration_s), ""),
        ("Speakers", number(len(speakers)) if speakers else "none given", ""),
    ]
    factor = evaluation.real_time_factor
    if factor is not None:
        pace = f"{1 / factor:.3g} times as fast as speech" if factor else ""
        shown.append(("Real-time factor", f"{factor:.3g}", pace))
    items = [
        element(
            "div", element("dt", name), element("dd", value), element("dd", more, class_="more")
        )
        for name, value, more in shown
    ]
    return element("dl", *items, class_="facts")


def findings(evaluation: Evaluation) -> Markup:
    """Where the errors are, in a sentence each."""
    wrong = sorted(
        (each for each in evaluation.utterances if each.errors.words.errors),
        key=lambda each: -each.errors.words.errors,
    )
    made: list[Markup] = []
    if wrong:
        made.extend((_kind(evaluation.words), _concentration(evaluation, wrong)))
        made.extend(_speaker(evaluation))
        made.extend(_confusion(evaluation))
    else:
        made.append(element("li", "Nowhere: every utterance is entirely right."))
    return section("findings", "Where it fails", element("ul", *made, class_="findings"))


def _rate(
    title: str, noun: str, counts: ErrorCounts, interval: Interval | None, class_: str
) -> Markup:
    return element(
        "div",
        element("h3", title),
        element("p", percent(counts.rate, 2), class_="figure"),
        element("p", _interval(interval), class_="interval"),
        element("p", _sentence(counts, noun), class_="sentence"),
        stacked_bar(counts),
        _legend(counts),
        class_=class_,
    )


def _interval(interval: Interval | None) -> Content:
    if interval is None:
        return "No interval: a single utterance tells nothing of the spread."
    low = percent(interval.low, 2).removesuffix("\u202f%")
    ends = element("b", f"{low} to {percent(interval.high, 2)}")
    return join((ends, element("span", told(interval), class_="more")))


def _sentence(counts: ErrorCounts, noun: str) -> str:
    opening = f"Against {counted(counts.reference_length, f'reference {noun}')}"
    if not counts.errors:
        return f"{opening}, no error."
    kinds = (
        f"{number(counts.substitutions)}\u00a0substituted",
        f"{number(counts.deletions)}\u00a0deleted",
        f"{number(counts.insertions)}\u00a0inserted",
    )
    return f"{opening}, {counted(counts.errors, 'error')}: {', '.join(kinds)}."


def _legend(counts: ErrorCounts) -> Markup:
    items = []
    for name, class_ in KINDS:
        count = getattr(counts, name)
        share = count / counts.reference_length if counts.reference_length else 0.0
        swatch = element(
            "svg",
            element("rect", class_=class_, width="100%", height="100%"),
            class_="swatch",
            aria_hidden="true",
        )
        items.append(
            element("li", swatch, f"{name.capitalize()} ", element("b", percent(share, 2)))
        )
    return element("ul", *items, class_="legend")


def _kind(words: ErrorCounts) -> Markup:
    name = max((name for name, _ in KINDS), key=lambda name: getattr(words, name))
    return element(
        "li",
        element("b", percent(getattr(words, name) / words.errors, 0)),
        f" of the word errors are {name}.",
    )


def _concentration(evaluation: Evaluation, wrong: list[EvaluatedUtterance]) -> Markup:
    """In how few utterances half of the errors are."""
    count, errors = 0, 0
    while errors < _HALF * evaluation.words.errors:
        errors += wrong[count].errors.words.errors
        count += 1
    return element(
        "li",
        element("b", percent(count / len(evaluation.utterances))),
        " of the utterances hold half of the errors: ",
        element("a", counted(count, "utterance"), href="#worst"),
        ".",
    )


def _speaker(evaluation: Evaluation) -> list[Markup]:
    rows = by_speaker(evaluation)
    enough = [
        row
        for row in rows
        if row.words.reference_length >= _ENOUGH_WORDS and math.isfinite(row.words.rate)
    ]
    if len(enough) < 2:
        return []
    return [
        element(
            "li",
            element("b", percent(enough[0].words.rate)),
            " for speaker ",
            element("a", speaker_name(enough[0].speaker), href="#slices"),
            ", the worst of ",
            number(len(enough)),
            f"; {percent(enough[-1].words.rate)} for the best.",
        )
    ]


def _confusion(evaluation: Evaluation) -> list[Markup]:
    found = confusions((each.errors for each in evaluation.utterances), 1).substitutions
    return [
        element(
            "li",
            element("b", counted(each.count, "time")),
            " the word ",
            confusion_link(each, element("bdi", each.reference or "")),
            " was taken for ",
            element("bdi", each.hypothesis or ""),
            ", the most frequent confusion.",
        )
        for each in found
        if each.count > 1
    ]
