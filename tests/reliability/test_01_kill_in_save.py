"""Check 1: a training killed at any time, half of the times in a save, loses no saved step."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from asr.trainer.checkpoint import StateStore
from tests.reliability.training import Training

KILLS = 50
PADDING_MB = 100
SAVE_S = 0.4  # [s] about what a save of that size takes


@pytest.fixture
def other_file_system(tmp_path: Path) -> Path:
    """A folder on a file system other than the run's, for TMPDIR."""
    folder = Path("/dev/shm")
    assert folder.stat().st_dev != tmp_path.stat().st_dev, "expected two file systems"
    return folder


@pytest.mark.slow
def test_every_kill_can_be_gone_on_from(
    corpus: Callable[..., Path],
    tmp_path: Path,
    other_file_system: Path,
    seed: int,
    survived: Callable[[str, int, int], None],
) -> None:
    training = Training(
        tmp_path / "run", corpus(60), corpus(6, "dev"), pad_mb=PADDING_MB,
        settings={"max_epochs": 10_000, "validate_every": 10_000, "save_every_steps": 1},
    )  # fmt: skip
    training.environment = {"TMPDIR": str(other_file_system)}
    generator = np.random.default_rng(seed)
    store, good = StateStore(tmp_path / "run" / "state"), 0
    for kill in range(KILLS):
        told = len(training.events())
        saved = max((row["step"] for row in training.events("saved")), default=0)
        process = training.start()
        training.wait_for(process, partial(any_saved, training, told))
        begun = [row for row in training.events()[told:] if row["event"] == "begun"]
        left = {path.name for path in store.folder.iterdir() if not is_writing(path)}
        listed = {"index.json", *(path.name for path in store._files())}
        if kill % 2:
            training.wait_for(process, lambda: any(map(is_writing, store.folder.iterdir())))
        time.sleep(generator.uniform(0, SAVE_S if kill % 2 else 2 * SAVE_S))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        newest = max(row["step"] for row in training.events("saved"))
        content, path = store.load()
        is_newest = int(path.stem.split("-")[-1]) >= newest
        is_whole = is_newest and len(content) > PADDING_MB << 20
        good += begun[0]["step"] >= saved and left <= listed and is_whole
    survived("kill in save", good, KILLS)
    torn = list(tmp_path.rglob("*.part"))
    assert len(torn) <= 1, "the next start removes what the kill before it left"


def any_saved(training: Training, told: int) -> bool:
    return any(row["event"] == "saved" for row in training.events()[told:])


def is_writing(path: Path) -> bool:
    return path.suffix == ".part"
