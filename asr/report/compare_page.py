"""Systems on the same utterances as one HTML page that needs nothing beside it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from asr.report.bars import Scale, patterns, rate_bar, rect
from asr.report.comparison import Comparison, Pair, System
from asr.report.comparison_table import FEW_SEGMENTS
from asr.report.document import render_document, theme_switch
from asr.report.markup import Content, Markup, element
from asr.report.number import between, counted, number, percent, told
from asr.report.section import note, paged_table, row, section, table
from asr.report.utterance_section import NO_SPEAKER, embedded_steps, error_marks
from asr.report.visible import visible

_SCRIPTS = ("alignment", "clip", "paged", "compare")
_FAR = 4  # errors more or less than this share the outermost column
_CONTENTS = (("systems", "Systems"), ("utterances", "Utterances"))
_COLUMNS = (
    ("id", "Utterance"),
    ("speaker", "Speaker"),
    ("duration", "Seconds"),
    ("words", "Words"),
    ("first", "Errors A"),
    ("second", "Errors B"),
    ("difference", "B less A"),
    ("text", "Transcripts"),
)
_CHOICES = (
    ("", "All"),
    ("better", "Fewer errors in B"),
    ("worse", "More errors in B"),
    ("differ", "Different transcripts"),
    ("both", "Wrong in both"),
)
_HEIGHT, _TOP, _BASE = 190, 22, 160  # of the histogram [CSS px]


def render_comparison(comparison: Comparison, pages: Sequence[str | None]) -> str:
    """The comparison as HTML, with its style, script and data inside.

    Args:
        comparison: Of two systems or more.
        pages: For each system the address of its own report, seen from this page and already
            percent-encoded; None where there is none to link to.

    Returns:
        A whole document, to be written as UTF-8.
    """
    if len(pages) != len(comparison.systems):
        raise ValueError(f"pages: got {len(pages)}, expected {len(comparison.systems)}")
    first = comparison.systems[0]
    main = element(
        "main",
        *(_headline(comparison, pair) for pair in comparison.pairs),
        _systems(comparison, pages),
        _utterances(comparison),
    )
    links = [element("a", title, href=f"#{id}") for id, title in _CONTENTS]
    content = [
        patterns(),
        _header(comparison),
        element("nav", *links, aria_label="Contents"),
        main,
    ]
    return render_document(
        f"{' against '.join(each.name for each in comparison.systems)}, {first.evaluation.title}",
        content,
        _SCRIPTS,
        _embedded(comparison, pages),
    )


def _header(comparison: Comparison) -> Markup:
    first = comparison.systems[0].evaluation
    return element(
        "header",
        element("p", "Speech recognition, compared", class_="kicker"),
        element("h1", element("bdi", first.title)),
        element(
            "p",
            f"{counted(len(comparison.systems), 'system')} on ",
            element("b", element("bdi", first.manifest)),
            f", {counted(len(first.utterances), 'utterance')}",
            class_="subject",
        ),
        *(
            note(element("bdi", system.name), f": {system.evaluation.completeness}.")
            for system in comparison.systems
            if system.evaluation.completeness
        ),
        theme_switch(),
    )


def _headline(comparison: Comparison, pair: Pair) -> Markup:
    """One system against the first: by how much, and whether that may be chance."""
    first, second = comparison.systems[0], comparison.systems[pair.system]
    id = f"pair-{pair.system}"
    heading = element("h2", element("bdi", second.name), " against ", element("bdi", first.name))
    return element(
        "section",
        heading,
        element(
            "div",
            element("div", *_difference(first, pair)),
            element("div", _histogram(first, second), class_="histogram"),
            class_="verdict",
        ),
        id=id,
    )


def _difference(first: System, pair: Pair) -> list[Markup]:
    words, p = pair.words, pair.p_holm
    parts = [
        element("p", _points(words.difference), class_="figure"),
        element("p", _verdict(pair), class_="interval"),
    ]
    rate = first.evaluation.words.rate
    text = "Word error rate of B less that of A"
    if rate:
        text += f", {_minus(percent(words.difference / rate))} of it"
    parts.append(element("p", f"{text}.", class_="sentence"))
    rows: list[tuple[str, str]] = []
    if words.interval is not None:
        rows.append((f"{told(words.interval)}, in points", _minus(between(words.interval, 2))))
    if words.probability is not None:
        rows.append(("Bootstrap probability that B is better", percent(words.probability)))
    rows.append(
        (
            "Matched-pair test (MAPSSWE), p",
            "\u2013" if pair.matched.p is None else _p(pair.matched.p),
        )
    )
    if p is not None and p != pair.matched.p:
        rows.append(("with Holm's correction for all pairs", _p(p)))
    rows.append(("Segments with an error", number(pair.matched.num_segments)))
    items = [element("div", element("dt", name), element("dd", value)) for name, value in rows]
    return [*parts, element("dl", *items, class_="settings")]


def _verdict(pair: Pair) -> str:
    if not pair.better and not pair.worse:
        return "Every utterance has as many errors in B as in A."
    if pair.p_holm is None:
        return "Nothing to test: the errors do not vary."
    if pair.p_holm >= 0.05:
        return "May well be chance: p is not below 0.05."
    better = "B is better" if pair.words.difference < 0 else "A is better"
    if pair.matched.num_segments < FEW_SEGMENTS:
        return f"{better}, but the test is coarse with fewer than {FEW_SEGMENTS} segments."
    return f"{better}."


def _p(p: float) -> str:
    return "< 0.0001" if p < 1e-4 else f"{p:.4f}"


def _points(difference: float) -> str:
    sign = "\u2212" if difference < 0 else "+" if difference > 0 else "±"
    return f"{sign}{100 * abs(difference):.2f}\u202fpoints"


def _minus(text: str) -> str:
    return text.replace("-", "\u2212")


def _histogram(first: System, second: System) -> Markup:
    """How many utterances have how many errors less or more."""
    found = Counter(
        max(-_FAR, min(_FAR, b.errors.words.errors - a.errors.words.errors))
        for a, b in zip(first.evaluation.utterances, second.evaluation.utterances, strict=True)
    )
    most = max(found.values())
    width = 1 / (2 * _FAR + 1)
    shapes: list[Markup] = []
    for place, errors in enumerate(range(-_FAR, _FAR + 1)):
        tall = (_BASE - _TOP) * found[errors] / most
        kind = "better" if errors < 0 else "worse" if errors > 0 else "quantity"
        top, centre = _BASE - tall, f"{(place + 0.5) * width:.3%}"
        shapes.append(rect(kind, (place + 0.08) * width, 0.84 * width, f"{top:.1f}", f"{tall:.1f}"))
        shapes.append(element("text", number(found[errors]), x=centre, y=f"{top - 5:.1f}"))
        shapes.append(element("text", _difference_label(errors), x=centre, y=str(_BASE + 18)))
    shapes.append(element("line", class_="base", x1="0", x2="100%", y1=str(_BASE), y2=str(_BASE)))
    better = sum(count for errors, count in found.items() if errors < 0)
    worse = sum(count for errors, count in found.items() if errors > 0)
    drawing = element(
        "svg",
        *shapes,
        class_="plot",
        height=str(_HEIGHT),
        role="img",
        aria_label="Utterances by errors of B less errors of A",
    )
    caption = element(
        "p",
        element("b", number(better), class_="better"),
        " utterances better in B, ",
        element("b", number(worse), class_="worse"),
        " worse; columns are utterances by word errors of B less word errors of A.",
        class_="note",
    )
    return element("div", element("div", drawing, class_="chart"), caption)


def _difference_label(errors: int) -> str:
    if errors == 0:
        return "same"
    far = "≤\u2009" if errors == -_FAR else "≥\u2009" if errors == _FAR else ""
    return f"{far}{'+' if errors > 0 else chr(0x2212)}{abs(errors)}"


def _systems(comparison: Comparison, pages: Sequence[str | None]) -> Markup:
    rates = [each.evaluation.words.rate for each in comparison.systems]
    highs = [
        each.evaluation.intervals.words.high
        for each in comparison.systems
        if each.evaluation.intervals.words is not None
    ]
    full = max([*rates, *(high for high in highs if math.isfinite(high))])
    scale = Scale(full, rates[0])
    rows = [
        row(
            _named(each.name, page),
            rate_bar(each.evaluation.words, each.evaluation.intervals.words, scale),
            element("strong", percent(each.evaluation.words.rate, 2)),
            between(each.evaluation.intervals.words, 2),
            *map(
                number,
                (
                    each.evaluation.words.substitutions,
                    each.evaluation.words.deletions,
                    each.evaluation.words.insertions,
                ),
            ),
            percent(each.evaluation.characters.rate, 2),
        )
        for each, page in zip(comparison.systems, pages, strict=True)
    ]
    head = ("System", "", "WER", "95 %", "S", "D", "I", "CER")
    names = [each.name for each in comparison.systems]
    parts: list[Markup] = [element("div", table("Systems", head, rows), class_="slice wide")]
    if comparison.differing:
        settings = [
            row(
                element("bdi", name),
                *(element("bdi", "none" if value is None else str(value)) for value in values),
            )
            for name, values in comparison.differing.items()
        ]
        parts.append(element("h3", "Settings that differ"))
        parts.append(table("Settings that differ", ("Setting", *names), settings))
    rules = comparison.systems[0].evaluation.text_rules
    if rules:
        parts.append(note(f"Texts were compared after these rules: {'; '.join(rules)}."))
    return section("systems", "Systems", *parts)


def _named(name: str, page: str | None) -> Content:
    shown = element("bdi", name)
    return shown if page is None else element("a", shown, href=page)


def _utterances(comparison: Comparison) -> Markup:
    seconds = [
        element("option", each.name, value=str(place))
        for place, each in enumerate(comparison.systems)
        if place
    ]
    choices = [element("option", label, value=value) for value, label in _CHOICES]
    filters = element(
        "div",
        element("label", "Search ", element("input", type="search", id="search")),
        element("label", "B is ", element("select", *seconds, id="second")),
        element("label", "Show ", element("select", *choices, id="choice")),
        element("button", "Clear", type="button", id="clear"),
        class_="filters",
        role="search",
    )
    legend = note(
        "A is ",
        element("b", element("bdi", comparison.systems[0].name)),
        ". ",
        *error_marks(),
        ". A click on an utterance's name opens both alignments and links to the systems' own "
        "reports. Keys: / searches, ↑ and ↓ go from name to name, Enter opens.",
    )
    return section(
        "utterances",
        "Utterances",
        element("noscript", note("This list needs JavaScript.")),
        element(
            "div",
            legend,
            filters,
            paged_table("Utterances", _COLUMNS),
            id="browser",
            hidden="hidden",
        ),
    )


def _embedded(comparison: Comparison, pages: Sequence[str | None]) -> object:
    systems = comparison.systems
    every = zip(*(each.evaluation.utterances for each in systems), strict=True)
    return {
        "systems": [
            {"name": visible(each.name), "page": page}
            for each, page in zip(systems, pages, strict=True)
        ],
        "utterances": [
            [
                visible(group[0].id),
                NO_SPEAKER if group[0].speaker is None else visible(group[0].speaker),
                round(group[0].duration_s, 3),
                group[0].errors.words.reference_length,
                [each.errors.words.errors for each in group],
                [embedded_steps(each.errors.alignment.words) for each in group],
            ]
            for group in every
        ],
    }
