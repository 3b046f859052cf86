"""LibriSpeech: subsets, speakers, chapters."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from asr.data.corpora.librispeech import LibriSpeech
from tests.data.corpora.conftest import Made


def test_subsets_are_splits(made: Made) -> None:
    for subset, speaker in (
        ("train-clean-5", 1),
        ("train-other-5", 2),
        ("dev-clean", 3),
        ("test-other", 4),
    ):
        made.audio(
            f"{subset}/{speaker}/9/{speaker}-9-0.flac", f"{subset}/{speaker}/9/{speaker}-9-1.wav"
        )
        made.text(
            f"{subset}/{speaker}/9/{speaker}-9.trans.txt",
            f"{speaker}-9-0 YES SIR\r\n{speaker}-9-1 YES\r\n",
        )
    made.text("SPEAKERS.TXT", "1 | F |")
    corpus = made.prepare(LibriSpeech())
    assert [(each.name, each.utterances, each.speakers) for each in corpus.splits] == [
        ("train", 4, 2), ("dev", 2, 1), ("test", 2, 1),
    ]  # fmt: skip
    assert made.texts("dev") == {"3-9-0": "yes sir", "3-9-1": "yes"}
    assert made.written()["2-9-0"].speaker == "2"
    assert all("train has" in note for note in corpus.notes)


def test_faults_are_named_by_line(made: Made) -> None:
    made.audio(
        "1/9/1-9-0.flac", "1/9/1-9-1.flac", "1/9/silent.flac", "1/9/silent2.flac", "1/9/sub/é.flac"
    )
    texts = made.text(
        "1/9/1-9.trans.txt",
        "1-9-0 YES\n1-9-1\n1-9-7 YES\n../../x YES\nsub/e\u0301 YES\n".encode("utf-8-sig"),
    )
    with pytest.raises(ValueError, match=re.escape(f"{texts}:2: '1-9-1', expected an id and its")):
        made.prepare(LibriSpeech())
    made.prepare(LibriSpeech(), skip_bad=True)
    assert made.texts() == {"1-9-0": "yes", "sub/e\u0301": "yes"}
    assert made.rejected()[1].startswith("'../../x' leads out of the corpus")
    assert made.rejected()[2].endswith("1-9-7.flac: no such file, expected audio")


def test_recordings_without_texts_are_counted(made: Made) -> None:
    made.audio("1/9/1-9-0.flac", "1/9/1-9-1.flac")
    made.text("1/9/1-9.trans.txt", "1-9-0 YES\n")
    assert "1 recordings have no text and were passed over." in made.prepare(LibriSpeech()).notes
    (made.source / "1/9/1-9.trans.txt").unlink()
    with pytest.raises(ValueError, match=r"holds no \*\.trans\.txt"):
        made.prepare(LibriSpeech())


def test_the_copy_of_a_subset(speech_cases: Path, made: Made) -> None:
    made.prepare(LibriSpeech(), source=speech_cases / "import-formats" / "ls")
    assert made.texts()["84-121123-0001"] == "the twenties"
    assert made.written()["84-121123-0001"].speaker == "84"
