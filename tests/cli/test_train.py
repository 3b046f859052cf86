"""asr train: what lies in the run's folder, resuming, and what is refused."""

from __future__ import annotations

import csv
import hashlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from asr.cli.main import main
from asr.model_file import load_model
from asr.trainer.trainer import Training

pytestmark = pytest.mark.usefixtures("no_pictures")

Fails = Callable[..., str]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def arguments(corpus: Path, runs: Path, name: str, tiny: tuple[str, ...]) -> list[str]:
    paths = [f"data.train={corpus}", f"data.dev={corpus}", f"paths.run_dir={runs}"]
    return ["train", *tiny, *paths, f"name={name}"]


def test_the_model_learns_and_the_folder_is_complete(run_dir: Path) -> None:
    validations = rows(run_dir / "validations.csv")
    assert [int(row["epoch"]) for row in validations] == [15, 30, 45, 60]
    assert float(validations[-1]["wer"]) == 0.0
    assert (run_dir / "curves.png").read_bytes().startswith(b"\x89PNG")
    for name in (
        "best.safetensors",
        "last.safetensors",
        "state/index.json",
        "steps.csv",
        "alignments.png",
    ):
        assert (run_dir / name).stat().st_size > 0
    _, training = load_model(run_dir / "best.safetensors")
    assert training["dev_wer"] == 0.0


