"""The doctor with a model that listens: whom it hears, and what becomes of what it says."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr.data.checks import Examined, find_misfits
from asr.data.doctor import Rules, examine, shortfall_quantity
from asr.data.manifest import Utterance
from asr.finding import Kind
from asr.text import TextNormalizer

RATE = 16_000  # [Hz]
RULES = Rules(TextNormalizer(), "abc ", RATE, lambda seconds: int(seconds / 0.04), len)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Three utterances that a training can take, and four that it cannot."""
    texts = {"good": "A b", "wrong": "ab", "refused": "b c", "long": "a", "empty": ".", "x": "x"}
    rows = []
    for number, (name, text) in enumerate(texts.items()):
        seconds = 41 if name == "long" else 1 + number / 10
        noise = 0.1 * np.random.default_rng(number).standard_normal(int(seconds * RATE))
        soundfile.write(tmp_path / f"{name}.wav", noise, RATE)
        rows.append({"audio_filepath": f"{name}.wav", "text": text, "id": name})
    rows.append({"audio_filepath": "gone.wav", "text": "a", "id": "gone"})
    path = tmp_path / "m.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_model_hears_what_nothing_else_is_wrong_with(manifest: Path) -> None:
    heard: list[tuple[str, str]] = []

    def shortfall(utterance: Utterance, text: str) -> float:
        heard.append((utterance.id, text))
        if utterance.id == "refused":
            raise ValueError("text: every path of its labels has probability 0, expected more")
        return {"good": 0.5, "wrong": 0.51}[utterance.id]

    rules = replace(RULES, shortfall=shortfall, max_shortfall=0.5)
    examination = examine([manifest], rules)
    assert heard == [("good", "a b"), ("wrong", "ab"), ("refused", "b c")]
    misfits = [each for each in examination.findings if each.kind is Kind.TEXT_MISFIT]
    assert [(each.id, each.line, each.reason) for each in misfits] == [
        (
            "wrong",
            2,
            "0.51 nats a frame behind what the model hears, expected at most 0.50 of a right text",
        ),
        ("refused", 3, "text: every path of its labels has probability 0, expected more"),
    ]
    assert shortfall_quantity(0.5).values(examination.manifests[0]) == [0.5, 0.51]
    plain = examine([manifest], RULES)
    assert set(plain.findings) == set(examination.findings) - set(misfits)
    assert shortfall_quantity(math.inf).values(plain.manifests[0]) == []


def test_where_nothing_is_decoded_no_model_listens(manifest: Path) -> None:
    def shortfall(utterance: Utterance, text: str) -> float:
        raise AssertionError("headers were to be read only")

    rules = replace(RULES, shortfall=shortfall, max_shortfall=0.5)
    assert examine([manifest], rules, headers_only=True).findings == (
        examine([manifest], RULES, headers_only=True).findings
    )


def examined(shortfalls: list[float | None]) -> list[Examined]:
    utterance = Utterance(Path("a.wav"), "a", 1.0, "a", manifest=Path("m"))
    return [
        Examined(replace(utterance, line=line), "a", None, 1.0, 25, 1, shortfall)
        for line, shortfall in enumerate(shortfalls, start=1)
    ]


@pytest.mark.parametrize(
    ("shortfalls", "lines"),
    [
        pytest.param([0.0] * 25 + [0.69, 0.71], [27], id="a good model"),
        # Median 0.6, median deviation 0.1: 0.6 + 3 * 0.14826 = 1.04.
        pytest.param([0.5, 0.6, 0.7] * 10 + [1.04, 1.05, None], [32], id="one that hears little"),
        pytest.param([2.0] * 25 + [1.4, 1.41], [*range(1, 26), 27], id="wrong texts everywhere"),
        pytest.param([0.9] * 18 + [0.5], [*range(1, 19)], id="too few to compare"),
        pytest.param([None] * 30, [], id="nothing heard"),
    ],
)
def test_the_limit_by_hand(shortfalls: list[float | None], lines: list[int]) -> None:
    assert [finding.line for finding in find_misfits(examined(shortfalls), 0.7)] == lines
