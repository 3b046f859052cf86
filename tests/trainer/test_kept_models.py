"""What a validation leaves behind, and which models stay for averaging."""

from __future__ import annotations

from pathlib import Path

import pytest

from asr.model_file import load_model
from asr.trainer.kept_models import drop_models, kept_model, save_models
from tests.trainer.fitting import MakeRecognizer, digest

OTHERS = {"best.safetensors", "model-x.safetensors", "model-5.safetensors.bak", "my-model-5.txt"}


@pytest.mark.parametrize(
    ("step", "num_kept", "expected"),
    [
        (100, 2, {9, 100}),  # by number, not by name
        (100, 3, {5, 9, 100}),
        (100, 9, {5, 9, 100}),
        (50, 2, {5, 9}),  # 100 will be done again
        (0, 2, set()),  # of a training that is overwritten
        (100, 0, set()),
    ],
)
def test_the_latest_stay_up_to_the_step(
    tmp_path: Path, step: int, num_kept: int, expected: set[int]
) -> None:
    for name in OTHERS:
        (tmp_path / name).touch()
    for number in (9, 100, 5):
        (tmp_path / kept_model(number)).touch()
    drop_models(tmp_path, step, num_kept)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == OTHERS | {f"model-{number}.safetensors" for number in expected}


@pytest.mark.parametrize("num_kept", [0, 1, 2])
def test_the_models_of_three_validations(
    make_recognizer: MakeRecognizer, tmp_path: Path, num_kept: int
) -> None:
    for step, is_best in ((5, False), (10, True), (15, False)):
        recognizer = make_recognizer(seed=step)
        save_models(tmp_path, recognizer, {"step": step, "dev_wer": 0.5}, is_best, num_kept)
    kept = {kept_model(step) for step in (10, 15)[2 - num_kept :]}
    assert {path.name for path in tmp_path.iterdir()} == {
        "best.safetensors", "last.safetensors", *kept,
    }  # fmt: skip
    _, training = load_model(tmp_path / "best.safetensors")
    assert training == {"step": 10, "dev_wer": 0.5}
    assert load_model(tmp_path / "last.safetensors")[1]["step"] == 15
    if num_kept:
        assert digest(tmp_path / "last.safetensors") == digest(tmp_path / kept_model(15))
