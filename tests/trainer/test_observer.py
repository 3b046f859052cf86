"""What a training finds out about itself: label errors, its memory, a picture of its alignments."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from asr.memory import machine_memory
from asr.trainer.memory import GIB
from asr.trainer.picture import Heard, draw_alignments
from asr.trainer.step import Stepper
from asr.transcriber import Transcriber
from tests.trainer.fitting import MakeRecognizer, MakeSplits, recipe_of, rows_of, trainer_of


def test_a_wrong_label_is_among_the_loudest(
    make_recognizer: MakeRecognizer, make_splits: MakeSplits, run_dir: Path
) -> None:
    splits = make_splits()
    wrong = replace(splits.train[4], text="dddd"[: len(splits.train[4].text)])
    train = (*splits.train[:4], wrong, *splits.train[5:])
    recipe = recipe_of(make_recognizer(channels=8), replace(splits, train=train))
    trainer_of(max_epochs=25, validate_every=25, worst=3).fit(recipe, run_dir)
    rows = [json.loads(line) for line in (run_dir / "worst.jsonl").read_text().splitlines()]
    assert len(rows) == 3
    assert rows[0]["id"] == wrong.id
    assert rows[0]["reference"] == wrong.text
    transcriber = Transcriber.load(run_dir / "last.safetensors", device="cpu")
    assert rows[0]["hypothesis"] == transcriber.transcribe_file(wrong.audio_filepath).text
    assert [row["loss"] for row in rows] == sorted((row["loss"] for row in rows), reverse=True)
    assert all(Path(row["audio"]).is_file() for row in rows)


def test_without_worst_none_are_listed(
    make_recognizer: MakeRecognizer, make_splits: MakeSplits, run_dir: Path
) -> None:
    trainer_of(max_epochs=1, worst=0).fit(recipe_of(make_recognizer(), make_splits()), run_dir)
    assert not (run_dir / "worst.jsonl").exists()


def test_a_training_that_stands_still_is_told(
    make_recognizer: MakeRecognizer,
    make_splits: MakeSplits,
    run_dir: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    still = partial(torch.optim.SGD, lr=0.0)
    trainer = trainer_of(max_epochs=5, clip_norm=0)
    trainer.fit(recipe_of(make_recognizer(), make_splits(), still), run_dir)
    told = [m for m in caplog.messages if "neither loss has moved by 1 % in 3 validations" in m]
    assert len(told) == 1  # once, not with every validation


def test_the_largest_batch_is_tried_before_the_first_step(
    make_recognizer: MakeRecognizer,
    make_splits: MakeSplits,
    run_dir: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.INFO)
    sizes: list[tuple[int, ...]] = []
    losses = Stepper._finite_losses

    def watched(stepper: Stepper, batch: object, incidents: object) -> object:
        sizes.append(tuple(batch.waveforms.shape))  # type: ignore[attr-defined]
        return losses(stepper, batch, incidents)  # type: ignore[arg-type]

    monkeypatch.setattr(Stepper, "_finite_losses", watched)
    trainer = trainer_of(max_epochs=1, batch_duration_s=99)
    trainer.fit(recipe_of(make_recognizer(), make_splits()), run_dir)
    assert sizes[0] == sizes[1], "the one batch, tried and then learnt from"
    line = next(m for m in caplog.messages if m.startswith("largest batch: 12 utterances of up to"))
    assert f"of {machine_memory() / GIB:.1f} GiB of memory in use" in line


def test_trying_it_changes_nothing(
    make_recognizer: MakeRecognizer, make_splits: MakeSplits, tmp_path: Path
) -> None:
    rows = []
    for tried in (True, False):
        folder = tmp_path / str(tried)
        folder.mkdir()
        recipe = recipe_of(make_recognizer(norm="batch", dropout=0.3), make_splits())
        trainer_of(max_epochs=1, scan_memory=tried, log_every=1).fit(recipe, folder)
        rows.append([row["loss"] for row in rows_of(folder / "steps.csv")])
    assert rows[0] == rows[1]


def test_a_batch_that_does_not_fit_is_told_before_the_first_step(
    make_recognizer: MakeRecognizer,
    make_splits: MakeSplits,
    run_dir: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    losses = Stepper._finite_losses

    def scarce(stepper: Stepper, batch: object, incidents: object) -> object:
        if len(batch.utterances) > 3:  # type: ignore[attr-defined]
            raise torch.OutOfMemoryError("CUDA out of memory")
        return losses(stepper, batch, incidents)  # type: ignore[arg-type]

    monkeypatch.setattr(Stepper, "_finite_losses", scarce)
    trainer = trainer_of(max_epochs=1, batch_duration_s=99)
    trainer.fit(recipe_of(make_recognizer(), make_splits()), run_dir)
    warning = next(m for m in caplog.messages if "does not fit" in m)
    assert "expected a smaller trainer.batch_duration_s than 99" in warning


def test_a_picture_of_the_alignment_of_dev_utterances(
    make_recognizer: MakeRecognizer, make_splits: MakeSplits, run_dir: Path
) -> None:
    trainer_of(max_epochs=1).fit(recipe_of(make_recognizer(), make_splits()), run_dir)
    assert imread(run_dir / "alignments.png").shape == (1224, 1320, 4)  # three utterances


def test_the_picture_stands_texts_of_any_kind(tmp_path: Path) -> None:
    probs = np.full((6, 4), 0.05, np.float32)
    probs[:, 0] = 0.8
    probs[2] = (0.1, 0.8, 0.05, 0.05)
    heard = Heard(
        "$x$ <b>", "a $ b", "こ", np.zeros((12, 5), np.float32), 0.01, probs, 0.02, "你 b",
    )  # fmt: skip
    draw_alignments(tmp_path / "alignments.png", [heard])
    assert imread(tmp_path / "alignments.png").shape == (408, 1320, 4)
