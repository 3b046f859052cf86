"""asr runs: trainings found, their settings read off configs, and the files that are written."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from asr.cli.main import main
from asr.cli.record import deciding_settings, flat_settings
from asr.cli.runs import find_runs
from asr.recognizer import ModelSpec, Part

Fails = Callable[..., str]

CONFIG = """
name: ${now:%Y}
seed: 3
resume: null
paths: {data_dir: data, run_dir: runs}
data: {_target_: asr.data.splits.load_splits, train: "${paths.data_dir}/a.jsonl", dev: [x, y]}
optim: {_target_: torch.optim.AdamW, lr: 0.01, betas: [0.9, 0.98]}
augment: {_target_: asr.augment.Augment, waveform: null, spec: {freq_width: 3}}
trainer: {max_epochs: 1, seed: "${seed}", where: "${oc.env:NO_SUCH_VARIABLE_HERE}"}
"""
VALIDATIONS = "step,epoch,elapsed_s,audio_h,loss,wer,cer\n10,1,60,0.5,1.5,{wer},0.25\n"


def write_run(folder: Path, *overrides: str, wer: float | None = 0.5) -> Path:
    """A folder as a training leaves it; without a WER, as one that did not get that far."""
    (folder / ".hydra").mkdir(parents=True)
    config = OmegaConf.merge(OmegaConf.create(CONFIG), OmegaConf.from_dotlist([*overrides]))
    OmegaConf.save(config, folder / ".hydra" / "config.yaml")
    if wer is not None:
        (folder / "validations.csv").write_text(VALIDATIONS.format(wer=wer))
    return folder


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_settings_are_flat_resolved_where_they_can_be_and_said_once() -> None:
    assert flat_settings(OmegaConf.to_container(OmegaConf.create(CONFIG))) == {
        "seed": 3,
        "data": "load_splits",
        "data.train": "data/a.jsonl",
        "data.dev": "x, y",
        "optim": "AdamW",
        "optim.lr": 0.01,
        "optim.betas": "0.9, 0.98",
        "augment": "Augment",
        "augment.waveform": None,
        "augment.spec.freq_width": 3,
        "trainer.max_epochs": 1,
        "trainer.where": "${oc.env:NO_SUCH_VARIABLE_HERE}",
    }


def test_settings_that_decide_the_weights_are_text_and_equal_numbers_equal_text() -> None:
    spec = ModelSpec(Part("LogMel", {"n_mels": 20}), Part("BiLstmCtc", {"dropout": 0.5}), "ab", {})
    config = OmegaConf.create(CONFIG)
    config.trainer = {"clip_norm": 5.0, "log_every": 3, "patience": 1, "tensorboard": False}
    assert deciding_settings(config, spec) == {
        "seed": "3",
        "optim": "AdamW",
        "optim.lr": "0.01",
        "optim.betas": "0.9, 0.98",
        "augment": "Augment",
        "augment.waveform": "null",
        "augment.spec.freq_width": "3",
        "trainer.clip_norm": "5",
        "trainer.patience": "1",
        "features.n_mels": "20",
        "model.dropout": "0.5",
    }


def test_table_csv_and_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, wer in ((1, 0.3), (2, 0.5)):
        write_run(tmp_path / "sweep" / str(seed), f"seed={seed}", "optim.lr=0.1", wer=wer)
    write_run(tmp_path / "sweep" / "3", wer=0.35)
    failed = write_run(tmp_path / "other" / "x", "optim.lr=9", wer=None)
    (failed / "error.txt").write_text("loss is not finite\n")
    (tmp_path / "evaluated" / ".hydra").mkdir(parents=True)
    (tmp_path / "evaluated" / ".hydra" / "config.yaml").write_text("model_file: x\n")
    folders = [str(tmp_path / "sweep"), str(tmp_path), str(tmp_path / "sweep" / "1")]
    assert main(["runs", *folders]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "0.01 1 35.00 25.00 1.5 10 0.50 1.0 sweep/3" in lines
    assert "0.1 2 40.00 14.14 30.0-50.0 25.00 1.5 10 0.50 1.0 sweep/1" in lines
    assert any(line.startswith("other/x failed 0 - loss is not finite") for line in lines)
    found = rows(tmp_path / "sweep" / "runs.csv")
    assert [(row["group"], row["optim.lr"], row["seed"], row["state"]) for row in found] == [
        ("1", "0.01", "3", "done"),
        ("2", "0.1", "1", "done"),
        ("2", "0.1", "2", "done"),
        ("", "9", "3", "failed"),
    ]
    assert (tmp_path / "sweep" / "runs.png").read_bytes().startswith(b"\x89PNG")


def test_columns_and_output_are_chosen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], fails: Fails
) -> None:
    for number in range(4):
        overrides = (f"optim.lr={number}", f"model.hidden_size={number % 2}")
        write_run(tmp_path / "runs" / str(number), *overrides, wer=number / 10)
    by = ["runs", str(tmp_path / "runs"), "--by", "model.hidden_size", "--limit", "1"]
    assert main([*by, "--output", str(tmp_path / "new" / "folder")]) == 0
    assert "1 line of higher WER left out" in capsys.readouterr().out
    found = rows(tmp_path / "new" / "folder" / "runs.csv")
    assert [row["group"] for row in found] == ["1", "1", "2", "2"]
    assert "optim.lr" not in found[0]
    assert not (tmp_path / "runs" / "runs.csv").exists()
    line = fails("runs", str(tmp_path / "runs"), "--by", "model.hiden_size")
    assert line == "no run has the setting 'model.hiden_size': did you mean 'model.hidden_size'?"


def test_a_config_that_was_cut_is_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "good")
    write_run(tmp_path / "cut")
    (tmp_path / "cut" / ".hydra" / "config.yaml").write_text("data: [1, \n")
    assert main(["runs", str(tmp_path)]) == 0
    assert [row["state"] for row in rows(tmp_path / "runs.csv")] == ["done", "failed"]
    assert "config.yaml cannot be read" in capsys.readouterr().out


def test_nothing_to_compare_is_refused(tmp_path: Path, fails: Fails) -> None:
    assert fails("runs", str(tmp_path)) == (
        f"{tmp_path}: no training below, expected folders of asr train"
    )
    assert fails("runs", str(tmp_path), "--limit=0") == "--limit 0, expected at least 1 line"
    assert fails("runs", str(tmp_path / "none")) == f"{tmp_path}/none: no such folder"


def test_a_run_that_several_names_lead_to_is_found_once(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a" / "run")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert find_runs([tmp_path / "link", tmp_path / "a", tmp_path]) == [tmp_path / "link" / "run"]
    assert find_runs([run]) == [run]
