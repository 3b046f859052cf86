"""One evaluation as one HTML page that needs nothing beside it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from importlib.resources import files

from asr.metrics.error_rate import ErrorCounts
from asr.report.chart import KINDS, patterns, stacked_bar
from asr.report.evaluation import Evaluation, Setting
from asr.report.markup import Content, Markup, element, join, raw_element
from asr.report.number import counted, length, number, percent
from asr.report.section import (
    confusion_section,
    duration_section,
    speaker_section,
    utterance_section,
    worst_section,
)

# In this order: what narrow screens and paper change comes last.
_STYLES = ("base", "table", "utterance", "media")

_CONTENTS = (
    ("speakers", "Speakers"),
    ("durations", "Durations"),
    ("confusions", "Confusions"),
    ("worst", "Most errors"),
    ("utterances", "All utterances"),
    ("conditions", "Conditions"),
)


def render_page(evaluation: Evaluation) -> str:
    """The report as HTML, with its style, script and data inside and a policy that lets in no more.

    Args:
        evaluation: The scored evaluation.

    Returns:
        A whole document, to be written as UTF-8.
    """
    style = "\n".join(_packaged(f"style/{name}.css") for name in _STYLES)
    script = _packaged("report.js")
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_policy(style, script)),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"{percent(evaluation.words.rate, 2)} WER, {evaluation.title}"),
        raw_element("style", style),
    )
    links = [element("a", title, href=f"#{id}") for id, title in _CONTENTS]
    body = element(
        "body",
        patterns(),
        _header(evaluation),
        element("nav", *links, aria_label="Contents"),
        element(
            "main",
            _headline(evaluation),
            _facts(evaluation),
            speaker_section(evaluation),
            duration_section(evaluation),
            confusion_section(evaluation),
            worst_section(evaluation),
            utterance_section(evaluation),
            _conditions(evaluation),
        ),
        raw_element("script", script),
    )
    page = element("html", head, body, lang="en")
    # A lone surrogate in data has been made visible by now, so that UTF-8 holds everything.
    return f"<!doctype html>\n{page.source}\n"


def _packaged(name: str) -> str:
    return (files("asr.report") / name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    """Only the page's own style and script, known by their hashes, and nothing from anywhere."""
    return (
        f"default-src 'none'; style-src '{_sha256(style)}'; script-src '{_sha256(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _sha256(source: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}"


def _header(evaluation: Evaluation) -> Markup:
    return element(
        "header",
        element("p", "Speech recognition, evaluated", class_="kicker"),
        element("h1", element("bdi", evaluation.title)),
        element(
            "p",
            "Model ",
            element("b", element("bdi", evaluation.model.name)),
            " on ",
            element("b", element("bdi", evaluation.manifest)),
            class_="subject",
        ),
    )


def _headline(evaluation: Evaluation) -> Markup:
    return element(
        "section",
        element("h2", "Error rates", id="rates-title", class_="aside"),
        _rate("Word error rate", "word", evaluation.words, "rate first"),
        _rate("Character error rate", "character", evaluation.characters, "rate"),
        id="rates",
        aria_labelledby="rates-title",
    )


def _rate(title: str, noun: str, counts: ErrorCounts, class_: str) -> Markup:
    return element(
        "div",
        element("h3", title),
        element("p", percent(counts.rate, 2), class_="figure"),
        element("p", _sentence(counts, noun), class_="sentence"),
        stacked_bar(counts, counts.errors),
        _legend(counts),
        class_=class_,
    )


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


def _facts(evaluation: Evaluation) -> Markup:
    utterances = evaluation.utterances
    right = sum(each.errors.words.errors == 0 for each in utterances)
    speakers = {each.speaker for each in utterances} - {None}
    facts: list[tuple[str, str, str]] = [
        ("Utterances", number(len(utterances)), ""),
        ("Entirely right", percent(right / len(utterances)), counted(right, "utterance")),
        ("Audio", length(evaluation.duration_s), ""),
        ("Speakers", number(len(speakers)) if speakers else "none given", ""),
    ]
    factor = evaluation.real_time_factor
    if factor is not None:
        pace = f"{1 / factor:.3g} times as fast as speech" if factor else ""
        facts.append(("Real-time factor", f"{factor:.3g}", pace))
    items = [
        element(
            "div", element("dt", name), element("dd", value), element("dd", more, class_="more")
        )
        for name, value, more in facts
    ]
    return element("dl", *items, class_="facts")


def _conditions(evaluation: Evaluation) -> Markup:
    model = evaluation.model
    rows: dict[str, Setting] = {
        "model": model.name,
        "parameters": number(model.num_parameters),
        "manifest": evaluation.manifest,
    }
    return element(
        "section",
        element("h2", "Conditions", id="conditions-title"),
        element(
            "div",
            _definitions("Model and data", rows),
            _definitions("Training", model.training),
            _definitions("Recognition", evaluation.settings),
            class_="columns",
        ),
        element(
            "p",
            "Errors are the fewest substitutions, deletions and insertions that turn the reference "
            "into what was heard. The rate is all errors over all reference words (or characters, "
            "spaces between words included) and can exceed 100\u202f%. evaluation.json, written "
            "with this page, has every number.",
            class_="note",
        ),
        id="conditions",
        aria_labelledby="conditions-title",
    )


def _definitions(title: str, values: Mapping[str, Setting]) -> Content:
    if not values:
        return join(())
    items = [
        element(
            "div", element("dt", element("bdi", name)), element("dd", element("bdi", _shown(value)))
        )
        for name, value in values.items()
    ]
    return element("div", element("h3", title), element("dl", *items, class_="settings"))


def _shown(value: Setting) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
