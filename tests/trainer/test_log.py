"""What a training writes about itself: columns, rows, a picture, and silence on other ranks."""

from __future__ import annotations

import csv
import logging
import time
from pathlib import Path

import pytest

from asr.trainer.log import STEP_FIELDS, VALIDATION_FIELDS, RunLog


def step_row(step: int, **other: float) -> dict[str, float]:
    row = {
        "step": step, "epoch": 0, "loss": 2.0 / step, "lr": 1e-3, "grad_norm": 1.5,
        "blank_share": 0.75, "step_s": 0.5, "utterances_per_s": 30.0, "audio_h_per_h": 120.0,
        "wait_share": 0.01,
    }  # fmt: skip
    return row | other


def validation_row(step: int, **other: float) -> dict[str, float]:
    row = {
        "step": step, "epoch": 1, "elapsed_s": 12.5, "audio_h": 0.25, "loss": 1.0 / step,
        "wer": 0.5, "cer": 0.25, "train_loss": 1.25, "blank_share": 0.5, "clipped_share": 0.125,
    }  # fmt: skip
    return row | other


def rows_of(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def filled(folder: Path) -> RunLog:
    """A log with steps 1 to 6 and validations after 3 and 6."""
    log = RunLog(folder, True, 2)
    for step in range(1, 7):
        log.step(step_row(step), epochs_done=0.5, wer=0.5, record=True)
        if step % 3 == 0:
            log.validation(validation_row(step))
    log.close()
    return log


def test_columns_and_rows(tmp_path: Path) -> None:
    filled(tmp_path)
    header, first, *others = rows_of(tmp_path / "steps.csv")
    assert header == [
        "step", "epoch", "loss", "lr", "grad_norm", "blank_share", "step_s", "utterances_per_s",
        "audio_h_per_h", "wait_share",
    ]  # fmt: skip
    assert first == ["1", "0", "2.0", "0.001", "1.5", "0.75", "0.5", "30", "120", "0.01"]
    assert [row[0] for row in others] == ["2", "3", "4", "5", "6"]
    header, *validations = rows_of(tmp_path / "validations.csv")
    assert header == [
        "step", "epoch", "elapsed_s", "audio_h", "loss", "wer", "cer", "train_loss", "blank_share",
        "clipped_share",
    ]  # fmt: skip
    assert validations[0] == [
        "3", "1", "12.5", "0.25", "0.3333333333333333", "0.5", "0.25", "1.25", "0.5", "0.125",
    ]  # fmt: skip
    assert len(validations) == 2
    assert (list(STEP_FIELDS), list(VALIDATION_FIELDS)) == (list(step_row(1)), header)


def test_the_gradients_of_the_models_parts_have_columns(tmp_path: Path) -> None:
    log = RunLog(tmp_path, True, 2, blocks=("layers", "head"))
    log.step(
        step_row(1, grad_norm_layers=0.5, grad_norm_head=0.25),
        epochs_done=0.5,
        wer=0.5,
        record=True,
    )
    header, row = rows_of(tmp_path / "steps.csv")
    assert header == [*STEP_FIELDS, "grad_norm_layers", "grad_norm_head"]
    assert row[-2:] == ["0.5", "0.25"]


def test_steps_that_are_not_to_be_recorded_are_not(tmp_path: Path) -> None:
    log = RunLog(tmp_path, True, 2)
    log.step(step_row(1), epochs_done=0.5, wer=0.5, record=False)
    assert len(rows_of(tmp_path / "steps.csv")) == 1


def test_a_resumed_training_keeps_the_rows_up_to_its_state(tmp_path: Path) -> None:
    filled(tmp_path)
    log = RunLog(tmp_path, True, 2, step=4, validations=1)
    assert [row[0] for row in rows_of(tmp_path / "steps.csv")[1:]] == ["1", "2", "3", "4"]
    assert [row[0] for row in rows_of(tmp_path / "validations.csv")[1:]] == ["3"]
    log.step(step_row(5), epochs_done=0.5, wer=0.5, record=True)
    assert [row[0] for row in rows_of(tmp_path / "steps.csv")[1:]] == ["1", "2", "3", "4", "5"]
    assert rows_of(tmp_path / "steps.csv")[0] == list(STEP_FIELDS)


@pytest.mark.parametrize("cut", [1, 2, 5, 9])
def test_a_row_that_was_cut_while_written_is_dropped(tmp_path: Path, cut: int) -> None:
    filled(tmp_path)
    for name in ("steps", "validations"):
        path = tmp_path / f"{name}.csv"
        path.write_bytes(path.read_bytes()[:-cut])
    RunLog(tmp_path, True, 2, step=6, validations=2)
    assert [row[0] for row in rows_of(tmp_path / "steps.csv")[1:]] == ["1", "2", "3", "4", "5"]
    assert [row[0] for row in rows_of(tmp_path / "validations.csv")[1:]] == ["3"]


def test_a_new_training_starts_new_files(tmp_path: Path) -> None:
    filled(tmp_path)
    RunLog(tmp_path, True, 2)
    assert rows_of(tmp_path / "steps.csv") == [list(STEP_FIELDS)]
    assert rows_of(tmp_path / "validations.csv") == [list(VALIDATION_FIELDS)]


def test_a_resume_without_earlier_files(tmp_path: Path) -> None:
    RunLog(tmp_path, True, 2, step=4)
    assert rows_of(tmp_path / "steps.csv") == [list(STEP_FIELDS)]


def test_other_ranks_write_and_say_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    log = RunLog(tmp_path, False, 2, tensorboard=True)
    log.say("anything")
    log.start_epoch(0)
    log.step(step_row(1), epochs_done=0.5, wer=0.5, record=True)
    log.validation(validation_row(1))
    log.close()
    assert list(tmp_path.iterdir()) == []
    assert not caplog.records


def plain_lines(tmp_path: Path, caplog: pytest.LogCaptureFixture, wers: list[float]) -> list[str]:
    """What steps, each with a last dev WER, say where there is no bar."""
    caplog.set_level(logging.INFO)
    log = RunLog(tmp_path, True, 2)
    log.start_epoch(0)
    for step, wer in enumerate(wers, 1):
        log.step(step_row(step), epochs_done=0.5, wer=wer, record=False)
    log.end_epoch()
    return [record.getMessage() for record in caplog.records]


def test_plain_lines_take_the_place_of_a_bar(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # Two steps within the same seconds: no second line.
    assert plain_lines(tmp_path, caplog, [0.125, 0.125]) == [
        "step 1  epoch 1/2  loss 2.000  lr 0.001  dev WER 12.5 %  30.0 utt/s  120 h/h  "
        "waiting 1.0 %"
    ]


@pytest.mark.parametrize(
    ("seconds", "told"), [(30, "2 min left"), (1000, "50 min left"), (1201, "1 h 1 min left")]
)
def test_the_time_that_is_left_is_that_of_the_steps_so_far(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
    told: str,
) -> None:
    caplog.set_level(logging.INFO)
    log = RunLog(tmp_path, True, max_epochs=10)
    now = time.monotonic()
    for epochs_done, after_s in ((2.0, 0.0), (4.0, seconds)):  # and six more
        monkeypatch.setattr(time, "monotonic", lambda after_s=after_s: now + after_s)
        log.step(step_row(1), epochs_done, wer=0.5, record=False)
    first, second = (record.getMessage() for record in caplog.records)
    assert "left" not in first
    assert second.endswith(f"waiting 1.0 %  {told}")


def test_before_the_first_validation_no_word_of_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (line,) = plain_lines(tmp_path, caplog, [float("nan")])
    assert "WER" not in line


def test_tensorboard_gets_the_same_numbers(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = RunLog(tmp_path, True, 2, tensorboard=True)
    log.step(step_row(1, loss=0.75), epochs_done=0.5, wer=0.5, record=True)
    log.validation(validation_row(1, wer=0.125))
    log.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(1, 0.75)]
    assert [(e.step, e.value) for e in events.Scalars("dev/wer")] == [(1, 0.125)]
