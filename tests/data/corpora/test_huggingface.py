"""Audiofolders of Hugging Face: a table in each split's folder, or one above all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from asr.data.corpora.huggingface import HuggingFace
from tests.data.corpora.conftest import Made


def test_a_table_in_each_folder(made: Made) -> None:
    for folder in ("train", "validation", "test"):
        made.audio(f"{folder}/a.mp3", f"{folder}/sub/b.wav")
    made.text("train/metadata.csv", 'file_name,transcription,speaker_id\r\na.mp3,"Yes, sir",7\r\n')
    made.text(
        "validation/metadata.jsonl", json.dumps({"file_name": "sub/b.wav", "sentence": "yes"})
    )
    made.text("test/metadata.csv", "\ufefffile_name;text\na.mp3;yes\n")
    made.prepare(HuggingFace())
    assert made.texts() == {"train/a.mp3": "yes sir"}
    assert made.written()["train/a.mp3"].speaker == "7"
    assert made.texts("dev") == {"validation/sub/b.wav": "yes"}
    assert made.texts("test") == {"test/a.mp3": "yes"}


def test_one_table_above_all(made: Made) -> None:
    made.audio("train/a.wav", "test/b.wav", "c.wav")
    made.text("metadata.csv", "file_name,text\ntrain/a.wav,yes\ntest/b.wav,yes\nc.wav,yes\n")
    made.prepare(HuggingFace())
    assert list(made.texts()) == ["train/a.wav", "c.wav"]
    assert list(made.texts("test")) == ["test/b.wav"]


def test_faults_are_named_by_line(made: Made) -> None:
    made.audio("a.wav", "e\u0301.wav")
    rows = [{"file_name": "a.wav", "text": "yes"}, {"file_name": "lost.wav", "text": "yes"},
            {"file_name": "a.wav"}, {"file_name": "../a.wav", "text": "x"}, {"text": "x"},
            {"file_name": "\u00e9.wav", "text": "yes"}]  # fmt: skip
    table = made.text("metadata.jsonl", "\n".join(map(json.dumps, rows)) + "\n{")
    with pytest.raises(ValueError, match=f"{table}:3: text is missing, expected a text"):
        made.prepare(HuggingFace())
    made.prepare(HuggingFace(), skip_bad=True)
    assert set(made.texts().values()) == {"yes"}
    assert len(made.texts()) == 2
    assert made.rejected()[1].startswith("'../a.wav' leads out of the corpus")


def test_parquet_has_to_be_exported(made: Made) -> None:
    made.text("data/train-0000.parquet", "PAR1")
    with pytest.raises(ValueError, match=r"train-0000\.parquet has to be exported as files first"):
        made.prepare(HuggingFace())


def test_the_copy_of_a_dataset(speech_cases: Path, made: Made) -> None:
    made.prepare(HuggingFace(), source=speech_cases / "import-formats" / "hf")
    assert made.texts()["train/0001.mp3"] == "the twenties"
