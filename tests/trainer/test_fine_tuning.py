"""Frozen blocks, rates by block, averaged weights and kept models within a training."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from asr.model_file import average_models, load_model
from asr.trainer.distributed import Stopped
from asr.trainer.validation import Validation, validate
from tests.trainer.fitting import (
    STEPS_AN_EPOCH,
    MakeRecognizer,
    MakeSplits,
    digest,
    recipe_of,
    rows_of,
    state_of,
    trainer_of,
    varied_recipe,
)

AVERAGE = {"ema_decay": 0.7}


def model_weights(path: Path) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = load_model(path)[0].state_dict()
    return weights


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    assert before.keys() == after.keys()
    return {name for name, value in before.items() if not torch.equal(after[name], value)}


def test_frozen_layers_stay_and_the_others_learn(
    make_recognizer: MakeRecognizer, make_splits: MakeSplits, run_dir: Path
) -> None:
    recipe = varied_recipe(make_recognizer, make_splits())
    before = {name: value.clone() for name, value in recipe.recognizer.state_dict().items()}
    trainer_of(frozen_layers=1).fit(recipe, run_dir)
    moved = changed(before, model_weights(run_dir / "last.safetensors"))
    frozen = ("model.subsampling", "model.input_norm")
    assert moved == {name for name in before if not name.startswith(frozen)}


def test_layers_learn_at_their_rates(
    make_recognizer: MakeRecognizer, make_splits: MakeSplits, run_dir: Path
) -> None:
    recognizer = make_recognizer(num_layers=1)
    recipe = recipe_of(recognizer, make_splits(), partial(torch.optim.SGD, lr=0.08))
    trainer_of(layer_decay=0.5, log_every=1).fit(recipe, run_dir)
    groups = state_of(run_dir).parts["optimizer"]["param_groups"]
    assert [group["lr"] for group in groups] == [0.02, 0.02, 0.04, 0.04, 0.08, 0.08]
    assert {row["lr"] for row in rows_of(run_dir / "steps.csv")} == {"0.08"}  # of the head


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"frozen_layers": 3}, r"trainer\.frozen_layers 3, expected 0 to 2: the model has 3"),
        ({"layer_decay": 0.0}, r"trainer\.layer_decay 0, expected above 0 to 1"),
        ({"ema_decay": 1.0}, r"trainer\.ema_decay 1, expected 0 to below 1"),
        ({"keep_models": -1}, r"trainer\.keep_models -1, expected 0 or more"),
    ],
    ids=str,
)
def test_settings_that_make_no_sense(
    make_recognizer: MakeRecognizer,
    make_splits: MakeSplits,
    run_dir: Path,
    settings: dict[str, Any],
    message: str,
) -> None:
    with pytest.raises(ValueError, match=message):
        trainer_of(**settings).fit(recipe_of(make_recognizer(), make_splits()), run_dir)


@pytest.fixture(scope="module")
def averaged(
    make_recognizer: MakeRecognizer,
    make_splits: MakeSplits,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Folder of a training with averaged weights."""
    folder = tmp_path_factory.mktemp("averaged")
    trainer_of(**AVERAGE).fit(varied_recipe(make_recognizer, make_splits()), folder)
    return folder


def test_the_average_is_validated_and_saved_and_does_not_touch_the_training(
    make_recognizer: MakeRecognizer, make_splits: MakeSplits, run_dir: Path, averaged: Path
) -> None:
    trainer_of().fit(varied_recipe(make_recognizer, make_splits()), run_dir)
    plain, parts = state_of(run_dir).parts, state_of(averaged).parts
    assert not changed(plain["model"], parts["model"])
    losses = [[row["loss"] for row in rows_of(each / "validations.csv")]
              for each in (run_dir, averaged)]  # fmt: skip
    assert len(losses[0]) == 2
    assert not set(losses[0]) & set(losses[1])
    saved = model_weights(averaged / "last.safetensors")
    average = {f"model.{name}": value for name, value in parts["average"]["average"].items()}
    assert parts["average"]["num_updates"] == 2 * STEPS_AN_EPOCH
    for name, value in saved.items():
        expected = average.get(name, parts["model"][name])  # running statistics: the training's
        assert torch.equal(value, expected), name
    assert changed(parts["model"], saved) == average.keys()


