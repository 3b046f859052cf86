"""asr doctor: its exit status, what it prints and writes, and that training leaves out the same."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from asr.cli.doctor_view import bar_line
from asr.cli.main import main
from asr.data.manifest import read_manifest

Fails = Callable[..., str]
RATE = 8000  # [Hz]


def doctor(capsys: pytest.CaptureFixture[str], *arguments: object, status: int = 0) -> str:
    capsys.readouterr()
    assert main(["doctor", *map(str, arguments)]) == status
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that no cell of a table is broken."""
    monkeypatch.setenv("COLUMNS", "300")


def write(path: Path, *lines: dict[str, Any] | str) -> Path:
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("".join(f"{text}\n" for text in texts))
    return path


@pytest.fixture
def dirty(corpus: Path, tmp_path: Path) -> Path:
    """The tone corpus and a line for every error that needs no decoding, but too long ones."""
    good = [json.loads(line) for line in corpus.read_text().splitlines()]
    lines = [
        line
        | {"audio_filepath": str(corpus.parent / line["audio_filepath"]), "id": f"good{number}"}
        for number, line in enumerate(good)
    ]
    soundfile.write(tmp_path / "short.wav", np.full(400, 0.1), RATE)
    bad: list[dict[str, Any] | str] = [
        "{no JSON",
        lines[0],
        lines[1] | {"id": "empty", "text": "..."},
        lines[2] | {"id": "unknown", "text": "xyz"},
        lines[3] | {"id": "infeasible", "text": "abc" * 20},
        lines[4] | {"id": "missing", "audio_filepath": "gone.wav"},
        {"id": "short", "audio_filepath": "short.wav", "text": "a", "duration": 0.05},
    ]
    return write(tmp_path / "dirty.jsonl", *lines, *bad)


KINDS = {
    None: "bad_line", "good0": "duplicate_id", "empty": "empty_text",
    "unknown": "unknown_character", "infeasible": "infeasible", "missing": "missing_audio",
    "short": "too_short",
}  # fmt: skip


