"""Training: it learns, it repeats itself bit for bit, and it says what it leaves out.

The corpus is the one of conftest.py, letters as tones; nothing here looks below `Trainer.fit`.
"""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from asr.audio import load_audio
from asr.augment import Augment, SpecAugment, WaveformAugment
from asr.checkpoint import Recognizer, load_model
from asr.data import dataset
from asr.data.manifest import Utterance
from asr.data.splits import Splits
from asr.metrics.error_rate import word_errors
from asr.model.ctc import ctc_loss
from asr.trainer import Trainer
from asr.trainer.schedule import Constant, Linear
from asr.trainer.state import Progress
from asr.trainer.trainer import Recipe
from asr.transcriber import Transcriber

RATE = 8000  # [Hz]
PLAIN = Augment()
VARIED = Augment(
    WaveformAugment(speeds=(0.95, 1.0, 1.05), gain_db=(-3.0, 3.0)),
    SpecAugment(freq_width=3, time_width=3),
)
ADAM = partial(torch.optim.AdamW, lr=0.01)
Optimizer = Callable[[Iterable[Any]], torch.optim.Optimizer]
MakeSplits = Callable[..., Splits]
MakeRecognizer = Callable[..., Recognizer]
MakeUtterance = Callable[..., Utterance]


@pytest.fixture(autouse=True)
def _no_picture(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes most of a second."""
    if "picture" not in request.node.name:
        monkeypatch.setattr("asr.trainer.log.draw_curves", lambda run_dir: None)


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    return folder


def trainer_of(**settings: Any) -> Trainer:
    quick = {"max_epochs": 2, "batch_duration_s": 1.5, "num_workers": 0, "accelerator": "cpu"}
    return Trainer(**{**quick, **settings})


def recipe_of(
    recognizer: Recognizer,
    splits: Splits,
    optimizer: Optimizer = ADAM,
    augment: Augment = PLAIN,
    schedule: Any = Constant(warmup=0.0),  # noqa: B008 -- it has no state
) -> Recipe:
    return Recipe(recognizer, splits, optimizer, schedule, augment)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def transcripts(model_file: Path, utterances: Iterable[Utterance]) -> list[str]:
    transcriber = Transcriber.load(model_file, device="cpu")
    return [transcriber.transcribe_file(u.audio_filepath).text for u in utterances]


@pytest.fixture
def all_pairs(make_utterance: MakeUtterance) -> list[Utterance]:
    """Every letter beside every letter."""
    return [make_utterance(f"p{a}{b}", a + b) for a, b in product("abcd", repeat=2)]


def test_it_learns_to_write_words_it_has_never_heard(
    make_recognizer: MakeRecognizer,
    make_splits: MakeSplits,
    all_pairs: list[Utterance],
    run_dir: Path,
) -> None:
    splits = make_splits(train=all_pairs)
    words = {u.text for u in splits.dev if len(u.text) > 2}
    assert len(words) == 4
    assert not words & {u.text for u in splits.train}
    adam = partial(torch.optim.AdamW, lr=0.02)
    recipe = recipe_of(make_recognizer(dropout=0.2), splits, adam, schedule=Linear(warmup=0.1))
    progress = trainer_of(max_epochs=20, validate_every=10, log_every=1).fit(recipe, run_dir)
    losses = [float(row["loss"]) for row in rows_of(run_dir / "steps.csv")]
    assert losses[-1] < 0.1 * losses[0]
    assert progress.epoch == 20
    assert progress.best_wer == 0.0
    heard = transcripts(run_dir / "best.safetensors", splits.dev)
    assert heard == [utterance.text for utterance in splits.dev]


def test_one_step_is_the_gradient_of_the_loss_per_character(
    make_recognizer: MakeRecognizer, make_splits: MakeSplits, run_dir: Path
) -> None:
    splits, recognizer = make_splits(), make_recognizer()
    expected = step_by_hand(recognizer, splits.train, lr=0.1)
    recipe = recipe_of(recognizer, splits, partial(torch.optim.SGD, lr=0.1))
    trainer_of(max_epochs=1, batch_duration_s=99, clip_norm=0).fit(recipe, run_dir)
    assert_weights(run_dir / "last.safetensors", expected, tolerance=1e-5)
    (row,) = rows_of(run_dir / "steps.csv")
    assert (row["step"], row["lr"]) == ("1", "0.1")


def step_by_hand(
    recognizer: Recognizer, utterances: Iterable[Utterance], lr: float
) -> dict[str, Tensor]:
    """Weights after a step of SGD on all utterances, each run alone."""
    copy = deepcopy(recognizer).train()
    total, characters = torch.zeros(()), 0
    for utterance in utterances:
        waveform = torch.from_numpy(load_audio(utterance.audio_filepath, RATE))[None]
        tokens = torch.tensor([copy.tokenizer.encode(utterance.text)])
        output = copy(waveform, torch.tensor([waveform.shape[1]]))
        total = total + ctc_loss(*output, tokens, torch.tensor([tokens.shape[1]])).sum()
        characters += tokens.shape[1]
    (total / characters).backward()
    with torch.no_grad():
        for parameter in copy.parameters():
            assert parameter.grad is not None
            parameter -= lr * parameter.grad
    return copy.state_dict()


def assert_weights(model_file: Path, expected: dict[str, Tensor], tolerance: float) -> None:
    found = load_model(model_file)[0].state_dict()
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=tolerance, atol=tolerance)


def test_accumulated_batches_take_the_step_of_one_large_batch(
    make_recognizer: MakeRecognizer, make_splits: MakeSplits, run_dir: Path
) -> None:
    splits = make_splits(lengths=(3,))
    sgd = partial(torch.optim.SGD, lr=0.1)
    expected = step_by_hand(make_recognizer(), splits.train, lr=0.1)
    half = 6 * (splits.train[0].duration or 0)  # of twelve equally long utterances
    recipe = recipe_of(make_recognizer(), splits, sgd)
    settings: dict[str, Any] = {"max_epochs": 1, "batch_duration_s": half, "clip_norm": 0}
    progress = trainer_of(accumulate=2, **settings).fit(recipe, run_dir)
    assert progress.step == 1
    assert_weights(run_dir / "last.safetensors", expected, tolerance=1e-5)

    two_steps = trainer_of(**settings).fit(recipe_of(make_recognizer(), splits, sgd), run_dir)
    assert two_steps.step == 2
    moved = load_model(run_dir / "last.safetensors")[0].state_dict()
    assert (moved["model.head.bias"] - expected["model.head.bias"]).abs().max() > 1e-3


def test_clipping_shortens_the_step_and_keeps_its_direction(
    make_recognizer: MakeRecognizer, make_splits: MakeSplits, run_dir: Path
) -> None:
    splits = make_splits()
    start = make_recognizer().state_dict()
    moves = []
    for clip_norm in (0.0, 0.5):
        recipe = recipe_of(make_recognizer(), splits, partial(torch.optim.SGD, lr=0.1))
        trainer_of(max_epochs=1, batch_duration_s=99, clip_norm=clip_norm).fit(recipe, run_dir)
        end = load_model(run_dir / "last.safetensors")[0].state_dict()
        moves.append(torch.cat([(end[name] - value).flatten() for name, value in start.items()]))
    free, clipped = moves
    assert clipped.norm() == pytest.approx(0.1 * 0.5, rel=1e-4)
    assert free.norm() > 2 * clipped.norm()
    assert torch.cosine_similarity(free, clipped, dim=0) > 0.9999
    norm = float(rows_of(run_dir / "steps.csv")[0]["grad_norm"])  # before clipping
    assert norm == pytest.approx(float(free.norm()) / 0.1, rel=1e-3)


def test_weight_decay_acts_on_matrices_only(
    make_recognizer: MakeRecognizer, make_splits: MakeSplits, run_dir: Path
) -> None:
    recognizer = make_recognizer()
    start = deepcopy(recognizer.state_dict())
    decay_only = partial(torch.optim.AdamW, lr=1e-30, weight_decay=0.5e30)
    trainer_of(max_epochs=1, batch_duration_s=99).fit(
        recipe_of(recognizer, make_splits(), decay_only), run_dir
    )
    for name, value in load_model(run_dir / "last.safetensors")[0].state_dict().items():
        expected = start[name] * (0.5 if value.ndim > 1 else 1.0)
        torch.testing.assert_close(value, expected, msg=name)


def varied_recipe(make_recognizer: MakeRecognizer, splits: Splits, **other: Any) -> Recipe:
    """With every draw there is: dropout, speed, gain and SpecAugment; and running statistics."""
    recognizer = make_recognizer(dropout=0.3, norm="batch")
    return recipe_of(recognizer, splits, augment=VARIED, **other)


def final_weights(run_dir: Path) -> tuple[str, str, str]:
    """What must be equal bit for bit: both model files, and the state's weights and moments."""
    state = torch.load(run_dir / "state.pt", weights_only=True)
    parts = [*state["model"].values()]
    for moments in state["optimizer"]["state"].values():
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
    """os.replace that raises KeyboardInterrupt instead of moving file number `count`, from 0."""

    def __init__(self, count: int) -> None:
        self.left = count
        self.replace = os.replace

    def __call__(self, source: Any, target: Any) -> None:
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        self.replace(source, target)


STEPS_AN_EPOCH = 5


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


@pytest.mark.parametrize("write", [1, 4, 5, 6, 7, 8, 9])
def test_a_run_killed_while_it_writes_goes_on_too(
    make_recognizer: MakeRecognizer,
    make_splits: MakeSplits,
    tmp_path: Path,
    uninterrupted: tuple[str, str, str],
    write: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Of an epoch: five states, best and last model where there is a better one, one state.
    splits, folder = make_splits(), tmp_path / "again"
    folder.mkdir()
    monkeypatch.setattr(os, "replace", InterruptedWrite(write))
    with pytest.raises(KeyboardInterrupt):
        trainer_of(save_every_s=0).fit(varied_recipe(make_recognizer, splits), folder)
    monkeypatch.undo()
    monkeypatch.setattr("asr.trainer.log.draw_curves", lambda run_dir: None)
    trainer_of(save_every_s=0).fit(varied_recipe(make_recognizer, splits), folder, resume=True)
    assert final_weights(folder) == uninterrupted


def test_a_validation_done_again_has_one_row(
    make_recognizer: MakeRecognizer,
    make_splits: MakeSplits,
    run_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    splits = make_splits()
    monkeypatch.setattr(os, "replace", InterruptedWrite(STEPS_AN_EPOCH))  # writing the best model
    with pytest.raises(KeyboardInterrupt):
        trainer_of(save_every_s=0).fit(varied_recipe(make_recognizer, splits), run_dir)
    monkeypatch.undo()
    monkeypatch.setattr("asr.trainer.log.draw_curves", lambda run_dir: None)
    trainer_of(save_every_s=0).fit(varied_recipe(make_recognizer, splits), run_dir, resume=True)
    validated = [int(row["step"]) for row in rows_of(run_dir / "validations.csv")]
    assert validated == [STEPS_AN_EPOCH, 2 * STEPS_AN_EPOCH]


def test_a_finished_run_has_nothing_to_go_on_with(
    make_recognizer: MakeRecognizer, make_splits: MakeSplits, run_dir: Path
) -> None:
    recipe = varied_recipe(make_recognizer, make_splits())
    trainer_of().fit(recipe, run_dir)
    before = {path.name: digest(path) for path in run_dir.iterdir() if path.name != "state.pt"}
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
    message = r"state\.pt: was saved by a training on other data or settings"
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


def test_no_state_to_go_on_with(
    make_recognizer: MakeRecognizer, make_splits: MakeSplits, run_dir: Path
) -> None:
    with pytest.raises(FileNotFoundError, match=r"state\.pt"):
        trainer_of().fit(recipe_of(make_recognizer(), make_splits()), run_dir, resume=True)


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes the waveform of an utterance NaN, which no audio file can be."""
    load = dataset.load_utterance

    def poison(name: str) -> None:
        def loaded(utterance: Utterance, sample_rate: int) -> Any:
            waveform = load(utterance, sample_rate)
            return np.full_like(waveform, np.nan) if utterance.id == name else waveform

        monkeypatch.setattr(dataset, "load_utterance", loaded)

    return poison


@pytest.mark.parametrize(
    ("norm", "batch_duration_s"),  # alone in its batch, and not
    [
        ("layer", 0.56),
        ("layer", 1.5),
        ("batch", 0.56),
        pytest.param(
            "batch",
            1.5,
            marks=pytest.mark.xfail(
                reason="NaN spreads through the batch's statistics, so its neighbours are named "
                "and left out as well",
                strict=True,
            ),
        ),
    ],
)
def test_an_utterance_of_nan_is_named_and_left_out(
    make_recognizer: MakeRecognizer,
    make_splits: MakeSplits,
    run_dir: Path,
    poisoned: Callable[[str], None],
    caplog: pytest.LogCaptureFixture,
    norm: str,
    batch_duration_s: float,
) -> None:
    poisoned("u7")
    recipe = recipe_of(make_recognizer(norm=norm), make_splits())
    trainer_of(batch_duration_s=batch_duration_s, save_every_s=0).fit(recipe, run_dir)
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 2  # once an epoch
    assert all("loss is not finite" in warning for warning in warnings)
    assert [warning.rsplit(": ", 1)[1] for warning in warnings] == ["u7", "u7"]
    for value in load_model(run_dir / "last.safetensors")[0].state_dict().values():
        assert value.isfinite().all()
    state = torch.load(run_dir / "state.pt", weights_only=True)
    for moments in state["optimizer"]["state"].values():
        assert all(value.isfinite().all() for value in moments.values())
    assert all(np.isfinite(float(row["loss"])) for row in rows_of(run_dir / "steps.csv"))


def test_a_step_without_a_nan_utterance_is_that_of_the_others(
    make_recognizer: MakeRecognizer,
    make_splits: MakeSplits,
    run_dir: Path,
    poisoned: Callable[[str], None],
) -> None:
    splits, lr = make_splits(), 0.1
    others = [utterance for utterance in splits.train if utterance.id != "u7"]
    start = make_recognizer().state_dict()
    expected = step_by_hand(make_recognizer(), others, lr)
    poisoned("u7")
    recipe = recipe_of(make_recognizer(), splits, partial(torch.optim.SGD, lr=lr))
    trainer_of(max_epochs=1, batch_duration_s=99, clip_norm=0).fit(recipe, run_dir)
    found = load_model(run_dir / "last.safetensors")[0].state_dict()
    for name, value in expected.items():
        # The same direction; the length is by the characters of all.
        move, wanted = found[name] - start[name], value - start[name]
        assert torch.cosine_similarity(move.flatten(), wanted.flatten(), dim=0) > 0.999, name
        assert move.norm() == pytest.approx(float(wanted.norm()), rel=0.2), name


def test_infeasible_utterances_are_named_and_left_out(
    make_recognizer: MakeRecognizer,
    make_splits: MakeSplits,
    make_utterance: MakeUtterance,
    run_dir: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    # A gap of 0.03 s and 0.032 s a letter: 0.286 s for eight equal ones, 15 output frames, just
    # enough; 0.318 s for nine, 16 output frames where 17 are needed.
    misfit = make_utterance("misfit", "aaaaaaaaa", letter_s=0.002)
    tight = make_utterance("tight", "aaaaaaaa", letter_s=0.002)
    splits = make_splits(train=(misfit, tight))
    trainer_of(max_epochs=1, max_left_out=0.1).fit(recipe_of(make_recognizer(), splits), run_dir)
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 2
    assert warnings[0].startswith("left out misfit: 0.32 s give 16 output frames")
    assert warnings[1].startswith("1 training utterances left out, see ")
    (row,) = [json.loads(line) for line in (run_dir / "left_out.jsonl").read_text().splitlines()]
    assert row["id"] == "misfit"
    assert "expected at least 17 for its 9 characters" in row["reason"]


def test_too_many_infeasible_utterances_stop_it(
    make_recognizer: MakeRecognizer,
    make_splits: MakeSplits,
    make_utterance: MakeUtterance,
    run_dir: Path,
) -> None:
    misfits = [make_utterance(f"m{k}", "aaaa", letter_s=0.001) for k in range(2)]
    short = [replace(utterance, duration=0.05) for utterance in misfits]
    splits = make_splits(train=short)
    message = r"2 of 14 training utterances cannot be learnt, expected at most 14% .* first: m0: "
    with pytest.raises(ValueError, match=message):
        trainer_of(max_left_out=0.14).fit(recipe_of(make_recognizer(), splits), run_dir)
    assert not list(run_dir.glob("*.safetensors"))
    trainer_of(max_left_out=0.15, max_epochs=1).fit(recipe_of(make_recognizer(), splits), run_dir)


def test_nothing_left_to_learn_from(
    make_recognizer: MakeRecognizer, make_splits: MakeSplits, run_dir: Path
) -> None:
    splits = make_splits()
    empty = replace(splits, train=tuple(replace(u, text="") for u in splits.train))
    with pytest.raises(ValueError, match="no training utterance left of 12: u0: empty text"):
        trainer_of(max_left_out=1.0).fit(recipe_of(make_recognizer(), empty), run_dir)


def test_unusable_audio_stops_it_by_name(
    make_recognizer: MakeRecognizer, make_splits: MakeSplits, run_dir: Path
) -> None:
    splits = make_splits()
    broken = run_dir / "broken.wav"
    broken.write_bytes(b"no audio")
    train = (replace(splits.train[0], audio_filepath=broken), *splits.train[1:])
    with pytest.raises(ValueError, match=r"broken\.wav: cannot be read as audio"):
        trainer_of().fit(recipe_of(make_recognizer(), replace(splits, train=train)), run_dir)


def test_it_stops_early_when_nothing_gets_better(
    make_recognizer: MakeRecognizer,
    make_splits: MakeSplits,
    run_dir: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    still = partial(torch.optim.SGD, lr=0.0)
    recipe = recipe_of(make_recognizer(), make_splits(), still)
    progress = trainer_of(max_epochs=50, patience=2).fit(recipe, run_dir)
    assert progress.validations == 3  # the first is the best, two are no better
    assert progress.epoch == 3
    assert progress.best_step == STEPS_AN_EPOCH
    assert "stopped early: no better dev WER in 2 validations" in caplog.messages
    again = recipe_of(make_recognizer(), make_splits(), still)
    resumed = trainer_of(max_epochs=50, patience=2).fit(again, run_dir, resume=True)
    assert resumed.epoch == 3


def test_without_patience_it_goes_on_to_the_end(
    make_recognizer: MakeRecognizer, make_splits: MakeSplits, run_dir: Path
) -> None:
    recipe = recipe_of(make_recognizer(), make_splits(), partial(torch.optim.SGD, lr=0.0))
    progress = trainer_of(max_epochs=5, validate_every=2).fit(recipe, run_dir)
    assert progress.epoch == 5
    assert progress.validations == 3  # after 2, 4 and the last
    assert [row["epoch"] for row in rows_of(run_dir / "validations.csv")] == ["2", "4", "5"]


def test_the_best_model_is_the_one_with_the_lowest_dev_wer(
    make_recognizer: MakeRecognizer,
    make_splits: MakeSplits,
    all_pairs: list[Utterance],
    run_dir: Path,
) -> None:
    # Nothing is learnt in the first epoch, then a lot, and in the end all of it is ruined.
    def ruinous(progress: float) -> float:
        epoch = 30 * progress
        return 0.0 if epoch < 1 else 2.0 if epoch < 10 else 100.0

    splits = make_splits(train=all_pairs)
    recipe = recipe_of(make_recognizer(), splits, schedule=ruinous)
    progress = trainer_of(max_epochs=30, patience=7).fit(recipe, run_dir)
    steps_an_epoch, rest = divmod(progress.step, progress.epoch)
    assert rest == 0
    # Patience counts from the last better validation, not from all that were no better.
    assert progress.step == progress.best_step + 7 * steps_an_epoch
    assert progress.since_best == 7
    assert progress.best_step > 3 * steps_an_epoch
    rows = rows_of(run_dir / "validations.csv")
    rates = [float(row["wer"]) for row in rows]
    _, best = load_model(run_dir / "best.safetensors")
    _, last = load_model(run_dir / "last.safetensors")
    assert best["dev_wer"] == pytest.approx(min(rates), abs=1e-5)
    assert last["dev_wer"] == pytest.approx(rates[-1], abs=1e-5)
    assert min(rates) < rates[-1]
    order = [(float(row["wer"]), float(row["cer"])) for row in rows]
    chosen = rows[order.index(min(order))]
    assert best["step"] == progress.best_step == int(chosen["step"])
    assert best["data_fingerprint"] == splits.fingerprint()
    references = [utterance.text for utterance in splits.dev]
    for name, summary in (("best", best), ("last", last)):
        heard = transcripts(run_dir / f"{name}.safetensors", splits.dev)
        assert word_errors(references, heard).rate == summary["dev_wer"]


def test_rows_and_picture(
    make_recognizer: MakeRecognizer, make_splits: MakeSplits, run_dir: Path
) -> None:
    splits = make_splits()
    recipe = recipe_of(make_recognizer(), splits, schedule=Linear(warmup=0.0))
    progress = trainer_of(log_every=3).fit(recipe, run_dir)
    steps = rows_of(run_dir / "steps.csv")
    assert [row["step"] for row in steps] == ["1", "3", "6", "9"]
    assert [row["epoch"] for row in steps] == ["0", "0", "1", "1"]
    rates = [float(row["lr"]) for row in steps]
    assert rates == pytest.approx([0.01, 0.008, 0.005, 0.002])  # 0.01 of 0, 2, 5, 8 tenths done
    validations = rows_of(run_dir / "validations.csv")
    assert [(row["step"], row["epoch"]) for row in validations] == [("5", "1"), ("10", "2")]
    hours = sum(utterance.duration or 0 for utterance in splits.train) / 3600
    assert float(validations[1]["audio_h"]) == pytest.approx(2 * hours, rel=1e-4)
    assert float(validations[1]["wer"]) >= progress.best_wer
    assert (run_dir / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert (run_dir / "curves.png").stat().st_size > 10_000
    assert not list(run_dir.glob("*.tmp")) + list(run_dir.glob("*.part"))


def test_the_first_epoch_starts_with_the_shortest(
    make_recognizer: MakeRecognizer, make_splits: MakeSplits, run_dir: Path
) -> None:
    splits, seen = make_splits(), []
    load = dataset.load_utterance

    def recorded(utterance: Utterance, sample_rate: int) -> Any:
        seen.append(utterance)
        return load(utterance, sample_rate)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset, "load_utterance", recorded)
        trainer_of(validate_every=9).fit(recipe_of(make_recognizer(), splits), run_dir)
    ids = {utterance.id for utterance in splits.train}
    for epoch in range(2):
        part = seen[12 * epoch : 12 * (epoch + 1)]
        assert {utterance.id for utterance in part} == ids  # each once
        lengths = [len(utterance.text) for utterance in part]
        assert (lengths == sorted(lengths)) == (epoch == 0)


def test_stored_feature_statistics_are_those_of_the_training_data(
    make_recognizer: MakeRecognizer, make_splits: MakeSplits, run_dir: Path
) -> None:
    splits = make_splits()
    recognizer = make_recognizer(features={"normalizer": "stored"})
    frames = []
    for utterance in splits.train:
        waveform = torch.from_numpy(load_audio(utterance.audio_filepath, RATE))[None]
        frames.append(
            recognizer.features.log_mel(waveform, torch.tensor([waveform.shape[1]]))[0][0]
        )
    trainer_of(max_epochs=1).fit(recipe_of(recognizer, splits), run_dir)
    loaded, _ = load_model(run_dir / "last.safetensors")
    together = torch.cat(frames).double()
    normalizer = loaded.features.normalizer
    torch.testing.assert_close(
        normalizer.get_buffer("mean").double(), together.mean(0), rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(
        normalizer.get_buffer("std").double(), together.std(0, correction=0), rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("precision", ["16-mixed", "bf16-mixed"])
def test_half_precision_needs_a_gpu(precision: str) -> None:
    with pytest.raises(ValueError, match=f"precision '{precision}' needs a GPU, expected 32-true"):
        trainer_of(precision=precision)


LIMIT_S = 300.0  # [s] two processes take 10 on an idle machine
SCRIPT = """
import sys, time
from functools import partial
from itertools import product
from pathlib import Path
import torch
from asr.augment import Augment
from asr.checkpoint import load_model
from asr.data.splits import load_splits
from asr.text.normalize import TextNormalizer
from asr.trainer import Trainer
from asr.trainer.schedule import Constant
from asr.trainer.trainer import Recipe

run_dir, model, train, dev = map(Path, sys.argv[1:5])
ranks, accumulate = map(int, sys.argv[5:7])
torch.set_num_threads(1)
trainer = Trainer(
    max_epochs=2, batch_duration_s=float(sys.argv[7]), accumulate=accumulate, num_workers=0,
    accelerator="cpu", devices=ranks, log_every=1, save_every_s=float(sys.argv[8]),
)
if trainer.fabric.global_rank == 1 and sys.argv[9] == "slow_clock":
    clock = time.monotonic
    time.monotonic = lambda: clock() / 1000
splits = load_splits(str(train), str(dev), TextNormalizer(), "abcd")
recipe = Recipe(
    load_model(model)[0], splits, partial(torch.optim.SGD, lr=0.1), Constant(0.0), Augment()
)
trainer.fit(recipe, run_dir)
"""


@pytest.fixture
def train_on(
    make_recognizer: MakeRecognizer, make_splits: MakeSplits, tmp_path: Path
) -> Callable[..., Path]:
    """Trains the same model on the same data with a number of processes; gives the run's folder."""
    from asr.checkpoint import save_model
    from asr.data.manifest import write_manifest

    splits = make_splits()
    write_manifest(tmp_path / "train.jsonl", splits.train)
    write_manifest(tmp_path / "dev.jsonl", splits.dev)
    save_model(tmp_path / "start.safetensors", make_recognizer(), {})
    (tmp_path / "script.py").write_text(SCRIPT)

    def train(ranks: int, accumulate: int, save_every_s: float = 300.0, clock: str = "") -> Path:
        folder = tmp_path / f"ranks_{ranks}_{clock}"
        folder.mkdir()
        files = ["script.py", folder.name, "start.safetensors", "train.jsonl", "dev.jsonl"]
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
        root = str(Path(__file__).parents[2])
        command = [
            sys.executable, *(launcher if ranks > 1 else []), *files, str(ranks), str(accumulate),
            "1.0", str(save_every_s), clock,
        ]  # fmt: skip
        with subprocess.Popen(
            command,
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": root, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            try:
                output, _ = process.communicate(timeout=LIMIT_S)
            finally:
                process.terminate()  # the launcher then ends its processes
        assert process.returncode == 0, output
        return folder

    return train


@pytest.mark.slow
def test_two_processes_train_as_one_that_accumulates_two_batches(
    train_on: Callable[..., Path],
) -> None:
    one, two = train_on(1, accumulate=2), train_on(2, accumulate=1)
    expected = load_model(one / "last.safetensors")[0].state_dict()
    assert_weights(two / "last.safetensors", expected, tolerance=1e-5)
    for name in ("steps", "validations"):
        left, right = rows_of(one / f"{name}.csv"), rows_of(two / f"{name}.csv")
        assert [row["step"] for row in left] == [row["step"] for row in right]
        for column in ("loss", "wer", "cer") if name == "validations" else ("loss", "lr"):
            found = [float(row[column]) for row in right]
            assert found == pytest.approx([float(row[column]) for row in left], rel=1e-4), column
    start = load_model(one.parent / "start.safetensors")[0].state_dict()
    assert (start["model.head.bias"] - expected["model.head.bias"]).abs().max() > 1e-2


@pytest.mark.slow
def test_processes_whose_clocks_differ_save_together(train_on: Callable[..., Path]) -> None:
    # One rank's clock runs a thousand times as slow: only the other finds it time to save.
    folder = train_on(2, accumulate=1, save_every_s=1e-3, clock="slow_clock")
    state = torch.load(folder / "state.pt", weights_only=True)
    assert Progress(**state["progress"]).epoch == 2
