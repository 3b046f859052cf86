"""Utterances that cannot be learnt from are named and left out, or stop the training by name."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from asr.data import dataset
from asr.data.manifest import Utterance
from asr.model.ctc import ctc_loss
from asr.model_file import load_model
from tests.trainer.fitting import (
    STEPS_AN_EPOCH,
    MakeRecognizer,
    MakeSplits,
    MakeUtterance,
    assert_weights,
    digest,
    recipe_of,
    rows_of,
    state_of,
    step_by_hand,
    trainer_of,
    varied_recipe,
)


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
    [("layer", 0.56), ("layer", 1.5), ("batch", 0.56), ("batch", 1.5)],
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
    trainer_of(batch_duration_s=batch_duration_s, save_every_s=0, max_left_out=0.1).fit(
        recipe, run_dir
    )
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 2  # once an epoch
    assert all(w.endswith("left out u7: features are not finite") for w in warnings)
    (row,) = [json.loads(line) for line in (run_dir / "left_out.jsonl").read_text().splitlines()]
    assert (row["id"], row["kind"]) == ("u7", "not_finite")
    for value in load_model(run_dir / "last.safetensors")[0].state_dict().values():
        assert value.isfinite().all()
    state = state_of(run_dir)
    for moments in state.parts["optimizer"]["state"].values():
        assert all(value.isfinite().all() for value in moments.values())
    assert all(np.isfinite(float(row["loss"])) for row in rows_of(run_dir / "steps.csv"))


@pytest.mark.parametrize("batch_duration_s", [99.0, 0.56])  # one batch, or alone in its batch
@pytest.mark.parametrize("cause", ["features", "loss"])
def test_a_step_without_an_utterance_is_that_of_the_others(
    make_recognizer: MakeRecognizer,
    make_splits: MakeSplits,
    run_dir: Path,
    poisoned: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    cause: str,
    batch_duration_s: float,
) -> None:
    splits = make_splits()
    others = [utterance for utterance in splits.train if utterance.id != "u7"]
    expected = step_by_hand(make_recognizer(), others, lr=0.1)
    if cause == "features":
        poisoned("u7")
    else:
        bad = torch.tensor(make_recognizer().tokenizer.encode(splits.train[7].text))
        monkeypatch.setattr("asr.trainer.step.ctc_loss", partial(infinite_loss, bad))
    recipe = recipe_of(make_recognizer(), splits, partial(torch.optim.SGD, lr=0.1))
    settings = {"max_epochs": 1, "batch_duration_s": batch_duration_s, "accumulate": 99}
    trainer_of(**settings, clip_norm=0, max_left_out=0.1, scan_memory=False).fit(recipe, run_dir)
    (warning,) = [r.getMessage() for r in caplog.records if r.levelno > 20]
    assert (
        warning
        == f"step 1: left out u7: {cause} {'are' if cause == 'features' else 'is'} not finite"
    )
    assert_weights(run_dir / "last.safetensors", expected, tolerance=1e-5)


def infinite_loss(
    bad: Tensor, log_probs: Tensor, lengths: Tensor, tokens: Tensor, sizes: Tensor
) -> Tensor:
    """The CTC loss, but infinite for one text."""
    losses = ctc_loss(log_probs, lengths, tokens, sizes)
    rows = [torch.equal(row[:size], bad) for row, size in zip(tokens, sizes, strict=True)]
    return torch.where(torch.tensor(rows), torch.inf, losses)


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
    assert warnings[1].startswith(
        "left out 1 of the training utterances (1 text too long for CTC), all in "
    )
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
    message = (
        r"^2 of 14 training utterances cannot be used, expected at most 14% "
        r"\(trainer.max_left_out\): 2 texts too long for CTC; first: m0: 0.05 s "
    )
    with pytest.raises(ValueError, match=message):
        trainer_of(max_left_out=0.14).fit(recipe_of(make_recognizer(), splits), run_dir)
    assert not list(run_dir.glob("*.safetensors"))
    trainer_of(max_left_out=0.15, max_epochs=1).fit(recipe_of(make_recognizer(), splits), run_dir)


def test_nothing_left_to_learn_from(
    make_recognizer: MakeRecognizer, make_splits: MakeSplits, run_dir: Path
) -> None:
    splits = make_splits()
    empty = replace(splits, train=tuple(replace(u, text="") for u in splits.train))
    with pytest.raises(
        ValueError, match="no training utterance left of 12: 12 empty texts; first: u0: "
    ):
        trainer_of(max_left_out=1.0).fit(recipe_of(make_recognizer(), empty), run_dir)


def test_unusable_audio_stops_it_by_name(
    make_recognizer: MakeRecognizer, make_splits: MakeSplits, run_dir: Path
) -> None:
    splits = make_splits()
    broken = run_dir / "broken.wav"
    broken.write_bytes(b"no audio")
    train = (replace(splits.train[0], audio_filepath=broken), *splits.train[1:])
    message = (
        r"1 of 12 training utterances cannot be used, expected at most 5% .*; last: u0: "
        r".*broken\.wav: cannot be read as audio"
    )
    with pytest.raises(ValueError, match=message):
        trainer_of().fit(recipe_of(make_recognizer(), replace(splits, train=train)), run_dir)


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("place", ["train", "dev"])
def test_a_batch_that_cannot_be_loaded_stops_it_and_nothing_is_lost(
    make_recognizer: MakeRecognizer,
    make_splits: MakeSplits,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    num_workers: int,
) -> None:
    """Without a worker the dataset fails, with one the worker is lost twice; then all is well."""
    splits, load, me = make_splits(), dataset.load_example, os.getpid()
    bad = {"train": splits.train[7].id, "dev": splits.dev[-1].id}[place]

    def lost(request: dataset.Request, *rest: Any) -> Any:
        has_begun = (tmp_path / "parts" / "steps.csv").exists()  # dev is read before, too
        if request.utterance.id != bad or not has_begun:
            return load(request, *rest)
        if os.getpid() != me:
            os._exit(4)
        raise ValueError("no noise")

    settings = {"num_workers": num_workers, "log_every": 1}
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    trainer_of(**settings).fit(varied_recipe(make_recognizer, splits), tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(dataset, "load_example", lost)
        reason = {0: "no noise", 1: "cannot be loaded: the second loading process"}
        with pytest.raises(ValueError, match=reason[num_workers]):
            trainer_of(**settings).fit(varied_recipe(make_recognizer, splits), tmp_path / "parts")
    steps = len(rows_of(tmp_path / "parts" / "steps.csv"))
    assert 0 < steps <= STEPS_AN_EPOCH
    assert (steps == STEPS_AN_EPOCH) == (place == "dev")
    assert state_of(tmp_path / "parts").progress.step == steps
    trainer_of(**settings).fit(varied_recipe(make_recognizer, splits), tmp_path / "parts", True)
    digests = [digest(tmp_path / name / "last.safetensors") for name in ("whole", "parts")]
    assert digests[0] == digests[1]