def test_training_leaves_out_exactly_the_errors_that_the_doctor_finds(
    dirty: Path, corpus: Path, model_file: Path, tiny: tuple[str, ...], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    findings = tmp_path / "findings.json"
    doctor(capsys, "--model", model_file, "--json", findings, dirty, status=1)
    content = json.loads(findings.read_text())
    errors = [each for each in content["findings"] if each["severity"] == "error"]
    assert {each["id"]: each["kind"] for each in errors} == KINDS
    assert (content["errors"], len(errors)) == (7, 7)
    run = [
        "train", *tiny, f"data.train={dirty}", f"data.dev={corpus}", "data.alphabet=' abc'",
        f"paths.run_dir={tmp_path}", "name=x", "trainer.max_epochs=1",
    ]  # fmt: skip
    assert main([*run, "trainer.max_left_out=0.4"]) == 0
    left_out = tmp_path / "train" / "x" / "left_out.jsonl"
    rows = [json.loads(line) for line in left_out.read_text().splitlines()]
    assert {row["id"]: row["kind"] for row in rows} == KINDS
    lines = {each["id"]: (each["manifest"], each["line"]) for each in errors}
    for row in rows:
        assert (row["manifest"], row["line"]) == lines[row["id"]]
    capsys.readouterr()
    assert main([*run, "overwrite=true"]) == 2
    assert capsys.readouterr().err.startswith(
        "asr: error: 7 of 19 training utterances cannot be used, expected at most 5% "
        "(trainer.max_left_out): 1 bad line, 1 duplicate id, 1 empty text, "
    )


def test_a_good_corpus(corpus: Path, model_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = doctor(capsys, "--model", model_file, corpus)
    assert output.endswith("0 errors, 0 warnings in 12 lines\n")
    assert "alphabet of 4 characters: ' abc'" in output
    assert f"{corpus}" in output
    assert "Findings" not in output
    assert "8000 Hz" in output
    (note,) = re.findall("note: (.*)", output)
    assert note.startswith(f"{corpus.name} has 0.1 min of speech. To train on, that is too little")


def test_what_texts_hold_is_told(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tagged = corpus.with_name("tagged.jsonl")
    lines = [json.loads(line) | {"text": "[a] 1"} for line in corpus.read_text().splitlines()]
    tagged.write_text("".join(json.dumps(line) + "\n" for line in lines))
    output = doctor(capsys, tagged, "--json", tmp_path / "found.json")
    notes = json.loads((tmp_path / "found.json").read_text())["notes"]
    assert notes[0].startswith("12 of 12 texts have tags in [], as '[a] 1': what stands in them")
    assert notes[1].startswith("The alphabet has 1: 12 of 12 texts, as 'a 1'. Spell out")
    for note in notes:
        assert " ".join(note.split()) in " ".join(output.split())


def test_findings_are_told_by_kind_with_their_place(
    dirty: Path, model_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = doctor(capsys, "--model", model_file, dirty, status=1)
    assert "dirty.jsonl:13: bad JSON at column 2" in output
    assert "dirty.jsonl:17 infeasible: " in output
    assert " output frames, expected at least 60 for its 60 characters" in output
    assert output.splitlines()[-1].startswith("7 errors, ")


def test_without_a_model_the_settings_are_those_of_conf(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from hydra import compose, initialize_config_dir

    from asr.cli.conf import conf_dir
    from asr.cli.doctor import FRAME_MS, SAMPLE_RATE

    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose("train", ["data.train=x", "data.dev=x"])
    assert config.features.sample_rate == SAMPLE_RATE
    ratio = config.model.subsampling / config.model.upsampling
    assert config.features.frame_shift_ms * ratio == FRAME_MS
    soundfile.write(tmp_path / "a.wav", 0.1 * np.random.default_rng(0).standard_normal(1920), 16000)
    row = {"audio_filepath": "a.wav", "id": "a"}
    fits = write(tmp_path / "fits.jsonl", row | {"text": "abba"})  # 5 labels with the blank
    tight = write(tmp_path / "tight.jsonl", row | {"text": "aba"})
    # 0.12 s are 4 frames of 40 ms, 5 of 30 ms.
    assert (config.data.min_duration_s, config.data.max_duration_s) == (0.1, 40.0)
    doctor(capsys, tight)
    assert "0.12 s give 4 output frames, expected at least 5" in doctor(capsys, fits, status=1)
    doctor(capsys, fits, "--frame-ms", "30")
    assert "3 output frames at speed 1.5" in doctor(
        capsys, fits, "--frame-ms", "30", "--speed", "1.5", status=1
    )


def test_options_set_what_is_expected(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rate = doctor(capsys, corpus)
    assert "8000 Hz, expected 16000 Hz or more" in rate
    assert "low sample rates" not in doctor(capsys, corpus, "--sample-rate", 8000)
    assert "texts out of the alphabet" in doctor(capsys, corpus, "--alphabet", "ab ", status=1)
    assert "too long" in doctor(capsys, corpus, "--max-duration", 0.4, status=1)
    assert "too short" in doctor(capsys, corpus, "--min-duration", 0.4, status=1)
    assert "dBFS" not in doctor(capsys, corpus, "--headers-only", "--jobs", 1)


def test_splits_are_compared(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = json.loads(corpus.read_text().splitlines()[0])
    leak = row | {"audio_filepath": str(corpus.parent / row["audio_filepath"]), "id": "leak"}
    dev = write(tmp_path / "dev.jsonl", leak)
    output = doctor(capsys, corpus, dev, "--sample-rate", RATE, status=1)
    assert "In two manifests" in output
    assert f"its audio is that of {dev}:1 (leak) too, expected in one split only" in output


def test_manifests_of_one_name_are_told_apart_by_their_folders(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        row = {"audio_filepath": "gone.wav", "text": "a", "duration": 1.0, "id": name}
        write(tmp_path / name / "all.jsonl", row)
    paths = [tmp_path / name / "all.jsonl" for name in ("one", "two")]
    lines = [" ".join(line.split()) for line in doctor(capsys, *paths, status=1).splitlines()]
    assert any(line.startswith("texts two/all.jsonl one/all.jsonl 1 of 1") for line in lines)
    assert any("one/all.jsonl:1 one:" in line for line in lines)
    duration = next(number for number, line in enumerate(lines) if line.startswith("duration"))
    assert "one/all.jsonl" in lines[duration]
    assert "two/all.jsonl" in lines[duration + 1]


def test_the_cleaned_manifest_can_be_trained_on(
    dirty: Path, model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clean = tmp_path / "clean.jsonl"
    output = doctor(capsys, dirty, "--model", model_file, "--clean", clean, status=1)
    assert output.endswith(f"cleaned: {clean}, 12 of 19 lines\n")
    assert [u.id for u in read_manifest(clean)] == [f"good{number}" for number in range(12)]
    doctor(capsys, clean, "--model", model_file)


def test_warnings_are_dropped_when_asked(
    corpus: Path, model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [json.loads(line) for line in corpus.read_text().splitlines()]
    lines = [
        json.dumps(row | {"audio_filepath": str(corpus.parent / row["audio_filepath"])})
        for row in rows
    ]
    base = rows[0]
    for name, waveform in (("loud", np.ones(4000)), ("zero", np.zeros(4000))):
        soundfile.write(tmp_path / f"{name}.wav", waveform, RATE)
        row = base | {"audio_filepath": f"{name}.wav", "duration": 0.5, "text": "ab"}
        lines.append(json.dumps(row))
    manifest = write(tmp_path / "warned.jsonl", *lines)

    def left(*options: object) -> set[str]:
        target = tmp_path / "clean.jsonl"
        doctor(capsys, manifest, "--model", model_file, "--clean", target, *options)
        return {u.audio_filepath.name for u in read_manifest(target)} & {"loud.wav", "zero.wav"}

    assert left() == {"loud.wav", "zero.wav"}
    assert left("--clean-kinds", "clipping") == {"zero.wav"}
    assert left("--clean-kinds", "silence,clipping") == set()
    assert left("--clean-warnings") == set()


def test_several_manifests_are_cleaned_into_a_folder(
    dirty: Path, corpus: Path, model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"audio_filepath": "dev.wav", "text": "ab", "id": "d"}
    soundfile.write(
        tmp_path / "dev.wav", 0.1 * np.random.default_rng(0).standard_normal(4000), RATE
    )
    dev = write(tmp_path / "dev.jsonl", row, row | {"id": "empty", "text": ""})
    folder = tmp_path / "clean"
    doctor(capsys, dirty, dev, "--model", model_file, "--clean", folder, status=1)
    assert sorted(path.name for path in folder.iterdir()) == ["dev.jsonl", "dirty.jsonl"]
    assert len(read_manifest(folder / "dirty.jsonl")) == 12
    (left,) = read_manifest(folder / "dev.jsonl")
    assert (left.id, left.audio_filepath) == ("d", tmp_path / "dev.wav")
    # All that is good in the first is in the second as well, and where nothing is left of one,
    # neither is written.
    assert main(["doctor", str(dirty), str(corpus), "--clean", str(tmp_path / "none")]) == 2
    assert "dirty.jsonl: no utterance is left" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_a_picture(
    corpus: Path, model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "p.png"
    output = doctor(capsys, corpus, "--model", model_file, "--picture", picture)
    assert output.endswith(f"picture: {picture}\n")
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_names_from_manifests_do_not_act_on_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"audio_filepath": "gone.wav", "text": "\u202ea [bold]", "id": "\x1b[2J[red]x"}
    manifest = write(tmp_path / "m.jsonl", row, row | {"id": "\x9b31m", "speaker": "\x1b"})
    output = doctor(capsys, manifest, status=1)
    assert "\x1b" not in output
    assert "\x9b" not in output
    assert "\u202e" not in output
    assert "[red]x" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--clean-warnings"], "--clean-warnings and --clean-kinds need --clean, where to write"),
        (["--clean", "x.jsonl", "--clean-kinds", "loud"], "--clean-kinds 'loud', expected some of"),
        (
            ["--clean", "x.jsonl", "--clean-kinds", "empty_text"],
            "--clean-kinds 'empty_text', expected some of duplicate_audio",
        ),
        (
            ["--clean", "x.jsonl", "--clean-kinds", "silence", "--clean-warnings"],
            "--clean-warnings and --clean-kinds, expected one of them",
        ),
        (["--clean", "x.txt"], "x.txt: not a name for a manifest, expected one ending in .jsonl"),
        (["--jobs", "0"], "--jobs 0, expected more than 0"),
        (["--json", "no/x.json"], "no/x.json: its folder is missing, expected one that is there"),
        (["--picture", "no/x.png"], "no/x.png: its folder is missing, expected one that is there"),
        (["--speed", "nan"], "--speed nan, expected more than 0"),
        (["--min-duration", "50"], "--min-duration 50, expected 0 to less than --max-duration 40"),
        (["--alphabet", "aa"], "alphabet has 'a' (U+0061 LATIN SMALL LETTER A) twice"),
        (["--model", "no.safetensors"], "no.safetensors: No such file or directory"),
        (
            ["--model", "no.safetensors", "--frame-ms", "20"],
            "--frame-ms and --model, expected one of them: a model has its own",
        ),
    ],
)
def test_mistakes_in_the_call(
    arguments: list[str], message: str, corpus: Path, fails: Fails
) -> None:
    assert fails("doctor", str(corpus), *arguments).startswith(message)


def test_manifests_that_are_none(corpus: Path, tmp_path: Path, fails: Fails) -> None:
    twice = fails("doctor", str(corpus), str(corpus))
    assert twice == f"{corpus} is given twice, expected each manifest once"
    empty = write(tmp_path / "empty.jsonl")
    assert fails("doctor", str(empty)) == f"{empty}: holds no utterances, expected at least one"
    gone = tmp_path / "gone.jsonl"
    assert fails("doctor", str(gone)) == f"{gone}: No such file or directory"


def test_real_speech_is_fit_to_train_on(
    speech_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The recordings of the Free Spoken Digit Dataset: 8 kHz, a digit each."""
    files = sorted((speech_data / "fsdd").rglob("*.wav"))[:40]
    if not files:
        pytest.skip("no wav files of fsdd there")
    names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    rows = [
        {"audio_filepath": str(path), "text": names[int(path.name[0])], "id": path.stem}
        for path in files
    ]
    manifest = write(tmp_path / "fsdd.jsonl", *rows)
    findings = tmp_path / "findings.json"
    doctor(capsys, manifest, "--sample-rate", RATE, "--frame-ms", 20, "--json", findings)
    assert json.loads(findings.read_text())["errors"] == 0


def test_a_model_listens_whether_the_text_is_said(
    corpus: Path, model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [json.loads(line) for line in corpus.read_text().splitlines()]
    lines = [
        row | {"audio_filepath": str(corpus.parent / row["audio_filepath"]), "id": f"u{number}"}
        for number, row in enumerate(rows)
    ]
    lines[3] |= {"text": "bca"}  # it says abc
    manifest, findings = write(tmp_path / "m.jsonl", *lines), tmp_path / "findings.json"
    output = doctor(capsys, "--model", model_file, "--json", findings, manifest)
    assert "text behind the hypothesis [nats a frame]" in output
    (finding,) = json.loads(findings.read_text())["findings"]
    assert (finding["id"], finding["kind"], finding["line"]) == ("u3", "text_misfit", 4)
    assert finding["severity"] == "warning"
    assert finding["reason"].endswith(
        "nats a frame behind the model's own path, expected at most 0.70 of a right text"
    )
    assert "0 warnings" in doctor(capsys, "--model", model_file, "--headers-only", manifest)
    clean = tmp_path / "clean.jsonl"
    doctor(
        capsys, "--model", model_file, "--clean", clean, "--clean-kinds", "text_misfit", manifest
    )
    assert [u.id for u in read_manifest(clean)] == [f"u{n}" for n in range(12) if n != 3]


def test_bars_are_as_high_as_their_counts() -> None:
    assert bar_line([0, 1, 40, 80, 79, 0]) == " ▁▄██ "
    assert bar_line([0, 0]) == "  "
