"""Why a training does not learn: advice by hand-made curves, and the loudest utterances."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from asr.trainer.diagnosis import Loud, Point, Worst, advise, write_worst

FINE = Point(train_loss=1.0, dev_loss=1.0, cer=0.3, blank_share=0.7, clipped_share=0.1)


def curve(train: list[float], dev: list[float], **other: float) -> list[Point]:
    return [
        replace(FINE, train_loss=t, dev_loss=d, **other) for t, d in zip(train, dev, strict=True)
    ]


@pytest.mark.parametrize(
    ("points", "words"),
    [
        (curve([3, 2, 1], [3, 2.5, 2]), None),
        (curve([3, 2, 1, 0.5], [3, 2, 2.2, 2.3]), None),  # risen for two only
        (curve([3, 2, 1, 0.5, 0.3], [3, 2, 2.2, 2.3, 2.4]), "it learns by heart"),
        (curve([3, 2, 1.8, 1.8, 1.8], [3, 2, 2, 2, 2]), "neither loss has moved by 1 %"),
        (curve([3, 2, 1.8, 1.8, 1.8], [3, 2, 2, 2, 2], clipped_share=0.97), "are clipped and"),
        (curve([3, 2, 1], [3, 2, 1], clipped_share=1.0), None),  # clipped, and learning
        (curve([3, 2.9, 2.8], [3, 2.9, 2.8], blank_share=1.0, cer=1.0), "are blank and CER"),
        (curve([3, 2.9, 2.8], [3, 2.9, 2.8], blank_share=1.0, cer=0.5), None),
        (curve([3, 3], [3, 3]), None),  # too early to say
        ([], None),
    ],
)
def test_advice(points: list[Point], words: str | None) -> None:
    advice = advise(points)
    if words is None:
        assert advice is None
    else:
        assert advice is not None
        assert words in advice
        assert "try" in advice


def test_the_loudest_are_kept() -> None:
    worst = Worst(3)
    for number in range(10):
        worst.add([(f"u{number}", float((7 * number) % 10)), (f"v{number}", -1.0)])
    assert worst.take() == [("u7", 9.0), ("u4", 8.0), ("u1", 7.0)]
    assert worst.take() == []


def test_none_are_kept_where_none_are_asked_for() -> None:
    worst = Worst(0)
    worst.add([("u", 1.0)])
    assert worst.take() == []


def test_they_are_written_as_json_lines(tmp_path: Path) -> None:
    loud = [Loud("é/1", "a.wav", 7.5, "ab", "cd"), Loud("2", "b.wav", 7.25, "b")]
    write_worst(tmp_path / "worst.jsonl", loud)
    first, second = (tmp_path / "worst.jsonl").read_text().splitlines()
    assert json.loads(first) == {
        "id": "é/1", "audio": "a.wav", "loss": 7.5, "reference": "ab", "hypothesis": "cd",
    }  # fmt: skip
    assert json.loads(second)["hypothesis"] == ""
