"""asr transcribe --format manifest: what was recognised surely enough, to be learnt from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from asr.cli.main import main
from asr.pseudo_labels import PseudoLabels
from asr.transcriber import Transcriber
from asr.transcript import Segment, Transcript
from asr.word import Word
from tests.cli.conftest import RATE, tones

Fails = Callable[..., str]


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What `asr transcribe` says of how much it kept."""
    capsys.readouterr()
    assert main(["transcribe", "--format", "manifest", *arguments]) == 0
    return capsys.readouterr().err.splitlines()[-1].removeprefix("asr: ")


@pytest.fixture
def call(tmp_path: Path) -> Path:
    """`c a` on the left, `abc` on the right, of a length that no millisecond ends at."""
    left, right = tones("c a"), tones("abc")
    path = tmp_path / "calls" / "call.wav"
    path.parent.mkdir()
    ending = np.zeros((7, 2), np.float32)
    soundfile.write(path, np.concatenate([np.stack([left, right], axis=1), ending]), RATE)
    return path


def test_what_is_transcribed_and_prepared_are_the_same_texts(
    model_file: Path, call: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "pseudo.jsonl"
    speakers = ["--channel", "each", "--speaker", "Anna", "--speaker", "Bert"]
    summary = told(
        capsys, "--model", str(model_file), *speakers, "--output", str(output), str(call.parent)
    )
    assert summary == "kept 2 of 2 segments, 1.0 s of 1.0 s, with a confidence of at least 0"
    written = rows(output)
    assert [each["text"] for each in written] == ["c a", "abc"]
    assert [each["audio_filepath"] for each in written] == ["calls/call.wav"] * 2
    assert [each["channel"] for each in written] == [0, 1]
    assert [each["speaker"] for each in written] == ["Anna", "Bert"]
    assert all(0.3 < each["confidence"] <= 1 for each in written)
    assert all(each.get("offset", 0) + each["duration"] == 0.481 for each in written)
    corpus = ["corpus=manifest", "corpus.name=p", "corpus.sample_rate=8000"]
    data = tmp_path / "data"
    assert main(["prepare", *corpus, f"corpus.train={output}", f"paths.data_dir={data}"]) == 0
    prepared = rows(data / "p" / "train.jsonl")
    for name in ("text", "speaker", "confidence"):
        assert [each[name] for each in prepared] == [each[name] for each in written]
    transcriber = Transcriber.load(model_file)
    heard = [transcriber.transcribe(data / "p" / each["audio_filepath"]).text for each in prepared]
    assert heard == ["c a", "abc"]


def test_a_segment_at_the_beginning_is_no_whole_file(
    model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two seconds of silence follow: prepare takes a line without an offset for all of a file."""
    audio, output = tmp_path / "a.wav", tmp_path / "pseudo.jsonl"
    soundfile.write(audio, np.concatenate([tones("abc"), np.zeros(2 * RATE, np.float32)]), RATE)
    told(capsys, "--model", str(model_file), "--output", str(output), str(audio))
    (row,) = rows(output)
    assert (row["offset"], row["text"]) == (0.001, "abc")
    assert row["duration"] < 2
    data = tmp_path / "data"
    corpus = ["corpus=manifest", "corpus.name=p", "corpus.sample_rate=8000"]
    assert main(["prepare", *corpus, f"corpus.train={output}", f"paths.data_dir={data}"]) == 0
    (prepared,) = rows(data / "p" / "train.jsonl")
    assert prepared["text"] == "abc"


def test_segments_below_the_confidence_are_left_out(
    model_file: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], fails: Fails
) -> None:
    output = tmp_path / "pseudo.jsonl"
    clips = [str(path) for path in sorted(corpus.parent.glob("*.wav"))]
    arguments = ["--model", str(model_file), *clips, "--output", str(output)]
    told(capsys, *arguments)
    confidences = sorted(each["confidence"] for each in rows(output))
    assert len(confidences) == 12
    middle = str((confidences[5] + confidences[6]) / 2)
    summary = told(capsys, *arguments, "--min-confidence", middle)
    assert sorted(each["confidence"] for each in rows(output)) == confidences[6:]
    assert summary.startswith("kept 6 of 12 segments, ")
    before = output.read_text()
    line = fails("transcribe", "--format", "manifest", *arguments, "--min-confidence", "1")
    assert line == (
        "none of 12 segments has a confidence of at least 1, so there is no manifest; the surest "
        f"has {confidences[-1]:g}"
    )
    assert output.read_text() == before


def test_a_manifest_on_the_terminal_has_absolute_paths(
    model_file: Path,
    call: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(call.parent)
    capsys.readouterr()
    arguments = ["--format", "manifest", "--channel", "each", call.name]
    assert main(["transcribe", "--model", str(model_file), *arguments]) == 0
    written = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["audio_filepath"] for each in written] == [str(call)] * 2
    assert not any("speaker" in each for each in written)  # channel 0 of two calls is not one voice


def test_a_segment_is_as_sure_as_its_least_sure_word() -> None:
    words = (Word("a", 0.0, 0.5, 0.9), Word("b", 0.5, 1.0, 0.6))
    other = Segment(3600.0, 9000.0, (Word("c", 3600.0, 3601.0, 0.8),))
    transcript = Transcript((Segment(0.0, 3600.0, words), other), 9000.0)
    labels = PseudoLabels(0.7, has_speakers=False)
    (line,) = labels.manifest("x.wav", transcript, Path("m.jsonl")).splitlines()
    assert json.loads(line) == {
        "audio_filepath": "x.wav", "duration": 5400.0, "text": "c", "id": "x.wav@3600.0",
        "offset": 3600.0, "confidence": 0.8,
    }  # fmt: skip
    summary = labels.summary()
    assert summary.startswith("kept 1 of 2 segments, 1.50 h of 2.50 h")
    with pytest.raises(ValueError, match="no words were recognised"):
        PseudoLabels(0.5, has_speakers=False).summary()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("--min-confidence 0.9", "--min-confidence has no effect with --format text, expected man"),
        ("--format manifest --min-confidence 9", "--min-confidence 9, expected 0 to 1"),
        ("--format manifest --output-dir {folder}", "--format manifest with --output-dir, expect"),
        ("--format manifest --output {folder}/x.txt", "expected a name in .jsonl for a manifest"),
        ("--format manifest {file}", " is given 2 times, expected each recording once"),
        ("--format manifest -", "standard input has no path for a manifest, expected files"),
        ("--format manifest --n-best 2", "--n-best has no effect with --format manifest"),
    ],
)
def test_what_makes_no_manifest_is_one_line(
    model_file: Path, call: Path, arguments: str, expected: str, fails: Fails
) -> None:
    words = arguments.format(folder=call.parent, file=call).split()
    assert expected in fails("transcribe", "--model", str(model_file), str(call), *words)
