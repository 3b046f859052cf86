"""Check 16: what data say is shown and never obeyed, in pages and on the terminal."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console, RenderableType

from asr.metrics.error_rate import score_utterance
from asr.report.clips import Clips, CtcPath, make_clip
from asr.report.comparison import compare_evaluations
from asr.report.evaluation import EvaluatedUtterance, Evaluation, ModelDescription
from asr.report.files import write_report
from asr.report.html import render_comparison, render_evaluation
from asr.report.terminal import (
    comparison_notes,
    comparison_table,
    confusion_table,
    slice_table,
    summary,
    worst_utterances,
)
from asr.word import Character, Word
from tests.report.reading import PAYLOADS, Reader

PLACES = ("reference", "hypothesis", "id", "path", "speaker", "field", "title", "system")
ESCAPES = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def make_evaluation(place: str, text: str) -> Evaluation:
    """One place holds the text; a payload among words has no white space, as no word has."""
    word = "/".join(text.split())

    def at(name: str, otherwise: str) -> str:
        return (
            (word if name in ("reference", "hypothesis") else text) if place == name else otherwise
        )

    said, heard, id = f"a {at('reference', 'x')} c", f"a {at('hypothesis', 'y')} d", at("id", "u1")
    utterances = [
        EvaluatedUtterance(
            each,
            at("speaker", "s1"),
            1.5 + number,
            at("path", "1.wav"),
            score_utterance(each, said, heard),
            {at("field", "room"): at("field", "hall")},
            12.5 + number,
            tuple(Word(word, 0.0, 0.5, 0.9) for word in heard.split()),
        )
        for number, each in enumerate((id, "u2"))
    ]
    field = next(iter(utterances[0].fields))
    return Evaluation(
        at("title", "t"),
        ModelDescription(at("system", "m"), 1, {at("system", "n"): at("system", "v")}),
        at("system", "f.jsonl"),
        0.5,
        tuple(utterances),
        {at("system", "decoder"): at("system", "greedy")},
        (at("system", "lower case"),),
        ("speaker", "duration", field),
    )


def make_clips(evaluation: Evaluation, text: str) -> Clips:
    """Sound for both utterances, with the text where a character stands."""
    made = [
        make_clip(
            each.id,
            np.zeros(1600, np.float32),
            16_000,
            np.zeros((10, 4), np.float32),
            0.01,
            [
                CtcPath("hypothesis", (Character(text, 0.0, 0.1, -0.5),)),
                CtcPath("reference", (), text),
            ],
        )
        for each in evaluation.utterances
    ]
    return Clips({clip.id: clip for clip in made})


def make_comparison(evaluation: Evaluation, name: str) -> str:
    other = replace(evaluation, settings={"decoder": "beam"})
    return render_comparison(compare_evaluations([(name, evaluation), ("B", other)]), ["%2E", None])


def printed(*renderables: RenderableType) -> str:
    console = Console(file=io.StringIO(), width=200, force_terminal=True, color_system=None)
    for each in renderables:
        console.print(each)
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


@lru_cache
def plain_pages(place: str, length: int) -> list[str]:
    """The same pages of letters only, as many: how errors split in characters depends on that."""
    return pages(place, "p" * length)


def pages(place: str, text: str) -> list[str]:
    evaluation = make_evaluation(place, text)
    name = text if place == "system" else "A"
    return [
        render_evaluation(evaluation, make_clips(evaluation, text)),
        make_comparison(evaluation, name),
    ]


def is_only_text(place: str, payload: str) -> bool:
    """Tags and attributes are those of plain text, and nothing in the page acts."""
    for page, plain in zip(pages(place, payload), plain_pages(place, len(payload)), strict=True):
        hostile, harmless = Reader(page), Reader(plain)
        links = [value for _, name, value in hostile.attributes if name in ("href", "src")]
        if (
            hostile.structure != harmless.structure
            or not all(link.startswith(("#", "%")) for link in links)
            or hostile.raw["script", None] != harmless.raw["script", None]
            or hostile.raw["style", None] != harmless.raw["style", None]
            or ESCAPES.search(page)
        ):
            return False
    return True


def is_quiet(place: str, payload: str) -> bool:
    """Not one control character on the terminal beyond those of the tables themselves."""
    evaluation = make_evaluation(place, payload)
    other = replace(evaluation, settings={"decoder": "beam"})
    name = payload if place == "system" else "A"
    comparison = compare_evaluations([(name, evaluation), ("B", other)])
    text = printed(
        *(slice_table(evaluation, by) for by in evaluation.slice_by),
        confusion_table(evaluation),
        worst_utterances(evaluation),
        summary(evaluation),
        comparison_table(comparison),
        comparison_notes(comparison),
    )
    return ESCAPES.search(text) is None


@pytest.mark.parametrize(
    "every", [pytest.param(4, id="quick"), pytest.param(1, id="all", marks=pytest.mark.slow)]
)
def test_payloads_in_pages(survived: Callable[[str, int, int], None], every: int) -> None:
    tried = [(place, payload) for place in PLACES for payload in PAYLOADS][::every]
    survived("report injection", sum(is_only_text(*each) for each in tried), len(tried))


def test_payloads_on_the_terminal(survived: Callable[[str, int, int], None]) -> None:
    tried = [(place, payload) for place in PLACES for payload in PAYLOADS]
    survived("report on the terminal", sum(is_quiet(*each) for each in tried), len(tried))


def test_the_check_can_fail() -> None:
    """What it looks for is found where it is."""
    attacked = Reader("<p>x<script>alert(1)</script></p>").structure
    assert attacked != Reader("<p>x</p>").structure
    assert ESCAPES.search("\x1b[31m")


@pytest.mark.parametrize("place", ["id", "reference"])
def test_no_file_for_spreadsheets(tmp_path: Path, place: str) -> None:
    """No CSV is written at all, so that no cell of one can be a formula."""
    write_report(make_evaluation(place, "=HYPERLINK(1)"), tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} <= {
        ".html",
        ".json",
        ".trn",
        ".stm",
        ".ctm",
    }
