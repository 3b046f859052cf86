"""asr align: times that are known, formats, texts that do not fit, and what fails alone."""

from __future__ import annotations

import io
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from asr.cli.main import main
from tests.report.textgrids import read_textgrid

Fails = Callable[..., str]
LETTER_S, FRAME_S = 0.16, 0.02  # of the tone corpus and its model
VALIDATOR = Path("/usr/lib/sctk/bin/ctmValidator.pl")


def run(capsys: pytest.CaptureFixture[str], *arguments: object, status: int = 0) -> str:
    capsys.readouterr()
    assert main(["align", *map(str, arguments)]) == status
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


@pytest.fixture
def clip(corpus: Path) -> str:
    """A recording that says `c a`."""
    return str(corpus.parent / "02.wav")


def near(start: float, end: float, place: int) -> bool:
    """Whether a letter is written while its tone is heard, but for two output frames.

    When within the tone is up to the path: CTC leaves the rest of it to the blank.
    """
    margin = 2 * FRAME_S + 1e-6
    return place * LETTER_S - margin <= start < end <= (place + 1) * LETTER_S + margin


def test_letters_are_where_their_tones_are(
    corpus: Path, model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    formats = "ctm,json,textgrid,srt,vtt"
    run(capsys, "--model", model_file, "--manifest", corpus, "--output", out, "--format", formats)
    rows = [json.loads(line) for line in (out / "alignments.jsonl").read_text().splitlines()]
    texts = [json.loads(line)["text"] for line in corpus.read_text().splitlines()]
    assert [row["normalized_text"] for row in rows] == texts
    letters = 0
    for row in rows:
        assert row["fits"]
        text = row["text"]
        places = [place for place, letter in enumerate(text) if letter != " "]
        found = [c for word in row["words"] for c in word["characters"]]
        for place, character in zip(places, found, strict=True):
            assert character["character"] == text[place]
            assert near(character["start"], character["end"], place), (text, character)
            letters += 1
        assert [word["word"] for word in row["words"]] == text.split()
        grid = read_textgrid((out / f"{row['id'][:-4]}.TextGrid").read_text(encoding="utf-8"))
        assert grid.duration == row["duration"] == pytest.approx(len(text) * LETTER_S)
        assert [interval for interval in grid.tiers["words"] if interval[2]] == [
            (word["start"], word["end"], word["word"]) for word in row["words"]
        ]
        assert [interval for interval in grid.tiers["characters"] if interval[2]] == [
            (each["start"], each["end"], each["character"]) for each in found
        ]
        assert (out / f"{row['id'][:-4]}.srt").read_text().splitlines()[2] == text
        assert (out / f"{row['id'][:-4]}.vtt").read_text().splitlines()[3] == text
    assert letters == sum(len(text.replace(" ", "")) for text in texts)
    assert len(list(out.iterdir())) == 2 + 3 * len(texts)
    ctm = (out / "alignments.ctm").read_text().splitlines()
    assert len(ctm) == sum(len(text.split()) for text in texts)
    if VALIDATOR.is_file():
        checked = subprocess.run(
            ["perl", VALIDATOR, "-i", out / "alignments.ctm"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert checked.stdout.startswith("Validated"), checked.stdout


def test_one_recording_on_the_terminal(
    model_file: Path, clip: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    lines = [
        line.split() for line in run(capsys, "--model", model_file, clip, "C", "a!").split("\n")
    ]
    assert [line[:2] + line[4:5] for line in lines[:-1]] == [["02", "1", "c"], ["02", "1", "a"]]
    for line, place in zip(lines, (0, 2), strict=False):
        assert near(float(line[2]), float(line[2]) + float(line[3]), place)
        assert 0.5 < float(line[5]) <= 1
    assert lines[-1] == []
    text = tmp_path / "text.txt"
    text.write_text("\ufeffC\n a!\n", encoding="utf-8")
    ctm = run(capsys, "--model", model_file, clip, "--text-file", text)
    assert ctm == run(capsys, clip, "--model", model_file, "C", "a!")

    class Stdin:
        buffer = io.BytesIO(Path(clip).read_bytes())

    monkeypatch.setattr("sys.stdin", Stdin())
    assert run(capsys, "--model", model_file, "-", "c a") == ctm.replace("02 ", "stdin ")


def test_json_keeps_the_words_as_written(
    model_file: Path, clip: str, capsys: pytest.CaptureFixture[str]
) -> None:
    row = json.loads(run(capsys, "--model", model_file, "--format", "json", clip, "C, A!"))
    assert (row["text"], row["normalized_text"]) == ("C, A!", "c a")
    assert [word["original"] for word in row["words"]] == ["C,", "A!"]
    assert row["duration"] == 0.48
    assert 0.5 < row["confidence"] <= 1


def test_a_text_that_is_not_said_is_told(
    model_file: Path, clip: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["align", "--model", str(model_file), clip, "bcb"]) == 0
    captured = capsys.readouterr()
    assert captured.err.startswith(
        f"asr: note: {clip}: the text likely does not fit the audio: its path is "
    )
    assert captured.err.endswith(" nats a frame behind the model's own, expected at most 0.7\n")
    assert captured.out.startswith("02 1 ")


def test_a_confidence_that_is_asked_for(
    model_file: Path, clip: str, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["align", "--model", str(model_file), "--min-confidence", "0.3", clip]
    assert main([*asked, "c a"]) == 0
    assert capsys.readouterr().err == ""
    assert main([*asked, "bcb"]) == 1
    captured = capsys.readouterr()
    assert captured.out.startswith("02 1 ")  # written all the same
    line = captured.err.splitlines()[-1]
    assert line.startswith(f"asr: {clip}: confidence 0.")
    assert line.endswith(", expected at least 0.3")


def test_what_fails_fails_alone(
    corpus: Path, model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    audio = str(corpus.parent / "02.wav")
    (tmp_path / "broken.wav").write_text("no audio")
    rows: list[dict[str, Any] | str] = [
        {"audio_filepath": "broken.wav", "text": "c a"},
        {"audio_filepath": audio, "text": "xyz", "id": "unknown"},
        {"audio_filepath": audio, "text": "abc" * 20, "id": "long"},
        {"audio_filepath": audio, "text": "c a", "id": "good/1"},
        "{no JSON",
        {"audio_filepath": audio, "text": "a", "id": "part", "offset": 0.32, "duration": 0.16},
    ]
    manifest = tmp_path / "m.jsonl"
    manifest.write_text("".join(f"{r if isinstance(r, str) else json.dumps(r)}\n" for r in rows))
    status = main(["align", "--model", str(model_file), "--manifest", str(manifest)])
    captured = capsys.readouterr()
    assert status == 2
    names = [line.split()[0] for line in captured.out.splitlines()]
    assert names == ["good_1", "good_1", "part"]
    lines = captured.err.splitlines()
    assert lines[0].startswith(f"asr: error: {manifest}:5: bad JSON")
    assert lines[1].startswith(f"asr: error: {tmp_path / 'broken.wav'}: cannot be read as audio")
    assert lines[2].startswith("asr: error: unknown: character 'x'")
    assert lines[3].startswith("asr: error: long: text: 24 output frames, expected at least 60")
    assert lines[-1] == "asr: 4 of 6 utterances failed"
    start = float(captured.out.splitlines()[2].split()[2])
    assert start < 0.16  # counted from the offset


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.wav", "x", "--format", "praat"], "--format 'praat', expected some of ctm, json, "),
        (["a.wav", "x", "--format", "ctm,json"], "--format ctm,json needs --output, a folder"),
        (["--manifest", "m.jsonl", "--format", "srt"], "--format srt of a manifest needs --output"),
        (["--manifest", "m.jsonl", "a.wav"], "--manifest and AUDIO or --text-file, expected one"),
        ([], "no recording, expected AUDIO TEXT... or --manifest"),
        (["a.wav"], "expected either TEXT... or --text-file"),
        (["a.wav", "x", "--text-file", "y"], "expected either TEXT... or --text-file"),
        (["a.wav", "x", "--min-confidence", "2"], "--min-confidence 2, expected 0 to 1"),
        (["a.wav", "--text-file", "gone.txt"], "gone.txt: No such file or directory"),
    ],
)
def test_mistakes_in_the_call(arguments: list[str], message: str, fails: Fails) -> None:
    assert message in fails("align", "--model", "none.safetensors", *arguments)


def test_ids_that_would_share_a_file(tmp_path: Path, fails: Fails) -> None:
    manifest = tmp_path / "m.jsonl"
    rows = [{"audio_filepath": "a.wav", "text": "a", "id": name} for name in ("a/b", "a.b")]
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    line = fails("align", "--model", "none.safetensors", "--manifest", str(manifest))
    assert line.startswith("ids 'a/b' and 'a.b' would both be written as 'a_b', expected ids that ")


def test_a_text_file_that_is_no_text(tmp_path: Path, fails: Fails) -> None:
    path = tmp_path / "t.txt"
    path.write_bytes(b"ab\xff")
    line = fails("align", "--model", "none.safetensors", "a.wav", "--text-file", str(path))
    assert line == f"{path}: not UTF-8 at byte 2, expected text"
