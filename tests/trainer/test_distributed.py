"""Signals are noted, processes of one attempt find each other, and several train as one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
import torch
from torch.distributed import HashStore

from asr.data.dataset import batch_loader
from asr.data.manifest import write_manifest
from asr.data.splits import Splits, load_splits
from asr.data.workers import STOP_SIGNALS
from asr.model_file import load_model, save_model
from asr.text import TextNormalizer
from asr.trainer.distributed import StopRequest, agree_on_attempt, join_world
from asr.trainer.validation import validate
from tests.data.loading import requests_of
from tests.trainer.fitting import (
    RATE,
    MakeRecognizer,
    MakeSplits,
    assert_weights,
    recipe_of,
    rows_of,
    state_of,
    trainer_of,
)

# --- signals ----------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _usual_handlers() -> Iterator[None]:
    """A shell starts what is to run in the background with SIGINT ignored."""
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    for number in STOP_SIGNALS:
        usual = signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL
        signal.signal(number, usual)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP])
def test_a_signal_is_noted(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with StopRequest() as stop:
        assert not stop.is_made
        os.kill(os.getpid(), number)
        assert stop.is_made
        assert stop.signal is number
    assert signal.getsignal(number) is before


def test_a_second_ctrl_c_interrupts() -> None:
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        assert stop.is_made


def test_among_several_processes_a_second_one_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RANK", "0")
    with StopRequest() as stop:
        for _ in range(2):  # the terminal's, and the launcher's
            os.kill(os.getpid(), signal.SIGINT)
        assert stop.signal is signal.SIGINT


def test_another_handler_hears_of_it_afterwards() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGUSR2, lambda number, frame: heard.append(number))
    try:
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGUSR2)
            assert stop.is_made
            assert not heard
        assert heard == [signal.SIGUSR2]
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_a_signal_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.is_made
    finally:
        signal.signal(signal.SIGHUP, before)


def test_outside_the_main_thread_nothing_is_noted() -> None:
    seen: list[bool] = []

    def ask() -> None:
        with StopRequest() as stop:
            seen.append(stop.is_made)

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert seen == [False]


# --- one attempt ------------------------------------------------------------------------------


def attempt(store: HashStore, world_size: int, late: int | None = None) -> set[str]:
    """The names that the ranks of an attempt agree on; one of them may come late."""

    def agree(rank: int) -> str:
        if rank == late:
            threading.Event().wait(0.2)
        return agree_on_attempt(store, rank, world_size, timeout_s=30)

    with ThreadPoolExecutor(world_size) as pool:
        return set(pool.map(agree, range(world_size)))


@pytest.mark.parametrize("late", [None, 0, 1, 3])
def test_the_ranks_of_an_attempt_agree_and_no_two_attempts_do(late: int | None) -> None:
    store = HashStore()
    names = [attempt(store, 4, late) for _ in range(5)]
    assert all(len(each) == 1 for each in names)
    assert len(set.union(*names)) == 5


def test_what_a_dead_attempt_asked_is_not_taken_for_one_that_lives() -> None:
    store = HashStore()
    store.set("ask/1", "word of a process that died before it was answered")
    (name,) = attempt(store, 2, late=1)
    assert store.check([f"{name}/here/1"])


def test_a_process_that_does_not_come_is_named() -> None:
    store = HashStore()
    store.set_timeout(timedelta(seconds=5))
    with pytest.raises(TimeoutError, match=r"ranks \[1, 2\] of 3 did not join"):
        agree_on_attempt(store, 0, 3, timeout_s=0.1)


# --- several processes ------------------------------------------------------------------------


LIMIT_S = 300.0  # [s] two processes take 10 on an idle machine
SCRIPT = """
import sys
from pathlib import Path
import torch
from asr.trainer import diagnostics
from tests.trainer.test_distributed import fit

torch.set_num_threads(1)
diagnostics.draw_curves = diagnostics.draw_alignments = lambda *_, **__: None
folder, ranks, accumulate, batch_duration_s, save_every_s, clock = sys.argv[1:]
fit(
    Path(folder), int(ranks), int(accumulate), float(batch_duration_s), float(save_every_s),
    has_slow_clock=clock == "slow_clock",
)
"""


def fit(
    folder: Path,
    ranks: int,
    accumulate: int,
    batch_duration_s: float,
    save_every_s: float,
    has_slow_clock: bool = False,
) -> None:
    """Train in a folder from the model and the manifests beside it."""
    trainer = trainer_of(
        batch_duration_s=batch_duration_s, accumulate=accumulate, devices=ranks, log_every=1,
        save_every_s=save_every_s,
    )  # fmt: skip
    if trainer.world.rank == 1 and has_slow_clock:
        clock = time.monotonic
        time.monotonic = lambda: clock() / 1000
    train, dev = (str(folder.parent / f"{split}.jsonl") for split in ("train", "dev"))
    splits = load_splits(train, dev, TextNormalizer(), "abcd")
    recognizer = load_model(folder.parent / "start.safetensors")[0]
    trainer.fit(recipe_of(recognizer, splits, partial(torch.optim.SGD, lr=0.1)), folder)


@pytest.fixture
def train_on(
    make_recognizer: MakeRecognizer, make_splits: MakeSplits, tmp_path: Path
) -> Callable[..., Path]:
    """Trains the same model on the same data with a number of processes; gives the run's folder."""

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
        settings = (folder, ranks, accumulate, batch_duration_s, save_every_s)
        if ranks == 1:
            fit(*settings)
            return folder
        (tmp_path / "script.py").write_text(SCRIPT)
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
        command = [sys.executable, *launcher, "script.py", *map(str, settings), clock]
        root = str(Path(__file__).parents[2])
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
    batches = batch_loader(RATE).load(requests_of(dev, tokens, 0, [range(len(dev))]))
    alone = validate(recognizer, batches, join_world("cpu", 1, 1, "32-true"))
    row = rows_of(folder / "validations.csv")[-1]
    assert float(row["loss"]) == pytest.approx(alone.loss, rel=1e-5)


@pytest.mark.slow
def test_processes_whose_clocks_differ_save_together(train_on: Callable[..., Path]) -> None:
    # One rank's clock runs a thousand times as slow: only the other finds it time to save.
    folder = train_on(2, accumulate=1, save_every_s=1e-3, clock="slow_clock")
    assert state_of(folder).progress.epoch == 2
