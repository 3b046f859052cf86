"""Check 31: a run's folder has one training at a time, whoever else is started there."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.reliability.conftest import Corpus
from tests.reliability.training import ROOT

TINY = (
    "features=log_mel_40_8k", "augment=none", "model.subsampling=2", "model.channels=4",
    "model.hidden_size=8", "model.num_layers=1", "trainer.batch_duration_s=3",
    "trainer.accelerator=cpu", "trainer.save_every_steps=1", "trainer.log_every=1",
)  # fmt: skip


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "asr", "train", *arguments], cwd=folder, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def steps(run: Path) -> list[int]:
    with (run / "steps.csv").open(newline="") as file:
        return [int(row["step"]) for row in csv.DictReader(file)]


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_the_second_training_is_refused_and_the_first_goes_on(
    devices: int, corpus: Corpus, tmp_path: Path, survived: Callable[[str, int, int], None]
) -> None:
    train, dev = corpus(200), corpus(8, "dev")
    arguments = [
        *TINY, f"data.train={train}", f"data.dev={dev}", "name=one", "trainer.max_epochs=4",
        f"trainer.devices={devices}",
    ]  # fmt: skip
    run = tmp_path / "runs" / "train" / "one"
    first = start(tmp_path, *arguments)
    deadline = time.monotonic() + 100
    while not (run / "state" / "index.json").exists():
        assert first.poll() is None, first.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    record = (run / ".hydra" / "overrides.yaml").read_bytes()
    others = [
        start(tmp_path, f"resume={run}"),
        start(tmp_path, *arguments),
        start(tmp_path, *arguments, "overwrite=true", "optim.lr=1"),
    ]
    told = [(other.communicate(timeout=100)[0], other.returncode) for other in others]
    refused = [
        status == 2 and text.count("asr: error") == 1 and "another process" in text
        and str(run.name) in text
        for text, status in told
    ]  # fmt: skip
    output, _ = first.communicate(timeout=200)
    assert first.returncode == 0, output
    whole = steps(run)
    checks = [
        *refused,
        whole == list(range(1, len(whole) + 1)),
        (run / ".hydra" / "overrides.yaml").read_bytes() == record,
        not (run / "error.txt").exists(),
    ]
    again = start(tmp_path, f"resume={run}", "trainer.max_epochs=5")
    output, _ = again.communicate(timeout=200)
    checks.append(again.returncode == 0 and len(steps(run)) > len(whole))
    survived(f"31 one training a folder, {devices} device(s)", sum(checks), len(checks))


@pytest.mark.slow
def test_of_two_fresh_starts_one_trains(
    corpus: Corpus, tmp_path: Path, survived: Callable[[str, int, int], None]
) -> None:
    train, dev = corpus(24), corpus(8, "dev")
    arguments = [
        *TINY, f"data.train={train}", f"data.dev={dev}", "name=one", "trainer.max_epochs=30",
    ]  # fmt: skip
    both = [start(tmp_path, *arguments), start(tmp_path, *arguments)]
    told = [(process.communicate(timeout=200)[0], process.returncode) for process in both]
    statuses = sorted(status for _, status in told)
    whole = steps(tmp_path / "runs" / "train" / "one")
    refused = [text for text, status in told if status == 2]
    checks = [
        statuses == [0, 2],
        len(refused) == 1 and refused[0].count("asr: error") == 1,
        whole == list(range(1, len(whole) + 1)),
    ]
    survived("31 two fresh starts", sum(checks), len(checks))
