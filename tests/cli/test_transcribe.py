"""asr transcribe: formats, inputs, and files that fail while others succeed."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import soundfile
import torch

from asr.audio import load_audio
from asr.cli.main import main
from asr.cli.options import attempt
from asr.metrics.calibration import Calibration
from asr.recognizer import Recognizer, Waveform
from asr.report.evaluation_file import write_calibration

Fails = Callable[..., str]


def run(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> str:
    capsys.readouterr()
    assert main(["transcribe", *arguments]) == status
    return capsys.readouterr().out


@pytest.fixture
def clip(corpus: Path) -> str:
    """A recording that says `c a`."""
    return str(corpus.parent / "02.wav")


def test_text_is_a_line_a_file(
    model_file: Path, clip: str, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = str(corpus.parent / "03.wav")
    output = run(capsys, "--model", str(model_file), clip, other)
    assert output == f"{clip}\tc a\n{other}\tabc\n"


def test_a_runs_folder_stands_for_its_best_model(
    model_file: Path, clip: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], fails: Fails
) -> None:
    shutil.copy(model_file, tmp_path / "best.safetensors")
    assert run(capsys, "--model", str(tmp_path), clip) == f"{clip}\tc a\n"
    line = fails("transcribe", "--model", str(tmp_path.parent), clip)
    assert line == f"{tmp_path.parent}: is a folder, expected a model file"


def test_json_has_text_and_words_in_order(
    model_file: Path, clip: str, capsys: pytest.CaptureFixture[str]
) -> None:
    row = json.loads(run(capsys, "--model", str(model_file), "--format", "json", clip))
    assert list(row) == ["audio_filepath", "duration", "text", "segments", "words"]
    assert row["segments"] == [{"start": 0.0, "end": 0.48, "text": "c a"}]
    assert row["duration"] == 0.48
    assert row["audio_filepath"] == clip
    assert row["text"] == "c a"
    first, second = row["words"]
    assert (first["word"], second["word"]) == ("c", "a")
    # Letters last 0.16 s: c from 0, a from 0.32 s; the CTC path is exact to a few frames.
    assert 0 <= first["start"] < first["end"] <= second["start"] < second["end"] <= 0.48
    assert second["start"] == pytest.approx(0.32, abs=0.12)
    assert 0.5 < first["confidence"] <= 1


def test_confidences_are_calibrated_where_asked(
    model_file: Path, clip: str, tmp_path: Path, fails: Fails, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "calibration.json"
    calibration = Calibration(slope=0.5, offset=-3.0)
    write_calibration(file, calibration)
    arguments = ["--model", str(model_file), "--format", "json"]
    rows = [
        json.loads(run(capsys, *arguments, *more, clip))
        for more in ([], ["--calibration", str(file)])
    ]
    for plain, calibrated in zip(*(row["words"] for row in rows), strict=True):
        expected = calibration.apply(plain["confidence"])
        assert calibrated["confidence"] == pytest.approx(expected, abs=0.01)  # of four digits
    line = fails("transcribe", "--model", str(model_file), "--calibration", str(file), clip)
    assert (
        line
        == "--calibration has no effect with --format text, expected json, which holds confidences"
    )


def test_subtitles(model_file: Path, clip: str, capsys: pytest.CaptureFixture[str]) -> None:
    srt = run(capsys, "--model", str(model_file), "--format", "srt", clip).splitlines()
    assert srt[0] == "1"
    assert " --> " in srt[1]
    assert "," in srt[1]
    assert srt[2] == "c a"
    vtt = run(capsys, "--model", str(model_file), "--format", "vtt", clip).splitlines()
    assert vtt[0] == "WEBVTT"
    assert vtt[3] == "c a"


def test_a_folder_and_an_output_dir(
    model_file: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = str(corpus.parent), tmp_path / "out"
    printed = run(
        capsys, "--model", str(model_file), "--format", "srt", "--output-dir", str(out), folder
    )
    assert printed == ""
    assert len(list(out.glob("*.srt"))) == 12
    assert (out / "02.srt").read_text().splitlines()[2] == "c a"


def test_standard_input(
    model_file: Path,
    clip: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Stdin:
        buffer = io.BytesIO(Path(clip).read_bytes())

    monkeypatch.setattr("sys.stdin", Stdin())
    assert run(capsys, "--model", str(model_file), "-") == "-\tc a\n"


def test_a_broken_file_fails_alone(
    model_file: Path, clip: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken, empty = tmp_path / "broken.wav", tmp_path / "empty.wav"
    broken.write_text("no audio")
    empty.touch()
    inputs = [str(broken), clip, str(empty), str(tmp_path / "missing.wav")]
    status = main(["transcribe", "--model", str(model_file), *inputs])
    captured = capsys.readouterr()
    assert status == 2
    assert captured.out == f"{clip}\tc a\n"
    lines = captured.err.splitlines()
    assert lines[0].startswith(f"asr: error: {broken}: cannot be read as audio")
    assert lines[1] == f"asr: error: {empty}: empty file, expected audio"
    assert lines[2] == f"asr: error: {tmp_path / 'missing.wav'}: No such file or directory"
    assert lines[3] == "asr: 3 of 4 files failed"


def test_a_model_file_of_another_version(
    model_file: Path, clip: str, tmp_path: Path, fails: Fails
) -> None:
    with safetensors.safe_open(model_file, framework="pt") as file:
        header = json.loads(file.metadata()["asr"])
    future = tmp_path / "future.safetensors"
    safetensors.torch.save_file(
        safetensors.torch.load_file(model_file),
        future,
        {"asr": json.dumps(header | {"format_version": 99})},
    )
    line = fails("transcribe", "--model", str(future), clip)
    assert line.startswith(f"{future}: model format version 99, expected 1")


def test_a_model_that_is_no_model(clip: str, fails: Fails) -> None:
    assert "not a model file" in fails("transcribe", "--model", clip, clip)


def test_what_is_passed_over_in_a_folder_is_named(
    model_file: Path, clip: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.wav", "._a.wav"):
        shutil.copy(clip, tmp_path / name)
    for number in range(7):
        (tmp_path / f"notes{number}.txt").touch()
    assert main(["transcribe", "--model", str(model_file), str(tmp_path)]) == 0
    output = capsys.readouterr()
    assert output.out == f"{tmp_path}/a.wav\tc a\n"
    named = ", ".join(f"{tmp_path}/notes{number}.txt" for number in range(5))
    assert f"note: 7 files that are no audio passed over: {named}, ...\n" in output.err


def test_a_folder_without_audio(model_file: Path, tmp_path: Path, fails: Fails) -> None:
    assert "no audio files" in fails("transcribe", "--model", str(model_file), str(tmp_path))


def test_subtitles_of_several_files_need_a_folder(
    model_file: Path, clip: str, fails: Fails
) -> None:
    line = fails("transcribe", "--model", str(model_file), "--format", "srt", clip, clip)
    assert "needs --output-dir" in line


def test_outputs_of_equal_name_are_refused(
    model_file: Path, clip: str, tmp_path: Path, fails: Fails
) -> None:
    copy = tmp_path / Path(clip).name
    shutil.copy(clip, copy)
    line = fails(
        "transcribe", "--model", str(model_file), "--output-dir", str(tmp_path), clip, str(copy)
    )
    assert "would be written to one file" in line


def test_an_unknown_device(model_file: Path, clip: str, fails: Fails) -> None:
    line = fails("transcribe", "--model", str(model_file), "--device", "abacus", clip)
    assert line == "device 'abacus' is not available on this machine"


def test_one_output_that_cannot_be_written_fails_alone(
    model_file: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = tmp_path / f"{'n' * 251}.wav"  # its .txt fits, its .json does not
    shutil.copy(corpus.parent / "02.wav", long)
    clips = [str(corpus.parent / "01.wav"), str(long), str(corpus.parent / "03.wav")]
    out = tmp_path / "out"
    (out / "01.json").mkdir(parents=True)
    arguments = ["--model", str(model_file), "--format", "json", "--output-dir", str(out)]
    assert main(["transcribe", *arguments, *clips]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    told = sorted(lines[:2])  # as they are done
    assert told[0].startswith(f"asr: error: {out / '01.json'}: cannot be written")
    assert told[1].startswith(f"asr: error: {out / long.stem}.json: cannot be written")
    assert lines[2] == "asr: 2 of 3 files failed"
    assert json.loads((out / "03.json").read_text())["text"] == "abc"


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 7 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 7 GiB"),
    ],
)
def test_memory_that_runs_out_is_one_files_fault(
    error: Exception,
    model_file: Path,
    corpus: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    clips = [str(corpus.parent / f"{name}.wav") for name in ("01", "02", "06")]
    log_probs = Recognizer.log_probs
    bad = len(load_audio(clips[1], 8000))

    def fails_with(self: Recognizer, waveforms: Sequence[Waveform], **options: Any) -> Any:
        if bad in map(len, waveforms):
            raise error
        return log_probs(self, waveforms, **options)

    assert all(len(load_audio(clip, 8000)) != bad for clip in (clips[0], clips[2]))
    monkeypatch.setattr(Recognizer, "log_probs", fails_with)
    assert main(["transcribe", "--model", str(model_file), *clips]) == 2
    captured = capsys.readouterr()
    assert captured.out == f"{clips[0]}\tba\n{clips[2]}\tac\n"
    assert captured.err.splitlines() == [
        f"asr: error: {clips[1]}: memory ran out, expected a shorter recording, or more memory",
        "asr: 1 of 3 files failed",
    ]


def test_other_faults_are_no_files_fault() -> None:
    def broken() -> None:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        attempt(broken, "a.wav")


def test_a_recording_that_memory_does_not_hold(
    model_file: Path, clip: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("asr.recognizer.available_memory", lambda: 10_000_000)
    assert main(["transcribe", "--model", str(model_file), clip]) == 2
    line = capsys.readouterr().err.splitlines()[0]
    assert line == (
        f"asr: error: {clip}: 0.48 s of audio: needs 0.07 GB of memory, expected at most the "
        "0.01 GB that are free"
    )


def test_no_more_is_imported_than_a_transcript_takes(
    model_file: Path, clip: str, tmp_path: Path
) -> None:
    small = tmp_path / "small.safetensors"
    assert main(["shrink", str(model_file), "--output", str(small)]) == 0
    code = (
        "import sys; from asr.cli.main import main\n"
        f"assert main(['transcribe', '--model', {str(small)!r}, {clip!r}]) == 0\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    imported = done.stderr.splitlines()[-1].split()
    assert done.stdout == f"{clip}\tc a\n"
    for package in (
        "asr.trainer", "asr.data", "asr.report", "asr.augment", "asr.metrics", "hydra", "lightning",
        "asr.decoder.beam_search", "torch._dynamo", "sympy", "matplotlib",
    ):  # fmt: skip
        assert package not in imported
    assert len([name for name in imported if name.split(".")[0] == "asr"]) <= 57


# --- where the text goes, channels, alternatives ------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "c a\n"),
        ("a.srt", "1\n00:00:00,"),
        ("a.vtt", "WEBVTT\n"),
        ("a.json", '{"audio_filepath": '),
        ("A.JSON", '{"audio_filepath": '),
    ],
)
def test_the_ending_of_an_output_tells_its_format(
    name: str, content: str, model_file: Path, clip: str, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    out = tmp_path / name
    assert run(capsys, "--model", str(model_file), "--output", str(out), clip) == ""
    assert out.read_text().startswith(content)


def test_one_output_of_several_recordings(
    model_file: Path, clip: str, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other, gone = str(corpus.parent / "03.wav"), str(tmp_path / "gone.wav")
    text, lines = tmp_path / "a.txt", tmp_path / "a.jsonl"
    run(capsys, "--model", str(model_file), "--output", str(text), clip, gone, other, status=2)
    assert text.read_text() == f"{clip}\tc a\n{other}\tabc\n"
    run(capsys, "--model", str(model_file), "--output", str(lines), other, clip)
    rows = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [row["text"] for row in rows] == ["abc", "c a"]
    run(capsys, "--model", str(model_file), "--output", str(text), gone, status=2)
    assert text.read_text() == f"{clip}\tc a\n{other}\tabc\n"  # nothing came: it stays


def test_a_format_that_the_ending_does_not_say_is_told(
    model_file: Path, clip: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a.srt"
    arguments = ["--model", str(model_file), "--format", "vtt", "--output", str(out), clip]
    assert main(["transcribe", *arguments]) == 0
    expected = f"asr: note: {out} will hold vtt, as --format says, not srt\n"
    assert capsys.readouterr().err == expected
    assert out.read_text().startswith("WEBVTT")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--output", "a.doc"], "--output a.doc, expected a name in .txt, .json, .srt, .vtt, .jso"),
        (["--output", "a.json", "b.wav"], "a.json for 2 files, expected a name in .jsonl: an obj"),
        (["--output", "a.srt", "b.wav"], "--format srt for 2 files needs --output-dir"),
        (["--output", "a.txt", "--output-dir", "b"], "--output and --output-dir, expected one of"),
        (["--output", "no/where.txt"], "no: no folder, so no/where.txt cannot be"),
        (["--output", "in.wav", "--format", "text"], "in.wav: would be overwritten and is read"),
        (["--ouput", "a.txt"], "unknown option --ouput: did you mean --output"),
        (["--channel", "both"], "--channel: 'both', expected mix, each or a number from 0"),
        (["--channel=-1"], "--channel: '-1', expected mix, each or a number from 0"),
        (["--speaker", "Anna"], "--speaker has no effect without --channel each"),
        (["--n-best", "3"], "--n-best has no effect with --format text, expected json"),
        (["--n-best", "3", "--format", "json"], "--n-best has no effect with Greedy, expected"),
        (
            ["--n-best", "0", "--format", "json", "--decoder", "beam"],
            "nbest 0, expected 1 to beam_size 50",
        ),
    ],
)
def test_options_that_do_not_go_together(
    options: list[str], message: str, model_file: Path, clip: str, tmp_path: Path, fails: Fails,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    shutil.copy(clip, "in.wav")
    assert message in fails("transcribe", "--model", str(model_file), "in.wav", *options)


@pytest.fixture
def call(corpus: Path, tmp_path: Path) -> str:
    """A call: `c a` on the left, `abc` on the right half a second later."""
    left, right = (soundfile.read(corpus.parent / f"{name}.wav")[0] for name in ("02", "03"))
    call = np.zeros((24_000, 2))
    call[: len(left), 0] = left
    call[12_000 : 12_000 + len(right), 1] = right
    soundfile.write(tmp_path / "call.wav", call, 8000)
    return str(tmp_path / "call.wav")


def test_a_call_names_who_speaks(
    model_file: Path, call: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--model", str(model_file), "--channel", "each", call]
    assert run(capsys, *asked) == f"{call}\tchannel 0: c a\n{call}\tchannel 1: abc\n"
    named = [*asked, "--speaker", "Anna", "--speaker", "Bert"]
    row = json.loads(run(capsys, *named, "--format", "json"))
    assert [(each["channel"], each["speaker"], each["text"]) for each in row["segments"]] == [
        (0, "Anna", "c a"), (1, "Bert", "abc"),
    ]  # fmt: skip
    assert [word["speaker"] for word in row["words"]] == ["Anna", "Anna", "Bert"]
    out = tmp_path / "call.txt"
    run(capsys, *named, "--output", str(out))
    assert out.read_text() == "Anna: c a\nBert: abc\n"
    assert run(capsys, *named, "--format", "srt").splitlines()[2] == "Anna: c a"
    assert run(capsys, *named, "--format", "vtt").splitlines()[3] == "<v Anna>c a"
    assert run(capsys, "--model", str(model_file), "--channel", "1", call) == f"{call}\tabc\n"
    assert main(["transcribe", *asked, "--speaker", "Anna"]) == 2
    assert f"error: {call}: 2 channels, expected 1, a speaker each" in capsys.readouterr().err


def test_alternatives_are_there_where_they_are_asked_for(
    model_file: Path, clip: str, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--model", str(model_file), "--format", "json", "--decoder", "beam", clip]
    assert "alternatives" not in run(capsys, *asked)
    (segment,) = json.loads(run(capsys, *asked, "--n-best", "9"))["segments"]
    texts = [each["text"] for each in segment["alternatives"]]
    scores = [each["log_prob"] for each in segment["alternatives"]]
    assert texts[0] == segment["text"] == "c a"
    assert 2 < len(set(texts)) == len(texts) <= 9
    assert scores == sorted(scores, reverse=True)


def test_a_recording_alone_tells_how_much_of_it_is_done(
    model_file: Path, clip: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("asr.cli.terminal.PLAIN_INTERVAL_S", -1.0)
    monkeypatch.setattr("asr.cli.terminal.SHOWN_AFTER_S", -1.0)
    assert main(["transcribe", "--model", str(model_file), clip]) == 0
    assert "transcribing: 0 of 0 s of audio\n" in capsys.readouterr().err
