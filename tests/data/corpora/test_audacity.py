"""Label tracks of Audacity: each label is an utterance of its recording."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from asr.data.corpora.audacity import Audacity
from tests.data.corpora.conftest import Made


def test_labels_are_utterances(made: Made) -> None:
    made.audio("ada/talk.wav", "bob/talk.flac", seconds=2.0)
    made.text("ada/talk.txt", "0.000000\t0.500000\tYes, sir.\n\\\t100.0\t2000.0\n0.5\t1.25\tyes\n")
    made.text("bob/labels.txt", "0,25\t0,75\tyes\r\n".encode("utf-8-sig"))
    corpus = made.prepare(Audacity())
    assert {n: (u.text, u.duration, u.speaker) for n, u in made.written().items()} == {
        "ada/talk.wav": ("yes sir", 0.5, "ada"),
        "ada/talk.wav@0.5": ("yes", 0.75, "ada"),
        "bob/talk.flac@0.25": ("yes", 0.5, "bob"),
    }
    assert "1 labels have a comma for the decimal point." in corpus.notes


def test_one_label_at_the_beginning_is_a_part(made: Made) -> None:
    made.audio("talk.wav", seconds=2.0)
    made.text("talk.txt", "0.0\t0.5\tyes\n")
    assert made.prepare(Audacity()).splits[0].seconds == 0.5


def test_faults_are_named_by_line(made: Made) -> None:
    made.audio("a.wav", "b.wav", seconds=1.0)
    track = made.text(
        "a.txt",
        "0\t0.5\tyes\n0.5\t0.5\tpoint\n0.5 0.7 spaces\n0.9\t0.8\tx\n0.6\t0.7\t\n0.5\t9\tlong\n",
    )
    with pytest.raises(ValueError, match=re.escape(f"{track}:2: label from 0.5 to 0.5 s")):
        made.prepare(Audacity())
    made.prepare(Audacity(), skip_bad=True)
    assert list(made.texts().values()) == ["yes"]
    reasons = made.rejected()
    assert reasons[1].startswith("'0.5 0.7 spaces\\t\\t', expected start, end and text")
    assert reasons[3] == "no label track, expected b.txt beside it"
    assert reasons[5].startswith("audio lasts 0.500 s, expected 8.500 s")


def test_the_track_beside_the_only_recording(speech_cases: Path, made: Made) -> None:
    made.prepare(Audacity(), source=speech_cases / "import-formats" / "kaldi")
    assert list(made.texts().values())[:3] == ["lectures", "the twenties", "to pickle eggs"]
