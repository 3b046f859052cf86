"""One evaluation as one HTML page that needs nothing beside it."""

from __future__ import annotations

from collections.abc import Mapping

from asr.report.bars import patterns
from asr.report.calibration_section import calibration_section
from asr.report.clip import Clips
from asr.report.confusion_section import confusion_section
from asr.report.document import embed_json, render_document, theme_switch
from asr.report.evaluation import Evaluation, Setting
from asr.report.headline import facts, findings, rates
from asr.report.markup import Content, Markup, element, join
from asr.report.number import counted, number, percent
from asr.report.section import note, section
from asr.report.slice_section import slice_section
from asr.report.utterance_section import embedded_utterances, list_section, worst_section

_SCRIPTS = ("alignment", "clip", "paged", "list")
_MAX_LEFT_OUT = 5  # named at the top
_CONTENTS = (
    ("findings", "Where it fails"),
    ("slices", "Slices"),
    ("confusions", "Confusions"),
    ("worst", "Most errors"),
    ("utterances", "All utterances"),
    ("conditions", "Conditions"),
)


def render_page(evaluation: Evaluation, clips: Clips | None = None) -> str:
    """The report as HTML, with its style, script and data inside and a policy that lets in no more.

    Args:
        evaluation: The scored evaluation.
        clips: Utterances to hear and see; None for none.

    Returns:
        A whole document, to be written as UTF-8.
    """
    clips = clips or Clips()
    data = embedded_utterances(evaluation, clips)
    main = element(
        "main",
        rates(evaluation),
        facts(evaluation),
        findings(evaluation),
        slice_section(evaluation),
        confusion_section(evaluation),
        *calibration_section(evaluation),
        worst_section(evaluation, clips),
        list_section(clips),
        _conditions(evaluation, clips, len(embed_json(data).encode())),
    )
    content = [patterns(), _header(evaluation), _contents(), main]
    title = f"{percent(evaluation.words.rate, 2)} WER, {evaluation.title}"
    return render_document(title, content, _SCRIPTS, data)


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
        *_incomplete(evaluation),
        theme_switch(),
    )


def _incomplete(evaluation: Evaluation) -> list[Markup]:
    """What is not in the numbers, where there is such: it must not be overlooked."""
    if not evaluation.left_out:
        return []
    items = [
        element(
            "li", element("b", element("bdi", each.id or "")), ": ", element("bdi", each.reason)
        )
        for each in evaluation.left_out[:_MAX_LEFT_OUT]
    ]
    more = len(evaluation.left_out) - len(items)
    if more:
        items.append(element("li", f"{number(more)} more: see evaluation.json"))
    title = element("p", element("b", f"{evaluation.completeness}:"))
    return [element("div", title, element("ul", *items), class_="incomplete", role="note")]


def _contents() -> Markup:
    links = [element("a", title, href=f"#{id}") for id, title in _CONTENTS]
    return element("nav", *links, aria_label="Contents")


def _conditions(evaluation: Evaluation, clips: Clips, num_data_bytes: int) -> Markup:
    model = evaluation.model
    rows: dict[str, Setting] = {
        "model": model.name,
        "parameters": number(model.num_parameters),
        "manifest": evaluation.manifest,
    }
    return section(
        "conditions",
        "Conditions",
        element(
            "div",
            _definitions("Model and data", rows),
            _definitions("Training", model.training),
            _definitions("Recognition", evaluation.settings),
            class_="columns",
        ),
        note(
            "Errors are the fewest substitutions, deletions and insertions that turn the reference "
            "into what was heard. The rate is all errors over all reference words (or characters, "
            "spaces between words included) and can exceed 100\u202f%. evaluation.json, written "
            "with this page, has every number."
        ),
        note(_rules(evaluation.text_rules)),
        note(_sizes(len(evaluation.utterances), clips, num_data_bytes)),
    )


def _rules(rules: tuple[str, ...]) -> str:
    if not rules:
        return "What reference and hypothesis went through before they were compared is not told."
    return f"Reference and hypothesis went through the same rules: {'; '.join(rules)}."


def _sizes(num_utterances: int, clips: Clips, num_data_bytes: int) -> str:
    """What takes the room in this file."""
    text = f"In this page: the list of {counted(num_utterances, 'utterance')}, "
    text += _megabytes(num_data_bytes - clips.num_bytes)
    if clips.by_id:
        text += f"; sound and pictures of {number(len(clips.by_id))}, {_megabytes(clips.num_bytes)}"
    if clips.num_left_out:
        text += f", {number(clips.num_left_out)} more left out for the bound on the page's size"
    return f"{text}."


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


def _megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:.{1 if num_bytes >= 1e5 else 2}f}\u202fMB"
