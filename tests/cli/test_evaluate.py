"""asr evaluate: totals, report files, errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from asr.cli.main import main


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


def test_a_missing_model_is_named(corpus: Path, tmp_path: Path, fails: Callable[..., str]) -> None:
    line = fails("evaluate", f"model_file={tmp_path}/no.safetensors", f"manifest={corpus}",
                 f"paths.run_dir={tmp_path}")  # fmt: skip
    assert line == f"{tmp_path}/no.safetensors: No such file or directory"


def test_required_values_are_named(tmp_path: Path, fails: Callable[..., str]) -> None:
    assert "model_file" in fails("evaluate", f"paths.run_dir={tmp_path}")
