"""What a training finds out about itself: worst utterances, advice, its memory, pictures."""

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

from asr.data.dataset import Request
from asr.data.manifest import Utterance
from asr.memory import machine_memory
from asr.trainer.diagnostics import (
    GIB,
    Decoded,
    Point,
    Worst,
    WorstUtterance,
    advise,
    draw_alignments,
    draw_curves,
    read_points,
    write_worst,
)
from asr.trainer.log import RunLog
from asr.trainer.step import Stepper
from asr.transcriber import Transcriber
from tests.trainer.fitting import MakeRecognizer, MakeSplits, recipe_of, rows_of, trainer_of
from tests.trainer.test_log import filled, step_row, validation_row

# --- advice and worst utterances --------------------------------------------------------------


FINE = Point(train_loss=1.0, dev_loss=1.0, cer=0.3, blank_share=0.7, clipped_share=0.1)


def curve(train: list[float], dev: list[float], **other: float) -> list[Point]:
    return [
        replace(FINE, train_loss=t, dev_loss=d, **other) for t, d in zip(train, dev, strict=True)
    ]


@pytest.mark.parametrize(
    ("points", "words"),
    [
        (curve([3, 2, 1], [3, 2.5, 2]), None),
        (curve([3, 2, 1, 0.5], [3, 2, 2.2, 2.3]), None),  # risen for two only
        (curve([3, 2, 1, 0.5, 0.3], [3, 2, 2.2, 2.3, 2.4]), "it learns by heart"),
        (curve([3, 2, 1.8, 1.8, 1.8], [3, 2, 2, 2, 2]), "neither loss has moved by 1 %"),
        (curve([3, 2, 1.8, 1.8, 1.8], [3, 2, 2, 2, 2], clipped_share=0.97), "are clipped and"),
        (curve([3, 2, 1], [3, 2, 1], clipped_share=1.0), None),  # clipped, and learning
        (curve([3, 2.9, 2.8], [3, 2.9, 2.8], blank_share=1.0, cer=1.0), "are blank and CER"),
        (curve([3, 2.9, 2.8], [3, 2.9, 2.8], blank_share=1.0, cer=0.5), None),
        (curve([3, 3], [3, 3]), None),  # too early to say
        ([], None),
    ],
)
def test_advice(points: list[Point], words: str | None) -> None:
    advice = advise(points)
    if words is None:
        assert advice is None
    else:
        assert advice is not None
        assert words in advice
        assert "try" in advice


def test_the_worst_are_kept_with_what_they_are_loaded_from() -> None:
    worst = Worst(3)
    names = [f"{letter}{number}" for letter in "uv" for number in range(10)]
    requests = {name: Request(0, Utterance(Path(), "", 1.0, name), ()) for name in names}
    for number in range(10):
        losses = [(f"u{number}", float((7 * number) % 10)), (f"v{number}", -1.0)]
        worst.add(losses, requests)
    expected = [("u7", 9.0), ("u4", 8.0), ("u1", 7.0)]
    assert worst.take() == [(loss, requests[name]) for name, loss in expected]
    assert worst.take() == []
    for _ in range(2):  # two of one name and loss, of two shards say
        worst.add([("u1", 1.0)], requests)
    assert len(worst.take()) == 2


def test_none_are_kept_where_none_are_asked_for() -> None:
    worst = Worst(0)
    worst.add([("u", 1.0)], {"u": Request(0, Utterance(Path(), "", 1.0, "u"), ())})
    assert worst.take() == []


def test_they_are_written_as_json_lines(tmp_path: Path) -> None:
    worst = [
        WorstUtterance("é/1", "a.wav", 7.5, "ab", "cd"),
        WorstUtterance("2", "b.wav", 7.25, "b"),
    ]
    write_worst(tmp_path / "worst.jsonl", worst)
    lines = (tmp_path / "worst.jsonl").read_text().splitlines()
    assert json.loads(lines[0]) == {
        "id": "é/1", "audio": "a.wav", "loss": 7.5, "reference": "ab", "hypothesis": "cd",
    }  # fmt: skip
    assert json.loads(lines[1])["hypothesis"] == ""


# --- within a training ------------------------------------------------------------------------


def test_a_wrong_label_is_among_the_worst(
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


@pytest.mark.usefixtures("_pictures")
def test_a_picture_of_the_alignment_of_dev_utterances(
    make_recognizer: MakeRecognizer, make_splits: MakeSplits, run_dir: Path
) -> None:
    trainer_of(max_epochs=1).fit(recipe_of(make_recognizer(), make_splits()), run_dir)
    assert imread(run_dir / "alignments.png").shape == (1224, 1320, 4)  # three utterances


def test_the_picture_stands_texts_of_any_kind(tmp_path: Path) -> None:
    probs = np.full((6, 4), 0.05, np.float32)
    probs[:, 0] = 0.8
    probs[2] = (0.1, 0.8, 0.05, 0.05)
    decoded = Decoded(
        "$x$ <b>", "a $ b", "こ", np.zeros((12, 5), np.float32), 0.01, probs, 0.02, "你 b",
    )  # fmt: skip
    draw_alignments(tmp_path / "alignments.png", [decoded])
    assert imread(tmp_path / "alignments.png").shape == (408, 1320, 4)


# --- pictures of rows --------------------------------------------------------------------------


def test_points_are_what_was_recorded(tmp_path: Path) -> None:
    filled(tmp_path)
    expected = [Point(1.25, 1 / step, 0.25, 0.5, 0.125) for step in (3, 6)]
    assert read_points(tmp_path / "validations.csv") == expected


def test_the_picture_of_the_curves(tmp_path: Path) -> None:
    filled(tmp_path)
    draw_curves(tmp_path)
    picture = imread(tmp_path / "curves.png")
    assert picture.shape == (432, 1620, 4)
    levels = (255 * picture[..., :3]).round().astype(np.int64)  # red, green, blue
    colours = set(np.unique(levels @ [1 << 16, 1 << 8, 1]).tolist())
    assert {0xD62728, 0xFF7F0E, 0x1F77B4} <= colours  # WER, CER, dev loss


def test_the_picture_stands_numbers_that_cannot_be_drawn(tmp_path: Path) -> None:
    log = RunLog(tmp_path, True, 2)
    log.step(
        step_row(1, loss=float("nan"), grad_norm=float("nan")),
        epochs_done=0.5,
        wer=0.5,
        record=True,
    )
    log.validation(validation_row(1, loss=float("inf"), wer=float("inf")))
    draw_curves(tmp_path)
    assert imread(tmp_path / "curves.png").shape == (432, 1620, 4)


def test_the_picture_of_no_rows_at_all(tmp_path: Path) -> None:
    RunLog(tmp_path, True, 2)
    draw_curves(tmp_path)
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
