"""Training repeats itself bit for bit, interrupted or not."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from asr.trainer.checkpoint import StateStore
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


def final_weights(run_dir: Path) -> tuple[str, str, str]:
    """What must be equal bit for bit: both model files, and the state's weights and moments."""
    state = state_of(run_dir)
    parts = [*state.parts["model"].values()]
    for moments in state.parts["optimizer"]["state"].values():
        parts += moments.values()
    joined = b"".join(part.numpy().tobytes() for part in parts)
    models = (digest(run_dir / "best.safetensors"), digest(run_dir / "last.safetensors"))
    return (*models, hashlib.sha256(joined).hexdigest())


def test_two_runs_are_the_same_bit_for_bit(
    make_recognizer: MakeRecognizer, make_splits: MakeSplits, tmp_path: Path
) -> None:
    splits = make_splits()
    finals = {}
    for name, settings in {
        "first": {}, "second": {}, "workers": {"num_workers": 2}, "other": {"seed": 1},
    }.items():  # fmt: skip
        torch.rand(len(name))  # moves the global random state, which must not matter
        folder = tmp_path / name
        folder.mkdir()
        recipe = varied_recipe(make_recognizer, splits)
        recipe.recognizer.train(name == "first")  # a loaded model, say, comes in evaluation mode
        torch.manual_seed(len(finals))
        trainer_of(**settings).fit(recipe, folder)
        finals[name] = final_weights(folder)
    assert finals["first"] == finals["second"] == finals["workers"]
    assert not set(finals["first"]) & set(finals["other"])


class Interrupted:
    """A schedule that raises KeyboardInterrupt before step number `step`, counted from 0."""

    def __init__(self, step: int) -> None:
        self.left = step

    def __call__(self, progress: float) -> float:
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        return 1.0


class InterruptedWrite:
    """os.replace that raises KeyboardInterrupt the time `count`, from 0, that it writes `name`."""

    def __init__(self, name: str, count: int = 0) -> None:
        self.name = name
        self.left = count
        self.replace = os.replace

    def __call__(self, source: Any, target: Any) -> None:
        if Path(target).name == self.name:
            if not self.left:
                raise KeyboardInterrupt
            self.left -= 1
        self.replace(source, target)


