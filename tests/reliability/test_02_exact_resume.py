"""Check 2: a training killed after any step takes the very same steps after it."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.reliability.training import ROOT, Training
from tests.trainer.fitting import digest, rows_of

UTTERANCES = 60  # of one length, three a batch: 20 steps an epoch
EPOCHS = 3
KILLS = (1, 7, 19, 20, 21, 33, 59)
THREE_IN_AN_EPOCH = (23, 29, 36)
SPLITS = ("train", "dev")


def training_in(folder: Path, corpus: Callable[..., Path], **spec: Any) -> Training:
    settings = {
        "max_epochs": EPOCHS, "batch_duration_s": 1.3, "save_every_steps": 4,
        "num_workers": spec.pop("num_workers", 0),
    }  # fmt: skip
    train = corpus(UTTERANCES, letters=(3, 3))
    return Training(folder, train, corpus(6, "dev"), settings=settings, **spec)


def losses(training: Training) -> dict[int, str]:
    """The loss of each step as it was last taken, as float.hex."""
    return {row["step"]: row["loss"] for row in training.events("step")}


def weights(training: Training) -> str:
    """sha256 of all weights and all of the optimiser's moments."""
    parts = training.state().parts
    values = [*parts["model"].values()]
    for moments in parts["optimizer"]["state"].values():
        values += moments.values()
    return hashlib.sha256(b"".join(value.numpy().tobytes() for value in values)).hexdigest()


@pytest.mark.slow
def test_a_killed_training_ends_in_the_same_bits(
    corpus: Callable[..., Path], tmp_path: Path, survived: Callable[[str, int, int], None]
) -> None:
    whole = training_in(tmp_path / "whole", corpus)
    assert whole.finish()[0] == 0
    expected = losses(whole)
    assert len(expected) == 60, "20 steps an epoch"
    assert len(set(expected.values())) == 60
    cases = [(step,) for step in KILLS] + [THREE_IN_AN_EPOCH]
    good = 0
    for workers in (0, 2):
        for kills in cases:
            folder = tmp_path / f"killed_{workers}_{'_'.join(map(str, kills))}"
            again = training_in(folder, corpus, num_workers=workers, kill_at={"0": list(kills)})
            for _ in kills:
                assert again.finish()[0] == -9
            assert again.finish()[0] == 0
            good += losses(again) == expected and weights(again) == weights(whole)
    survived("exact resume", good, 2 * len(cases))


@pytest.mark.slow
def test_a_training_on_real_speech_killed_three_times(
    speech_data: Path, tmp_path: Path, survived: Callable[[str, int, int], None]
) -> None:
    corpora = [speech_data / name for name in ("speechocean762", "librispeech_dev_clean_part")]
    arguments = [
        "train", "experiment=read_english", f"paths.run_dir={tmp_path}", "trainer.accelerator=cpu",
        *(f"data.{name}=[{','.join(f'{c}/{name}.jsonl' for c in corpora)}]" for name in SPLITS),
        "data.limit=800", "trainer.max_epochs=2", "trainer.save_every_steps=10",
        "trainer.log_every=1",
    ]  # fmt: skip
    assert asr(*arguments, "name=whole").wait() == 0
    whole, killed = (tmp_path / "train" / name for name in ("whole", "killed"))
    total = len(rows_of(whole / "steps.csv"))
    for share in (0.2, 0.55, 0.8):
        process = asr(*arguments, "name=killed", "resume=auto")
        while last_step(killed) < share * total:
            assert process.poll() is None
            time.sleep(0.02)
        process.kill()
        assert process.wait() == -9
    assert asr(*arguments, "name=killed", "resume=auto").wait() == 0
    expected, found = (
        [(row["step"], row["loss"]) for row in rows_of(folder / "steps.csv")]
        for folder in (whole, killed)
    )
    assert digest(whole / "last.safetensors") == digest(killed / "last.safetensors")
    same = sum(one == other for one, other in zip(expected, found, strict=True))
    survived("exact resume on real speech, steps", same, total)


def asr(*arguments: str) -> subprocess.Popen[bytes]:
    """The command as a user runs it, with one thread."""
    return subprocess.Popen(
        [sys.executable, "-m", "asr", *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def last_step(run_dir: Path) -> int:
    steps = run_dir / "steps.csv"
    rows = rows_of(steps) if steps.exists() else []
    return int(rows[-1]["step"]) if rows else 0
