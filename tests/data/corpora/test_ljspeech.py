"""LJ Speech: three columns without header, and copies that were edited."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from asr.data.corpora.ljspeech import LjSpeech
from tests.data.corpora.conftest import Made


def test_the_normalised_text_of_each_recording(made: Made) -> None:
    made.audio("wavs/LJ-1.wav", "wavs/LJ-2.flac", "wavs/sub/3.wav", "wavs/4.wav")
    lines = ["LJ-1|It is 5.|it is five.", 'LJ-2|"Yes"', "sub/3|yes|", "4.wav|Dr. No|doctor no"]
    made.text("metadata.csv", "\r\n".join(lines).encode("utf-8-sig"))
    corpus = made.prepare(LjSpeech(), dev_fraction=0.25)
    assert {**made.texts(), **made.texts("dev")} == {
        "LJ-1": "it is five", "LJ-2": "yes", "sub/3": "yes", "4": "doctor no",
    }  # fmt: skip
    assert "as no speaker is named: error rates are those of known voices." in corpus.notes[0]


def test_faults_are_named_by_line(made: Made) -> None:
    made.audio("wavs/a.wav", "wavs/b.wav")
    table = made.text("metadata.csv", "a|yes|yes\nlost|x|x\nb||\nno bars\na|b|c|d\na|yes|yes\n")
    with pytest.raises(ValueError, match=re.escape(f"{table}:4: 'no bars', expected id|text|")):
        made.prepare(LjSpeech())
    made.prepare(LjSpeech(), skip_bad=True)
    assert made.texts() == {"a": "yes"}
    assert made.rejected()[2] == "id 'a' is that of line 1 already"
    table.unlink()
    with pytest.raises(ValueError, match=r"holds no metadata\.csv"):
        made.prepare(LjSpeech())


def test_the_copy_of_the_corpus(speech_cases: Path, made: Made) -> None:
    made.prepare(LjSpeech(), source=speech_cases / "import-formats" / "lj")
    assert made.texts()["LJ001-0002"] == "to pickle eggs"
    assert len(made.texts()) == 12