def test_resuming_a_stopped_run_ends_in_the_same_weights(
    corpus: Path, tmp_path: Path, tiny: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two epochs, then two more, against four in one go: the same file, byte for byte."""
    whole = arguments(corpus, tmp_path, "whole", tiny)
    assert main([*whole, "trainer.max_epochs=4"]) == 0
    step = Training._after_step

    def stop(training: Training, *rest: Any) -> None:
        step(training, *rest)
        training.save()
        if training.progress.step == 7:
            sys.exit(9)

    parts = [*arguments(corpus, tmp_path, "parts", tiny), "trainer.max_epochs=4"]
    with monkeypatch.context() as patched:
        patched.setattr(Training, "_after_step", stop)
        with pytest.raises(SystemExit, match=r"^9$"):
            main(parts)
    assert main(["train", f"resume={tmp_path / 'train' / 'parts'}"]) == 0
    models = [tmp_path / "train" / name / "last.safetensors" for name in ("whole", "parts")]
    weights = [load_model(path)[0].state_dict() for path in models]
    assert all((weights[0][name] == weights[1][name]).all() for name in weights[0])


def test_two_processes_validate_and_learn_like_one(
    corpus: Path, tmp_path: Path, tiny: tuple[str, ...]
) -> None:
    """A step of two processes is a step of one that accumulates two batches."""
    short = ("trainer.max_epochs=8", "trainer.validate_every=4", "trainer.batch_duration_s=1")
    two = [*arguments(corpus, tmp_path, "two", tiny), *short, "trainer.devices=2"]
    subprocess.run([sys.executable, "-m", "asr", *two], check=True, capture_output=True)
    one = [*arguments(corpus, tmp_path, "one", tiny), *short, "trainer.accumulate=2"]
    assert main(one) == 0
    first, second = (rows(tmp_path / "train" / name / "validations.csv") for name in ("one", "two"))
    assert [row["step"] for row in first] == [row["step"] for row in second]
    assert [row["wer"] for row in first] == [row["wer"] for row in second]
    assert float(first[-1]["loss"]) < float(first[0]["loss"])
    for row, other in zip(first, second, strict=True):
        assert float(row["loss"]) == pytest.approx(float(other["loss"]), rel=1e-3)


@pytest.mark.parametrize("devices", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_training_that_is_asked_to_stop_saves_and_goes_on(
    corpus: Path, tmp_path: Path, tiny: tuple[str, ...], devices: int
) -> None:
    """By one signal, then what went on by the other; then to its end."""
    run = [*arguments(corpus, tmp_path, "asked", tiny), "resume=auto", "trainer.log_every=1"]
    run += [f"trainer.devices={devices}", "trainer.batch_duration_s=1"]
    run += ["trainer.validate_every=1000000"]  # none but at the end
    folder = tmp_path / "train" / "asked"
    step = 0
    for number in (signal.SIGTERM, signal.SIGUSR1):
        process = subprocess.Popen(
            [sys.executable, "-m", "asr", *run, "trainer.max_epochs=1000000"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        end = time.monotonic() + 120
        while not (folder / "steps.csv").exists() or len(rows(folder / "steps.csv")) < step + 3:
            assert time.monotonic() < end
            time.sleep(0.05)
        process.send_signal(number)
        printed, _ = process.communicate(timeout=120)
        assert process.returncode == 75, printed
        assert step == 0 or f"resumed at step {step}" in printed
        (told,) = [line for line in printed.splitlines() if "stopped by" in line]
        step = len(rows(folder / "steps.csv"))
        assert f"stopped by {number.name} at step {step}, saved: go on with resume=" in told
    epochs = int(rows(folder / "steps.csv")[-1]["epoch"]) + 1
    again = [*run, f"trainer.max_epochs={epochs}"]
    if devices == 1:
        assert main(again) == 0
    else:  # which would leave its handlers of signals to this process
        subprocess.run([sys.executable, "-m", "asr", *again], check=True, capture_output=True)
    assert f"resumed at step {step}" in (folder / "train.log").read_text()
    taken = [int(row["step"]) for row in rows(folder / "steps.csv")]
    assert taken == list(range(1, len(taken) + 1))


def test_a_resume_from_elsewhere_finds_what_the_training_found(
    corpus: Path,
    tmp_path: Path,
    tiny: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(corpus.parent)
    words = arguments(Path(corpus.name), tmp_path, "tones", tiny)
    assert main([*words, "trainer.max_epochs=1"]) == 0
    folder = tmp_path / "train" / "tones"
    monkeypatch.chdir(elsewhere)
    assert main(["train", "resume=../train/tones", "trainer.max_epochs=2"]) == 0
    origin = f"paths are meant from {corpus.parent}, where the training was begun"
    assert origin in capsys.readouterr().err
    assert len(rows(folder / "validations.csv")) == 2
    # Where its paths lead somewhere, the present folder is meant.
    assert main(["train", f"resume={folder}", "trainer.max_epochs=3"]) == 0
    assert origin not in capsys.readouterr().err


def test_going_on_by_itself_wants_a_name(
    corpus: Path, tmp_path: Path, tiny: tuple[str, ...], fails: Fails
) -> None:
    run = [word for word in arguments(corpus, tmp_path, "", tiny) if not word.startswith("name=")]
    line = fails(*run, "resume=auto")
    assert line == "resume=auto without a name, expected name=... that stays the same"


@pytest.mark.parametrize("damage", ["one_file", pytest.param("all", marks=pytest.mark.slow)])
def test_a_mistake_on_several_processes_is_one_line(
    corpus: Path, tmp_path: Path, tiny: tuple[str, ...], damage: str
) -> None:
    """Whether one process meets it or all of them do."""
    lines = [json.loads(line) for line in corpus.read_text().splitlines()]
    for line in lines:
        line["audio_filepath"] = str(corpus.parent / line["audio_filepath"])
    for number, line in enumerate(lines):
        if damage == "all" or number == 7:
            line["audio_filepath"] = str(tmp_path / f"bad{number}.wav")
            (tmp_path / f"bad{number}.wav").write_bytes(b"no audio")
    manifest = tmp_path / "train.jsonl"
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    run = [*arguments(manifest, tmp_path, "bad", tiny), "trainer.batch_duration_s=1"]
    command = [sys.executable, "-m", "asr", *run, f"data.dev={corpus}", "trainer.devices=2"]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    assert result.returncode == 2
    told = [line for line in result.stderr.splitlines() if "INFO" not in line]
    assert len(told) == 1, result.stderr
    assert told[0].startswith("asr: error: ")
    assert "of 12 training utterances cannot be used, expected at most 5% " in told[0]
    assert ".wav: cannot be read as audio" in told[0]


def test_a_folder_with_a_training_is_not_overwritten(
    run_dir: Path, corpus: Path, tiny: tuple[str, ...], fails: Fails
) -> None:
    before = digest(run_dir / "best.safetensors")
    line = fails(*arguments(corpus, run_dir.parents[1], "tones", tiny))
    assert "already holds a training" in line
    assert "resume=" in line
    assert digest(run_dir / "best.safetensors") == before


def test_resume_needs_a_run(tmp_path: Path, fails: Fails) -> None:
    assert "no run there" in fails("train", f"resume={tmp_path}")


def test_resume_with_other_settings_is_refused(run_dir: Path, fails: Fails) -> None:
    line = fails("train", f"resume={run_dir}", "trainer.batch_duration_s=2")
    assert "other data or settings" in line
    assert line.endswith("now: trainer.batch_duration_s 3 -> 2")


def test_what_is_refused_leaves_the_settings_for_the_next_resume(
    run_dir: Path, corpus: Path, tiny: tuple[str, ...], fails: Fails
) -> None:
    record = sorted((run_dir / ".hydra").glob("*.yaml"))
    before = [path.read_bytes() for path in record]
    assert len(record) == 3
    fails("train", f"resume={run_dir}", "trainer.batch_duration_s=2")
    fails(*arguments(corpus, run_dir.parents[1], "tones", tiny), "trainer.devices=2")
    fails("train", f"resume={run_dir}", "trainer.precision=7-bit")
    assert [path.read_bytes() for path in record] == before
    # Earlier versions left Hydra's record as it was and kept what was not refused in a folder.
    accepted = run_dir / ".hydra" / "accepted"
    accepted.mkdir()
    (accepted / "overrides.yaml").write_bytes((run_dir / ".hydra" / "overrides.yaml").read_bytes())
    (run_dir / ".hydra" / "overrides.yaml").write_text("[]\n")
    line = fails("train", f"resume={run_dir}", "trainer.batch_duration_s=2")
    assert line.endswith("now: trainer.batch_duration_s 3 -> 2")
    assert main(["train", f"resume={run_dir}"]) == 0
    assert [path.read_bytes() for path in record] != before, "the resume's own"
    assert not list(accepted.iterdir())


def test_a_setting_that_a_run_added_may_have_become_one_of_conf(
    run_dir: Path, fails: Fails
) -> None:
    record = run_dir / ".hydra" / "overrides.yaml"
    before = record.read_text()
    record.write_text(before + "- +data.text.lowercase=true\n")
    line = fails("train", f"resume={run_dir}", "trainer.batch_duration_s=2")
    assert line.endswith("now: trainer.batch_duration_s 3 -> 2")
    record.write_text(before)


def test_settings_that_changed_are_told_in_one_line(
    corpus: Path, tmp_path: Path, tiny: tuple[str, ...]
) -> None:
    run = [*arguments(corpus, tmp_path, "asked", tiny), "trainer.clip_norm=5"]
    assert main([*run, "trainer.max_epochs=1"]) == 0
    changed = ["trainer.max_epochs=2", "trainer.clip_norm=1", "optim.lr=1e-4"]
    ignored = ["trainer.log_every=3", "trainer.keep_states=1", "trainer.num_workers=0"]
    assert main(["train", f"resume={tmp_path / 'train' / 'asked'}", *changed, *ignored]) == 0
    log = (tmp_path / "train" / "asked" / "train.log").read_text().splitlines()
    (line,) = (line for line in log if "other settings" in line)
    for part in ("trainer.max_epochs 1 -> 2", "trainer.clip_norm 5 -> 1", "-> 0.0001"):
        assert part in line
    assert line.count("->") == 3


def test_a_misspelt_key_is_named_with_its_neighbour(
    corpus: Path, tmp_path: Path, tiny: tuple[str, ...], fails: Fails
) -> None:
    line = fails(*arguments(corpus, tmp_path, "x", tiny), "model.hiden_size=3")
    assert "model.hiden_size" in line
    assert "did you mean model.hidden_size?" in line


def test_an_unknown_group_option_lists_the_known_ones(fails: Fails) -> None:
    line = fails("train", "model=resnet")
    assert "model/resnet" in line
    assert "bilstm_ctc_small" in line


def test_a_missing_required_value_is_named(fails: Fails, tmp_path: Path) -> None:
    assert "data.train" in fails("train", f"paths.run_dir={tmp_path}")


def test_a_missing_manifest_is_named(
    tmp_path: Path, tiny: tuple[str, ...], fails: Fails, corpus: Path
) -> None:
    line = fails(*arguments(corpus, tmp_path, "x", tiny), f"data.train={tmp_path}/none.jsonl")
    assert line == f"{tmp_path}/none.jsonl: No such file or directory"


def test_an_unknown_character_names_the_utterance(
    corpus: Path, tmp_path: Path, tiny: tuple[str, ...], fails: Fails
) -> None:
    dev = corpus.parent / "dev_with_z.jsonl"
    row = json.loads(corpus.read_text().splitlines()[0]) | {"text": "az", "id": "utterance-z"}
    dev.write_text(json.dumps(row) + "\n")
    line = fails(*arguments(corpus, tmp_path, "x", tiny), f"data.dev={dev}")
    assert line.startswith(f"dev: {dev}:1: utterance-z: character 'z' (U+007A LATIN SMALL LETTER Z")


def test_no_utterance_left(
    corpus: Path, tmp_path: Path, tiny: tuple[str, ...], fails: Fails
) -> None:
    line = fails(*arguments(corpus, tmp_path, "x", tiny), "data.min_duration_s=30")
    assert line.startswith("no training utterance left of 12: 12 too short (data.min_duration_s,")


def test_infeasible_utterances_are_named(
    corpus: Path, tmp_path: Path, tiny: tuple[str, ...], fails: Fails
) -> None:
    """Frames every 50 ms, eight to one: 0.32 s leave one output frame for two letters."""
    coarse = ("model.subsampling=8", "features.frame_shift_ms=50", "features.frame_length_ms=50")
    run = arguments(corpus, tmp_path, "x", tiny)
    line = fails(*run, *coarse)
    assert line == (
        "no training utterance left of 12: 12 texts too long for CTC; first: "
        f"{corpus}:1: 00.wav: 0.32 s give 1 output frames, expected at least 2 for its 2 characters"
    )
    reasons = (tmp_path / "train" / "x" / "left_out.jsonl").read_text().splitlines()
    assert len(reasons) == 12


def test_broken_audio_is_named(
    corpus: Path, tmp_path: Path, tiny: tuple[str, ...], fails: Fails
) -> None:
    (tmp_path / "broken.wav").write_bytes(b"RIFF and then nothing")
    row = {"audio_filepath": "broken.wav", "duration": 0.6, "text": "a bc"}
    manifest = tmp_path / "broken.jsonl"
    manifest.write_text(json.dumps(row) + "\n")
    line = fails(*arguments(corpus, tmp_path, "x", tiny), f"data.train={manifest}")
    assert line.startswith("1 of 1 training utterances cannot be used, expected at most 5%")
    assert f"last: {manifest}:1: broken.wav: {tmp_path}/broken.wav: cannot be read as audio" in line


@pytest.mark.parametrize("debug", ["one_batch", "overfit"])
def test_debug_configs_run(debug: str, corpus: Path, tmp_path: Path, tiny: tuple[str, ...]) -> None:
    paths = [f"data.train={corpus}", f"data.dev={corpus}", f"paths.run_dir={tmp_path}"]
    tiny_without_epochs = [word for word in tiny if not word.startswith(("augment", "schedule"))]
    assert main(["train", *tiny_without_epochs, *paths, f"debug={debug}"]) == 0
    validations = rows(tmp_path / "train" / f"debug_{debug}" / "validations.csv")
    if debug == "one_batch":
        assert len(validations) == 1
        assert [int(row["step"]) for row in validations] == [1]
    else:
        assert float(validations[-1]["wer"]) == 0.0


def test_one_batch_of_shards(corpus: Path, tmp_path: Path, tiny: tuple[str, ...]) -> None:
    assert main(["shar", str(corpus), str(tmp_path / "s"), "--shard-size", "5"]) == 0
    paths = [f"data.train={tmp_path}/s", f"data.dev={corpus}", f"paths.run_dir={tmp_path}"]
    without_epochs = [word for word in tiny if not word.startswith("trainer.max_epochs")]
    assert main(["train", *without_epochs, "data=shar", *paths, "debug=one_batch"]) == 0
    (row,) = rows(tmp_path / "train" / "debug_one_batch" / "validations.csv")
    assert row["step"] == "1"


def test_tensorboard_events_are_written_when_asked(
    corpus: Path, tmp_path: Path, tiny: tuple[str, ...]
) -> None:
    pytest.importorskip("tensorboard")
    run = arguments(corpus, tmp_path, "board", tiny)
    assert main([*run, "trainer.max_epochs=1", "trainer.tensorboard=true"]) == 0
    events = list((tmp_path / "train" / "board" / "tensorboard").glob("events.*"))
    assert len(events) == 1
    assert events[0].stat().st_size > 100


def test_a_multirun_has_a_folder_a_job(corpus: Path, tmp_path: Path, tiny: tuple[str, ...]) -> None:
    run = arguments(corpus, tmp_path, "sweep", tiny)
    assert main([*run, "trainer.max_epochs=1", "seed=0,1", "--multirun"]) == 0
    weights = [
        load_model(tmp_path / "train" / "sweep" / job / "last.safetensors")[0].state_dict()
        for job in ("0", "1")
    ]
    assert not (weights[0]["model.head.weight"] == weights[1]["model.head.weight"]).all()
