"""Training: it learns, a step is what it should be, and it stops where it should.

The corpus is the one of conftest.py, letters as tones; nothing here looks below `Trainer.fit`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from copy import deepcopy
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from asr.audio import load_audio
from asr.data import dataset
from asr.data.manifest import Utterance
from asr.metrics.error_rate import word_errors
from asr.model_file import load_model
from asr.trainer.optim import Linear
from asr.transcriber import Transcriber
from tests.trainer.fitting import (
    RATE,
    STEPS_AN_EPOCH,
    MakeRecognizer,
    MakeSplits,
    MakeUtterance,
    assert_weights,
    recipe_of,
    rows_of,
    step_by_hand,
    trainer_of,
)


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
    adam = partial(torch.optim.AdamW, lr=0.01)
    recipe = recipe_of(
        make_recognizer(dropout=0.2, channels=8),
        splits,
        adam,
        schedule=Linear(warmup=0.1, floor=0.0),
    )
    progress = trainer_of(max_epochs=40, validate_every=10, log_every=1).fit(recipe, run_dir)
    losses = [float(row["loss"]) for row in rows_of(run_dir / "steps.csv")]
    assert losses[-1] < 0.1 * losses[0]
    assert progress.epoch == 40
    heard = transcripts(run_dir / "best.safetensors", splits.dev)
    wrong = sum(text != u.text for text, u in zip(heard, splits.dev, strict=True))
    assert wrong <= 1  # of six
    assert progress.best_wer == pytest.approx(wrong / len(splits.dev))


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


@pytest.mark.usefixtures("_pictures")
def test_rows_and_picture(
    make_recognizer: MakeRecognizer, make_splits: MakeSplits, run_dir: Path
) -> None:
    splits = make_splits()
    recipe = recipe_of(make_recognizer(), splits, schedule=Linear(warmup=0.0, floor=0.0))
    progress = trainer_of(log_every=3).fit(recipe, run_dir)
    steps = rows_of(run_dir / "steps.csv")
    assert [row["step"] for row in steps] == ["1", "3", "6", "9"]
    assert [row["epoch"] for row in steps] == ["0", "0", "1", "1"]
    rates = [float(row["lr"]) for row in steps]
    assert rates == pytest.approx([0.0095, 0.0075, 0.0045, 0.0015])  # by the middle of ten steps
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
    seen = [utterance for utterance in seen if utterance.id in ids]  # dev is read before and after
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


@pytest.mark.parametrize("name", ["max_epochs", "accumulate", "validate_every", "log_every"])
def test_counts_are_at_least_one(name: str) -> None:
    with pytest.raises(ValueError, match=rf"trainer\.{name} 0, expected 1 or more"):
        trainer_of(**{name: 0})
