"""Several processes train as one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from asr.data.batch import BatchLoader
from asr.data.dataset import SpeechDataset
from asr.data.splits import Splits
from asr.model_file import load_model
from asr.trainer.distributed import join_world
from asr.trainer.validation import validate
from tests.trainer.fitting import (
    RATE,
    MakeRecognizer,
    MakeSplits,
    assert_weights,
    rows_of,
    state_of,
)

LIMIT_S = 300.0  # [s] two processes take 10 on an idle machine
SCRIPT = """
import sys, time
from functools import partial
from itertools import product
from pathlib import Path
import torch
from asr.augment import Augment
from asr.model_file import load_model
from asr.data.splits import load_splits
from asr.text import TextNormalizer
from asr.trainer import Trainer
from asr.trainer.schedule import Constant
from asr.trainer.recipe import Recipe

run_dir, model, train, dev = map(Path, sys.argv[1:5])
ranks, accumulate = map(int, sys.argv[5:7])
torch.set_num_threads(1)
trainer = Trainer(
    max_epochs=2, batch_duration_s=float(sys.argv[7]), accumulate=accumulate, num_workers=0,
    accelerator="cpu", devices=ranks, log_every=1, save_every_s=float(sys.argv[8]),
)
if trainer.world.rank == 1 and sys.argv[9] == "slow_clock":
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
    from asr.data.manifest import write_manifest
    from asr.model_file import save_model

    (tmp_path / "script.py").write_text(SCRIPT)

    def train(
        ranks: int,
        accumulate: int,
        save_every_s: float = 300.0,
        clock: str = "",
        norm: str = "layer",
        splits: Splits | None = None,
        batch_duration_s: float = 1.0,
    ) -> Path:
        splits = splits or make_splits()
        write_manifest(tmp_path / "train.jsonl", splits.train)
        write_manifest(tmp_path / "dev.jsonl", splits.dev)
        save_model(tmp_path / "start.safetensors", make_recognizer(norm=norm), {})
        folder = tmp_path / f"ranks_{ranks}_{clock}"
        folder.mkdir()
        files = ["script.py", folder.name, "start.safetensors", "train.jsonl", "dev.jsonl"]
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
        root = str(Path(__file__).parents[2])
        command = [
            sys.executable, *(launcher if ranks > 1 else []), *files, str(ranks), str(accumulate),
            str(batch_duration_s), str(save_every_s), clock,
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
    assert_same_training(one, two)
    start = load_model(one.parent / "start.safetensors")[0].state_dict()
    trained = load_model(one / "last.safetensors")[0].state_dict()
    assert (start["model.head.bias"] - trained["model.head.bias"]).abs().max() > 1e-2


@pytest.mark.slow
def test_a_process_without_an_utterance_left_waits_for_the_others(
    train_on: Callable[..., Path], make_splits: MakeSplits
) -> None:
    splits = make_splits(lengths=(4,))  # of one length: a batch holds one
    splits = replace(splits, train=splits.train[:5], dev=splits.dev[:3])
    duration = splits.train[0].duration
    assert {u.duration for u in splits.train} == {duration}
    one, two = (
        train_on(ranks, accumulate=2 // ranks, splits=splits, batch_duration_s=duration)
        for ranks in (1, 2)
    )
    assert_same_training(one, two)


def assert_same_training(one: Path, two: Path) -> None:
    expected = load_model(one / "last.safetensors")[0].state_dict()
    assert_weights(two / "last.safetensors", expected, tolerance=1e-5)
    for name in ("steps", "validations"):
        left, right = rows_of(one / f"{name}.csv"), rows_of(two / f"{name}.csv")
        assert [row["step"] for row in left] == [row["step"] for row in right]
        for column in ("loss", "wer", "cer") if name == "validations" else ("loss", "lr"):
            found = [float(row[column]) for row in right]
            assert found == pytest.approx([float(row[column]) for row in left], rel=1e-4), column


@pytest.mark.slow
def test_several_processes_validate_the_model_that_is_saved(
    train_on: Callable[..., Path], make_splits: MakeSplits
) -> None:
    # Each process gathers batch norm's running statistics on its own batches.
    folder = train_on(2, accumulate=1, norm="batch")
    recognizer = load_model(folder / "last.safetensors")[0]
    dev = make_splits().dev
    tokens = [recognizer.tokenizer.encode(utterance.text) for utterance in dev]
    loader = BatchLoader(SpeechDataset(dev, tokens, RATE, seed=0))
    batches = loader.batches(0, [tuple(range(len(dev)))])
    alone = validate(recognizer, batches, join_world("cpu", 1, 1, "32-true"))
    row = rows_of(folder / "validations.csv")[-1]
    assert float(row["loss"]) == pytest.approx(alone.loss, rel=1e-5)


@pytest.mark.slow
def test_processes_whose_clocks_differ_save_together(train_on: Callable[..., Path]) -> None:
    # One rank's clock runs a thousand times as slow: only the other finds it time to save.
    folder = train_on(2, accumulate=1, save_every_s=1e-3, clock="slow_clock")
    assert state_of(folder)["progress"].epoch == 2