@pytest.fixture(scope="module")
def uninterrupted(
    make_recognizer: MakeRecognizer,
    make_splits: MakeSplits,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[str, str, str]:
    folder = tmp_path_factory.mktemp("uninterrupted")
    recipe = varied_recipe(make_recognizer, make_splits())
    progress = trainer_of(save_every_s=0).fit(recipe, folder)
    assert progress.step == 2 * STEPS_AN_EPOCH
    return final_weights(folder)


@pytest.mark.parametrize("interruptions", [[1], [2], [4], [5], [6], [9], [2, 3, 5]], ids=str)
def test_an_interrupted_run_goes_on_as_if_nothing_had_been(
    make_recognizer: MakeRecognizer,
    make_splits: MakeSplits,
    tmp_path: Path,
    uninterrupted: tuple[str, str, str],
    interruptions: list[int],
) -> None:
    splits, folder = make_splits(), tmp_path / "again"
    folder.mkdir()
    done = 0
    for step in interruptions:
        recipe = varied_recipe(make_recognizer, splits, schedule=Interrupted(step - done))
        with pytest.raises(KeyboardInterrupt):
            trainer_of(save_every_s=0).fit(recipe, folder, resume=done > 0)
        done = step
    recipe = varied_recipe(make_recognizer, splits)
    progress = trainer_of(save_every_s=0).fit(recipe, folder, resume=True)
    assert progress.step == 2 * STEPS_AN_EPOCH
    assert final_weights(folder) == uninterrupted


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("index.json", 0),  # of the state before the first step
        ("000003-step-2.pt", 0),
        ("index.json", 3),
        ("worst.jsonl", 0),
        ("best.safetensors", 0),
        ("last.safetensors", 0),
        ("000007-step-5.pt", 0),  # after the validation; the sixth is from before it
        ("index.json", 6),
        ("last.safetensors", 1),
    ],
)
def test_a_run_killed_while_it_writes_goes_on_too(
    make_recognizer: MakeRecognizer,
    make_splits: MakeSplits,
    tmp_path: Path,
    uninterrupted: tuple[str, str, str],
    name: str,
    count: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    splits, folder = make_splits(), tmp_path / "again"
    folder.mkdir()
    monkeypatch.setattr(os, "replace", InterruptedWrite(name, count))
    with pytest.raises(KeyboardInterrupt):
        trainer_of(save_every_s=0).fit(varied_recipe(make_recognizer, splits), folder)
    monkeypatch.undo()
    trainer_of(save_every_s=0).fit(varied_recipe(make_recognizer, splits), folder, resume=True)
    assert final_weights(folder) == uninterrupted


def test_a_validation_done_again_has_one_row(
    make_recognizer: MakeRecognizer,
    make_splits: MakeSplits,
    run_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    splits = make_splits()
    monkeypatch.setattr(os, "replace", InterruptedWrite("best.safetensors"))
    with pytest.raises(KeyboardInterrupt):
        trainer_of(save_every_s=0).fit(varied_recipe(make_recognizer, splits), run_dir)
    monkeypatch.undo()
    trainer_of(save_every_s=0).fit(varied_recipe(make_recognizer, splits), run_dir, resume=True)
    validated = [int(row["step"]) for row in rows_of(run_dir / "validations.csv")]
    assert validated == [STEPS_AN_EPOCH, 2 * STEPS_AN_EPOCH]


def test_a_finished_run_has_nothing_to_go_on_with(
    make_recognizer: MakeRecognizer, make_splits: MakeSplits, run_dir: Path
) -> None:
    recipe = varied_recipe(make_recognizer, make_splits())
    trainer_of().fit(recipe, run_dir)
    before = {path.name: digest(path) for path in run_dir.iterdir() if path.is_file()}
    again = varied_recipe(make_recognizer, make_splits())
    progress = trainer_of().fit(again, run_dir, resume=True)
    assert progress.epoch == 2
    assert {name: digest(run_dir / name) for name in before} == before


def test_rows_after_the_state_are_cut_on_resume(
    make_recognizer: MakeRecognizer, make_splits: MakeSplits, run_dir: Path
) -> None:
    splits = make_splits()
    settings: dict[str, Any] = {"max_epochs": 3, "log_every": 1}
    recipe = varied_recipe(make_recognizer, splits, schedule=Interrupted(STEPS_AN_EPOCH + 3))
    with pytest.raises(KeyboardInterrupt):
        trainer_of(**settings).fit(recipe, run_dir)  # saved after an epoch, not within
    before = (run_dir / "steps.csv").read_text().splitlines()
    assert len(before) == 1 + STEPS_AN_EPOCH + 3
    recipe = varied_recipe(make_recognizer, splits)
    trainer_of(**settings).fit(recipe, run_dir, resume=True)
    steps = [int(row["step"]) for row in rows_of(run_dir / "steps.csv")]
    assert steps == list(range(1, 3 * STEPS_AN_EPOCH + 1))
    losses = [row["loss"] for row in rows_of(run_dir / "steps.csv")]
    assert losses[: STEPS_AN_EPOCH + 3] == [row.split(",")[2] for row in before[1:]]
    validated = [int(row["step"]) for row in rows_of(run_dir / "validations.csv")]
    assert validated == [STEPS_AN_EPOCH, 2 * STEPS_AN_EPOCH, 3 * STEPS_AN_EPOCH]


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 5}, {"batch_duration_s": 2.0}, {"accumulate": 2}, {"sort_first_epoch": False},
    ],
    ids=str,
)  # fmt: skip
def test_a_run_on_other_settings_or_data_is_not_gone_on_with(
    make_recognizer: MakeRecognizer,
    make_splits: MakeSplits,
    run_dir: Path,
    change: dict[str, Any],
) -> None:
    splits = make_splits()
    with pytest.raises(KeyboardInterrupt):
        trainer_of(save_every_s=0).fit(
            recipe_of(make_recognizer(), splits, schedule=Interrupted(1)), run_dir
        )
    message = r"-step-\d+\.pt: was saved by a training on other data or settings"
    with pytest.raises(ValueError, match=message):
        trainer_of(**change).fit(recipe_of(make_recognizer(), splits), run_dir, resume=True)
    fewer = replace(splits, train=splits.train[1:])
    with pytest.raises(ValueError, match=message):
        trainer_of().fit(recipe_of(make_recognizer(), fewer), run_dir, resume=True)


