"""The part of the page that shows which words are taken for which."""

from __future__ import annotations

from collections.abc import Sequence

from asr.metrics.error_rate import Confusion, confusions
from asr.report.bars import plain_bar
from asr.report.evaluation import Evaluation
from asr.report.markup import Content, Markup, element
from asr.report.number import number
from asr.report.section import note, row, section, table

_LIMIT = 12


def confusion_section(evaluation: Evaluation) -> Markup:
    """The most frequent substitutions, deletions and insertions."""
    found = confusions((each.errors for each in evaluation.utterances), _LIMIT)
    return section(
        "confusions",
        "Most frequent confusions",
        note("A click on one lists the utterances that have it."),
        element(
            "div",
            _confusions("Substituted", "sub", ("Said", "Heard"), found.substitutions),
            _confusions("Deleted", "del", ("Said",), found.deletions),
            _confusions("Inserted", "ins", ("Heard",), found.insertions),
            class_="columns",
        ),
    )


def confusion_link(confusion: Confusion, *content: Content) -> Markup:
    """A link that lists the utterances with a confusion."""
    return element(
        "a",
        *content,
        href="#utterances",
        data_said=confusion.reference or "",
        data_heard=confusion.hypothesis or "",
    )


def _confusions(title: str, class_: str, head: Sequence[str], found: Sequence[Confusion]) -> Markup:
    heading = element("h3", title, class_=class_)
    if not found:
        return element("div", heading, note("None."))
    rows = []
    for each in found:
        first, *rest = [element("bdi", word) for word in (each.reference, each.hypothesis) if word]
        bar = plain_bar(each.count / found[0].count)
        rows.append(row(confusion_link(each, first), *rest, number(each.count), bar))
    made = table(f"{title} words", (*head, "Times", "Share"), rows)
    return element("div", heading, made, class_=class_)
