"""asr average: one more model file, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from asr.cli.main import main
from asr.model_file import load_model, save_model
from asr.recognizer import ModelSpec, Part, Recognizer

Fails = Callable[..., str]


@pytest.fixture
def models(run_dir: Path) -> list[str]:
    """The last model of a training, and the best."""
    return [str(run_dir / name) for name in ("last.safetensors", "best.safetensors")]


def test_the_average_is_a_model_file(
    models: list[str], corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "mean.safetensors"
    assert main(["average", *models, "--output", str(output)]) == 0
    assert capsys.readouterr().out == f"{output}: mean of 2 models\n"
    average, training = load_model(output)
    last, best = (load_model(Path(path))[0].model.head.bias for path in models)
    torch.testing.assert_close(average.model.head.bias, (last + best) / 2)
    assert training["average_of"].count("last.safetensors (step ") == 1
    assert main(["transcribe", "--model", str(output), str(corpus.parent / "03.wav")]) == 0
    assert capsys.readouterr().out == f"{corpus.parent / '03.wav'}\tabc\n"


def test_batch_norms_statistics_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = ModelSpec(
        Part("LogMel"), Part("BiLstmCtc", {"hidden_size": 2, "norm": "batch"}), "a", {}
    )
    one, other, output = (str(tmp_path / f"{name}.safetensors") for name in ("a", "b", "mean"))
    for path in (one, other):
        save_model(Path(path), Recognizer(spec), {})
    assert main(["average", one, other, "--output", output]) == 0
    told = f"{output}: mean of 2 models, batch norm's running statistics too\n"
    assert capsys.readouterr().out == told


def test_an_output_is_not_overwritten_unless_asked(
    models: list[str], tmp_path: Path, fails: Fails
) -> None:
    output = tmp_path / "mean.safetensors"
    output.write_text("mine")
    line = fails("average", *models, "--output", str(output))
    assert line == f"{output} exists, expected a new file or --overwrite"
    assert output.read_text() == "mine"
    assert main(["average", *models, "--output", str(output), "--overwrite"]) == 0
    assert "average_of" in load_model(output)[1]


def test_one_model_and_no_model(models: list[str], tmp_path: Path, fails: Fails) -> None:
    output = str(tmp_path / "mean.safetensors")
    line = fails("average", models[0], "--output", output)
    assert line == "1 model to average, expected 2 or more"
    line = fails("average", models[0], str(tmp_path / "gone.safetensors"), "--output", output)
    assert line == f"{tmp_path}/gone.safetensors: No such file or directory"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there(models: list[str], tmp_path: Path, fails: Fails) -> None:
    output = tmp_path / "none" / "mean.safetensors"
    assert fails("average", *models, "--output", str(output)).startswith(f"{output}: ")