def test_a_finished_run_can_be_given_more_epochs(
    make_recognizer: MakeRecognizer, make_splits: MakeSplits, tmp_path: Path
) -> None:
    splits = make_splits()
    (extended, whole) = (tmp_path / "extended", tmp_path / "whole")
    for folder, lengths in ((extended, (1, 3)), (whole, (3,))):
        folder.mkdir()
        for index, max_epochs in enumerate(lengths):
            recipe = varied_recipe(make_recognizer, splits)  # whose learning rate is constant
            trainer = trainer_of(max_epochs=max_epochs)
            progress = trainer.fit(recipe, folder, resume=index > 0)
            assert progress.epoch == max_epochs
    assert final_weights(extended) == final_weights(whole)


def test_settings_that_changed_are_told_and_hold(
    make_recognizer: MakeRecognizer,
    make_splits: MakeSplits,
    run_dir: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def go_on(epochs: int, weight_decay: float) -> float:
        optimizer = partial(torch.optim.AdamW, lr=0.01, weight_decay=weight_decay)
        recipe = recipe_of(make_recognizer(), make_splits(), optimizer)
        settings = {"x": "1", "optim.weight_decay": f"{weight_decay:g}"}
        trainer = trainer_of(max_epochs=epochs)
        trainer.fit(replace(recipe, settings=settings), run_dir, resume=epochs > 1)
        state = state_of(run_dir)
        assert state.origin.settings == settings
        return float(state.parts["model"]["model.head.weight"].norm())

    go_on(1, 0.0)
    before = go_on(2, 0.0)
    assert not [line for line in caplog.messages if "other settings" in line]
    after = go_on(3, 20.0)
    assert "resumed with other settings than before: optim.weight_decay 0 -> 20" in caplog.messages
    assert after < 0.8 * before
    sgd = recipe_of(make_recognizer(), make_splits(), partial(torch.optim.SGD, lr=0.1))
    with pytest.raises(ValueError, match=r"has the moments of AdamW, expected those of SGD"):
        trainer_of(max_epochs=4).fit(sgd, run_dir, resume=True)


def test_audio_that_was_replaced_is_told_and_the_training_goes_on(
    make_recognizer: MakeRecognizer,
    make_splits: MakeSplits,
    run_dir: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    splits = make_splits()
    copied = run_dir / "audio.wav"
    copied.write_bytes(splits.train[5].audio_filepath.read_bytes())
    train = [replace(each, audio_filepath=copied) if k == 5 else each for k, each in
             enumerate(splits.train)]  # fmt: skip
    splits = replace(splits, train=tuple(train))

    def go_on(epochs: int) -> list[str]:
        caplog.clear()
        recipe = recipe_of(make_recognizer(), splits)
        progress = trainer_of(max_epochs=epochs).fit(recipe, run_dir, resume=epochs > 1)
        assert progress.epoch == epochs
        return [line for line in caplog.messages if "other audio" in line]

    assert go_on(1) == go_on(2) == []
    copied.write_bytes(splits.train[6].audio_filepath.read_bytes())
    (line,) = go_on(3)
    assert ": 1 of 12 files have another size or time of change than when the state's" in line
    assert f"{copied} first" in line
    assert go_on(4) == []


def test_a_state_from_before_audio_was_compared_loads(
    make_recognizer: MakeRecognizer, make_splits: MakeSplits, run_dir: Path
) -> None:
    trainer_of(max_epochs=1).fit(recipe_of(make_recognizer(), make_splits()), run_dir)
    _, path = StateStore(run_dir / "state").load()
    state = torch.load(path, weights_only=True)
    del state["parts"]["audio"]
    torch.save(state, path.with_name("999999-step-5.pt"))
    progress = trainer_of().fit(recipe_of(make_recognizer(), make_splits()), run_dir, resume=True)
    assert progress.epoch == 2


def test_no_state_to_go_on_with(
    make_recognizer: MakeRecognizer, make_splits: MakeSplits, run_dir: Path
) -> None:
    with pytest.raises(ValueError, match="holds no whole training state"):
        trainer_of().fit(recipe_of(make_recognizer(), make_splits()), run_dir, resume=True)