class InterruptedSchedule:
    """Raises KeyboardInterrupt before step number `step`, counted from 0."""

    def __init__(self, step: int) -> None:
        self.left = step

    def __call__(self, progress: float) -> float:
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        return 1.0


@pytest.mark.parametrize("step", [3, STEPS_AN_EPOCH, STEPS_AN_EPOCH + 2])
def test_an_interrupted_average_goes_on_as_if_nothing_had_been(
    make_recognizer: MakeRecognizer,
    make_splits: MakeSplits,
    run_dir: Path,
    averaged: Path,
    step: int,
) -> None:
    splits = make_splits()
    recipe = varied_recipe(make_recognizer, splits, schedule=InterruptedSchedule(step))
    with pytest.raises(KeyboardInterrupt):
        trainer_of(save_every_s=0, **AVERAGE).fit(recipe, run_dir)
    again = varied_recipe(make_recognizer, splits)
    trainer_of(**AVERAGE).fit(again, run_dir, resume=True)
    assert_same_end(run_dir, averaged)


def assert_same_end(run_dir: Path, other: Path) -> None:
    assert digest(run_dir / "last.safetensors") == digest(other / "last.safetensors")
    one, two = (state_of(folder).parts for folder in (run_dir, other))
    assert not changed(one["model"], two["model"])
    assert not changed(one["average"]["average"], two["average"]["average"])


def test_a_stop_within_a_validation_saves_the_trainings_own_weights(
    make_recognizer: MakeRecognizer,
    make_splits: MakeSplits,
    run_dir: Path,
    averaged: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def asked(*arguments: Any) -> Validation:
        os.kill(os.getpid(), signal.SIGTERM)
        return validate(*arguments)

    monkeypatch.setattr("asr.trainer.trainer.validate", asked)
    splits = make_splits()
    with pytest.raises(Stopped, match=f"stopped by SIGTERM at step {STEPS_AN_EPOCH}, saved"):
        trainer_of(**AVERAGE).fit(varied_recipe(make_recognizer, splits), run_dir)
    monkeypatch.undo()
    trainer_of(**AVERAGE).fit(varied_recipe(make_recognizer, splits), run_dir, resume=True)
    assert_same_end(run_dir, averaged)


@pytest.mark.parametrize(("before", "after"), [(0.0, 0.7), (0.7, 0.0)])
def test_an_average_cannot_begin_or_end_within_a_training(
    make_recognizer: MakeRecognizer,
    make_splits: MakeSplits,
    run_dir: Path,
    before: float,
    after: float,
) -> None:
    splits = make_splits()
    recipe = varied_recipe(make_recognizer, splits, schedule=InterruptedSchedule(2))
    with pytest.raises(KeyboardInterrupt):
        trainer_of(ema_decay=before, save_every_s=0).fit(recipe, run_dir)
    with pytest.raises(ValueError, match=r"does not fit this model \(average\.average has "):
        trainer_of(ema_decay=after).fit(
            varied_recipe(make_recognizer, splits), run_dir, resume=True
        )


def test_the_last_models_are_kept_and_have_an_average(
    make_recognizer: MakeRecognizer, make_splits: MakeSplits, run_dir: Path
) -> None:
    (run_dir / "model-999.safetensors").touch()  # of a training that is overwritten
    recipe = replace(
        varied_recipe(make_recognizer, make_splits()), start={"init_from": "old.safetensors"}
    )
    trainer_of(max_epochs=3, keep_models=2).fit(recipe, run_dir)
    paths = sorted(run_dir.glob("model-*.safetensors"))
    assert [path.name for path in paths] == ["model-10.safetensors", "model-15.safetensors"]
    assert digest(paths[1]) == digest(run_dir / "last.safetensors")
    assert [load_model(path)[1]["step"] for path in paths] == [10, 15]
    assert load_model(paths[0])[1]["init_from"] == "old.safetensors"
    average, training = average_models(paths)
    one, two = (model_weights(path)["model.head.weight"] for path in paths)
    torch.testing.assert_close(average.model.head.weight.detach(), (one + two) / 2)
    assert "model-15.safetensors (step 15, " in training["average_of"]
    # Going on without keeping leaves them.
    again = varied_recipe(make_recognizer, make_splits())
    trainer_of(max_epochs=3).fit(again, run_dir, resume=True)
    assert sorted(run_dir.glob("model-*.safetensors")) == paths
