"""asr evaluate: totals, report files, errors."""

from __future__ import annotations

import base64
import io
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from asr.cli.main import main
from asr.metrics.calibration import Calibration, fit_calibration, reliability
from asr.report.evaluation import word_outcomes
from asr.report.evaluation_file import read_calibration, read_evaluation, write_calibration


def test_report_and_json_agree_with_the_terminal(
    model_file: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(
        ["evaluate", f"model_file={model_file}", f"manifest={corpus}", f"paths.run_dir={tmp_path}",
         "name=tones", "device=cpu"]
    )  # fmt: skip
    assert status == 0
    folder = tmp_path / "evaluate" / "tones"
    content = json.loads((folder / "evaluation.json").read_text())
    output = capsys.readouterr().out
    assert len(content["utterances"]) == 12
    assert content["words"]["errors"] == 0
    assert "WER" in output
    assert str(folder / "report.html") in output.replace("\n", "")
    assert (folder / "report.html").read_text().startswith("<!doctype html>")


def evaluate(model_file: Path, manifest: Path, tmp_path: Path, name: str, *more: str) -> Path:
    """The folder of an evaluation."""
    status = main(
        ["evaluate", f"model_file={model_file}", f"manifest={manifest}",
         f"paths.run_dir={tmp_path}", f"name={name}", "device=cpu", *more]
    )  # fmt: skip
    assert status == 0
    return tmp_path / "evaluate" / name


@pytest.fixture
def noisy(corpus: Path, tmp_path: Path) -> Path:
    """The corpus with wrong references, so that there are errors, and further fields."""
    rows = [json.loads(line) for line in corpus.read_text().splitlines()]
    for k, row in enumerate(rows):
        row |= {"audio_filepath": str(corpus.parent / row["audio_filepath"]), "id": f"u{k}"}
        row |= {"gender": "fm"[k % 2], "age": 20 + k, "text": "b" if k % 3 == 0 else row["text"]}
    manifest = tmp_path / "noisy.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return manifest


def test_slices_text_rules_words_and_sclite_files(
    model_file: Path, noisy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = evaluate(model_file, noisy, tmp_path, "rich", "slice_by=[gender,age,duration]")
    output = capsys.readouterr().out
    content = json.loads((folder / "evaluation.json").read_text())
    for title in ("By gender", "By age", "By duration [s]", "Most frequent errors", "lower case"):
        assert title in output
    assert "[ ]: 95\u202f% percentile bootstrap interval, resampled by speaker (10)" in output
    by_gender, by_age, _ = content["slices"]
    assert [row["value"] for row in by_gender["rows"]] == ["f", "m"]
    assert (by_age["rows"][0]["low"], by_age["rows"][0]["high"]) == (20, 22)
    assert sum(row["words"]["errors"] for row in by_age["rows"]) == content["words"]["errors"]
    assert content["wer_interval"]["low"] < content["wer"] < content["wer_interval"]["high"]
    assert "lower case" in content["text_rules"]
    utterance = content["utterances"][1]
    assert utterance["fields"] == {"gender": "m", "age": "21"}
    assert " ".join(word["word"] for word in utterance["heard"]) == utterance["hypothesis"]
    assert 0 <= utterance["heard"][0]["start"] < utterance["heard"][0]["end"]
    assert len((folder / "ref.trn").read_text().splitlines()) == 12
    assert len((folder / "hyp.ctm").read_text().splitlines()) == sum(
        len(each["heard"]) for each in content["utterances"]
    )


@pytest.fixture
def own(noisy: Path, tmp_path: Path) -> Path:
    """The noisy corpus with audio that a test may damage, and without durations."""
    rows = [json.loads(line) for line in noisy.read_text().splitlines()]
    for row in rows:
        copied = tmp_path / f"{row['id']}.wav"
        copied.write_bytes(Path(row["audio_filepath"]).read_bytes())
        row["audio_filepath"] = copied.name
        del row["duration"]
    manifest = tmp_path / "own.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return manifest


def evaluate_damaged(
    model_file: Path, manifest: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> tuple[Path, str, list[str]]:
    """The folder of an evaluation that ends with status 2, its output, and what it told."""
    folder = manifest.parent
    capsys.readouterr()
    status = main(
        ["evaluate", f"model_file={model_file}", f"manifest={manifest}",
         f"paths.run_dir={folder}", f"name={name}", "device=cpu", "slice_by=[age]"]
    )  # fmt: skip
    assert status == 2
    output, errors = capsys.readouterr()
    return folder / "evaluate" / name, output, errors.splitlines()


def test_what_cannot_be_read_is_left_out_by_name(
    model_file: Path, own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = evaluate(model_file, own, tmp_path, "whole")
    (tmp_path / "u7.wav").unlink()
    (tmp_path / "u3.wav").write_bytes((tmp_path / "u3.wav").read_bytes()[:900])
    folder, output, errors = evaluate_damaged(model_file, own, "damaged", capsys)
    page, total = folder / "report.html", "10 of 12 utterances; 2 could not be read"
    assert errors == [
        f"asr: left out u3: {tmp_path}/u3.wav: {errors[0].split(': ')[-1]}",
        f"asr: left out u7: {tmp_path}/u7.wav: No such file or directory",
        f"asr: error: {total}: {page} tells of the others",
    ]
    assert "cut short, " in errors[0]
    assert total in output
    content = json.loads((folder / "evaluation.json").read_text())
    assert [row["id"] for row in content["left_out"]] == ["u3", "u7"]
    assert content["left_out"][1] == {
        "id": "u7",
        "audio_filepath": f"{tmp_path}/u7.wav",
        "reason": f"{tmp_path}/u7.wav: No such file or directory",
    }
    complete = json.loads((whole / "evaluation.json").read_text())
    assert complete["left_out"] == []
    others = [row for row in complete["utterances"] if row["id"] not in ("u3", "u7")]
    assert content["utterances"] == others
    header = page.read_text().split("</header>")[0]
    assert f"{total}:" in header
    assert f"{tmp_path}/u7.wav: No such file or directory" in header
    assert "could not be read" not in (whole / "report.html").read_text()
    # What was heard of fewer utterances is held against the same ones only.
    assert main(["compare", str(whole), str(folder)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("the same utterances; the audio of 2 of them could not be read")


def test_nothing_that_can_be_read_is_no_evaluation(
    model_file: Path, own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in tmp_path.glob("u*.wav"):
        path.write_bytes(b"")
    folder, _, errors = evaluate_damaged(model_file, own, "empty", capsys)
    assert len(errors) == 13
    assert errors[-1] == (
        f"asr: error: {own}: the audio of none of its 12 utterances can be used, expected some; "
        f"first: u0: {tmp_path}/u0.wav: empty file, expected audio"
    )
    assert not (folder / "report.html").exists()


def test_an_unknown_slice_is_refused_before_the_work(
    noisy: Path, tmp_path: Path, fails: Callable[..., str]
) -> None:
    line = fails("evaluate", "model_file=none.safetensors", f"manifest={noisy}",
                 f"paths.run_dir={tmp_path}", "slice_by=[gendre]")  # fmt: skip
    assert line == (
        "slice_by: 'gendre' is no field of the manifest, expected one of speaker, duration, "
        "reference_length, snr, age, gender"
    )


def test_a_calibration_is_fitted_and_then_applied(
    model_file: Path, noisy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "new" / "calibration.json"
    plain = evaluate(model_file, noisy, tmp_path, "plain")
    words = [
        word["confidence"]
        for each in json.loads((plain / "evaluation.json").read_text())["utterances"]
        for word in each["heard"]
    ]
    write_calibration(path, Calibration(slope=0.5, offset=-1.0))
    folder = evaluate(model_file, noisy, tmp_path, "calibrated", f"calibration={path}")
    content = json.loads((folder / "evaluation.json").read_text())
    found = [word["confidence"] for each in content["utterances"] for word in each["heard"]]
    expected = [read_calibration(path).apply(confidence) for confidence in words]
    assert found == pytest.approx(expected, abs=0.02)  # rounded before and after
    assert found != pytest.approx(words, abs=0.02)
    assert content["settings"]["calibration"] == str(path)
    assert content["reliability"]["num_words"] == len(words)
    capsys.readouterr()


def test_a_calibration_is_fitted_to_the_words_of_a_manifest(
    model_file: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = []
    for k, line in enumerate(corpus.read_text().splitlines()):
        row = json.loads(line)
        waveform, rate = soundfile.read(corpus.parent / row["audio_filepath"])
        for snr in range(6):  # 0 is clean; the others drown in noise
            noise = np.random.default_rng(10 * k + snr).standard_normal(len(waveform))
            soundfile.write(tmp_path / f"{k}_{snr}.wav", waveform + 0.1 * snr * noise, rate)
            rows.append(row | {"audio_filepath": f"{k}_{snr}.wav", "id": f"{k}_{snr}"})
    manifest = tmp_path / "drowned.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = tmp_path / "calibration.json"
    folder = evaluate(model_file, manifest, tmp_path, "fitted", f"fit_calibration={path}")
    assert f"calibration: {path}: off by " in capsys.readouterr().out.replace("\n", "")
    evaluation = read_evaluation(folder / "evaluation.json")
    calibration = read_calibration(path)
    assert calibration == fit_calibration(*word_outcomes(evaluation.utterances))
    confidences, is_correct = word_outcomes(evaluation.utterances)
    better = reliability([calibration.apply(each) for each in confidences], is_correct)
    assert evaluation.reliability is not None
    assert better.ece < evaluation.reliability.ece


def test_what_cannot_be_calibrated_is_told(
    model_file: Path, corpus: Path, tmp_path: Path, fails: Callable[..., str]
) -> None:
    options = [f"model_file={model_file}", f"manifest={corpus}", f"paths.run_dir={tmp_path}"]
    line = fails("evaluate", *options, f"fit_calibration={tmp_path}/c.json")
    assert line == "calibration: 15 words are right and 0 wrong, expected both kinds"
    line = fails("evaluate", *options, "calibration=a.json", "fit_calibration=b.json")
    assert line.startswith("calibration and fit_calibration are both given, expected one of them")
    line = fails("evaluate", *options, f"calibration={corpus}")
    assert line.startswith(f"{corpus}: ")


def embedded(page: Path) -> dict[str, Any]:
    """What a page's script reads."""
    source = page.read_text(encoding="utf-8")
    text = source.split('<script type="application/json" id="data">')[1].split("</script>")[0]
    content: dict[str, Any] = json.loads(text)
    return content


def test_the_report_can_be_heard(model_file: Path, noisy: Path, tmp_path: Path) -> None:
    folder = evaluate(model_file, noisy, tmp_path, "heard", "report.listen=5", "slice_by=[speaker]")
    data = embedded(folder / "report.html")
    assert len(data["clips"]) == 5
    steps = [data["utterances"][int(place)][-1] for place in data["clips"]]
    assert sum(len(each) == len(each[0]) == 1 for each in steps) == 1  # one of five is right
    for place, clip in data["clips"].items():
        reference, hypothesis = clip["paths"]
        steps = data["utterances"][int(place)][-1]
        for path, side in ((reference, 0), (hypothesis, -1)):
            text = "".join(character[0] for character in path["characters"])
            assert (path["missing"], text) == ("", " ".join(s[side] for s in steps if s[side]))
            times = [time for character in path["characters"] for time in character[1:3]]
            assert times == sorted(times)
        sound = base64.b64decode(clip["audio"].split(",")[1])
        assert soundfile.info(io.BytesIO(sound)).duration == pytest.approx(clip["seconds"])
        assert data["utterances"][int(place)][3] == pytest.approx(clip["seconds"], abs=1e-3)


def test_sound_within_a_bound_or_not_at_all(model_file: Path, noisy: Path, tmp_path: Path) -> None:
    silent = evaluate(model_file, noisy, tmp_path, "silent", "report.listen=0")
    assert embedded(silent / "report.html")["clips"] == {}
    bounded = evaluate(
        model_file, noisy, tmp_path, "bounded", "report.max_mb=0.04", "report.audio=wav"
    )
    data = embedded(bounded / "report.html")
    used = sum(
        len(clip[name].split(",")[1]) for clip in data["clips"].values()
        for name in ("audio", "picture")
    )  # fmt: skip
    assert 0 < used <= 40_000
    assert all(clip["audio"].startswith("data:audio/wav") for clip in data["clips"].values())
    assert f"{12 - len(data['clips'])} more left out" in (bounded / "report.html").read_text()


@pytest.mark.parametrize(("setting", "message"), [
    ("report.listen=-1", "report.listen is -1, expected 0 or more"),
    ("report.audio=mp3", "report.audio is 'mp3', expected one of opus, wav"),
    ("report.max_mb=-1", "report.max_mb is -1, expected 0 or more"),
])  # fmt: skip
def test_a_report_that_cannot_be_is_refused_before_the_work(
    model_file: Path, noisy: Path, tmp_path: Path, fails: Callable[..., str], setting: str,
    message: str,
) -> None:  # fmt: skip
    line = fails("evaluate", f"model_file={model_file}", f"manifest={noisy}",
                 f"paths.run_dir={tmp_path}", "name=refused", setting)  # fmt: skip
    assert line.startswith(message)
    assert not (tmp_path / "evaluate" / "refused" / "report.html").exists()


def test_small_batches_give_the_same_totals(model_file: Path, corpus: Path, tmp_path: Path) -> None:
    totals = []
    for batch_duration_s in (0.1, 100):
        name = f"batch_{batch_duration_s:g}"
        assert main(
            ["evaluate", f"model_file={model_file}", f"manifest={corpus}",
             f"paths.run_dir={tmp_path}", f"name={name}", f"batch_duration_s={batch_duration_s}"]
        ) == 0  # fmt: skip
        content = json.loads((tmp_path / "evaluate" / name / "evaluation.json").read_text())
        totals.append([row["hypothesis"] for row in content["utterances"]])
    assert totals[0] == totals[1]


@pytest.mark.parametrize("folder", ["\u00fcmlaut", "a=b", "a(b)", "~a", "a&b", "a,b", "a#b"])
def test_a_path_that_needs_quotes_is_told_with_them(
    folder: str, corpus: Path, tmp_path: Path, fails: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path(folder).mkdir()
    line = fails("evaluate", "model_file=gone.safetensors", f"manifest={folder}/m.jsonl")
    told = f"in quotes for Hydra and for the shell: \"manifest='{folder}/m.jsonl'\""
    assert line.endswith(told)
    (quoted,) = shlex.split(line.rpartition("shell: ")[2])
    assert "quotes" not in fails("evaluate", "model_file=gone.safetensors", quoted)


def test_a_missing_model_is_named(corpus: Path, tmp_path: Path, fails: Callable[..., str]) -> None:
    line = fails("evaluate", f"model_file={tmp_path}/no.safetensors", f"manifest={corpus}",
                 f"paths.run_dir={tmp_path}")  # fmt: skip
    assert line == f"{tmp_path}/no.safetensors: No such file or directory"


def test_required_values_are_named(tmp_path: Path, fails: Callable[..., str]) -> None:
    assert "model_file" in fails("evaluate", f"paths.run_dir={tmp_path}")
