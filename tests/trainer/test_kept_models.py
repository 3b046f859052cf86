"""Which models stay for averaging."""

from __future__ import annotations

from pathlib import Path

import pytest

from asr.trainer.kept_models import drop_models, kept_model

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
        kept_model(tmp_path, number).touch()
    drop_models(tmp_path, step, num_kept)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == OTHERS | {f"model-{number}.safetensors" for number in expected}
