"""Check 27: whatever happens to its processes, a training goes on or leaves, and leaves none."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from asr.data.workers import AHEAD
from asr.trainer.checkpoint import StateStore
from tests.reliability.driver import STOPPED_STATUS
from tests.reliability.training import LIMIT_S, ROOT, Training, descendants, runs

LEAVE_S = 25.0  # torchrun kills after 30
GONE_S = 5.0
DRY_S = 1.5  # [s] without a step: the batches that had been loaded are used up
# Steps from one loss to the next: what was asked of those that were lost is answered by then, so
# that no batch is lost twice.
GAP = AHEAD * 2 + 1
SETTINGS = {"max_epochs": 4, "batch_duration_s": 1.45, "num_workers": 2, "save_every_s": 1e9}
ENDLESS = SETTINGS | {"max_epochs": 500}
TOLD = "another one takes its place"
Corpus = Callable[..., Path]
Survived = Callable[[str, int, int], None]


def training_in(
    folder: Path, corpus: Corpus, settings: dict[str, object] = SETTINGS, **spec: object
) -> Training:
    return Training(folder, corpus(60), corpus(12, "dev"), settings=settings, **spec)  # type: ignore[arg-type]


def bits(training: Training, rank: int = 0) -> list[tuple[int, str]]:
    """Every step's loss to the last bit, by the run that took it last."""
    return sorted({row["step"]: row["loss"] for row in training.events("step", rank)}.items())


@pytest.fixture(scope="module")
def undisturbed(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Training:
    """The same training, loaded by the training process."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    training = training_in(folder, corpus, SETTINGS | {"num_workers": 0})
    status, output = training.finish()
    assert status == 0, output
    assert len(bits(training)) > 30
    return training


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=lambda n: n.name)
def test_lost_loading_processes_change_no_bit(
    corpus: Corpus,
    undisturbed: Training,
    tmp_path: Path,
    survived: Survived,
    seed: int,
    number: signal.Signals,
) -> None:
    draws = random.Random(seed)
    training = training_in(tmp_path / "run", corpus, silence_s=1.0, pause={"step": 0.05})
    process = training.start()
    lost: list[int] = []
    moment = 0
    while (moment := moment + GAP + draws.randrange(4)) < len(bits(undisturbed)) - 2:

        def is_time(at: int = moment) -> bool:
            return len(training.events("step")) >= at and bool(descendants(process.pid))

        training.wait_for(process, is_time)
        lost.append(draws.choice(sorted(descendants(process.pid))))
        os.kill(lost[-1], number)
    status, output = training.finish(process)
    assert status == 0, output
    assert bits(training) == bits(undisturbed)
    assert not any(map(runs, lost))
    assert 0 < output.count(TOLD) <= len(lost), output
    models = [each.folder / "last.safetensors" for each in (training, undisturbed)]
    assert models[0].read_bytes() == models[1].read_bytes()
    survived(f"loading processes, {number.name}", len(lost), len(lost))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moment", "number"),
    [
        ("at once", signal.SIGTERM),
        ("run dry", signal.SIGTERM),
        ("run dry", signal.SIGINT),
        ("run dry", signal.SIGUSR1),
        ("validation", signal.SIGTERM),
    ],
    ids=str,
)
def test_asked_to_stop_while_all_loading_processes_are_stopped(
    corpus: Corpus,
    undisturbed: Training,
    tmp_path: Path,
    survived: Survived,
    moment: str,
    number: signal.Signals,
) -> None:
    training = training_in(tmp_path / "run", corpus, ENDLESS, pause={"validating": 0.1})
    if moment == "validation":
        training.spec["dev"] = str(corpus(120, "dev"))  # more batches than are loaded ahead
    process = training.start()
    event = "validating" if moment == "validation" else "step"
    training.wait_for(process, lambda: len(training.events(event)) >= 2)
    workers = descendants(process.pid)
    assert workers
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    if moment != "at once":
        wait_until_dry(training, process)
        assert training.events()[-1]["event"] == event
    asked = time.monotonic()
    process.send_signal(number)
    status, output = training.finish(process)
    took_s = time.monotonic() - asked
    assert status == STOPPED_STATUS, output
    assert took_s < LEAVE_S
    assert not any(map(runs, workers))
    told = training.events("stopped")[-1]["message"]
    step = training.events("step")[-1]["step"]
    assert told.startswith(f"stopped by {number.name} at step {step}, saved")
    go_on_to_the_end(training, undisturbed)
    survived(f"all loading processes stopped, {moment}, {number.name}", 1, 1)


def wait_until_dry(training: Training, process: subprocess.Popen[str]) -> None:
    """Until the training waits for a batch: it has told nothing for a while."""
    last, since = -1, time.monotonic()
    while time.monotonic() - since < DRY_S:
        assert process.poll() is None
        told = len(training.events())
        if told != last:
            last, since = told, time.monotonic()
        time.sleep(0.02)


def go_on_to_the_end(training: Training, undisturbed: Training) -> None:
    """Nothing is lost or done otherwise: the losses are those of a training left alone."""
    training.spec["settings"]["max_epochs"] = SETTINGS["max_epochs"]
    training.spec["pause"] = {}
    status, output = training.finish()
    assert status == 0, output
    assert bits(training) == bits(undisturbed)[: len(bits(training))]
    assert len(bits(training)) == len(bits(undisturbed))


@pytest.mark.slow
@pytest.mark.parametrize("asked", ["both", "the one that waits"])
def test_one_of_two_ranks_waits_for_a_batch_when_they_are_asked_to_stop(
    corpus: Corpus, tmp_path: Path, survived: Survived, asked: str
) -> None:
    whole = training_in(tmp_path / "whole", corpus)
    training = training_in(tmp_path / "run", corpus, ENDLESS)
    for each in (whole, training):
        each.ranks = each.spec["settings"]["devices"] = 2
    assert whole.finish()[0] == 0
    process = training.start()
    training.wait_for(process, lambda: len(training.events("step", 1)) >= 2)
    ranks = [training.events("step", rank)[-1]["pid"] for rank in (0, 1)]
    for pid in descendants(ranks[1]):
        os.kill(pid, signal.SIGSTOP)
    wait_until_dry(training, process)
    start = time.monotonic()
    for pid in ranks if asked == "both" else ranks[1:]:
        os.kill(pid, signal.SIGTERM)
    status, output = training.finish(process)
    took_s = time.monotonic() - start
    assert status == 1, output  # torchrun's own
    assert took_s < LEAVE_S
    steps = [training.events("step", rank)[-1]["step"] for rank in (0, 1)]
    assert steps[0] == steps[1] == training.state().progress.step
    assert len(training.events("stopped", 0)) == len(training.events("stopped", 1)) == 1
    go_on_to_the_end(training, whole)
    survived(f"one of two ranks waits, {asked} asked", 1, 1)


@pytest.mark.slow
def test_one_of_two_ranks_has_no_batch(corpus: Corpus, tmp_path: Path, survived: Survived) -> None:
    """Both of its loading processes are lost at the same batch: all ranks leave, all is saved."""
    training = training_in(tmp_path / "run", corpus, ENDLESS, silence_s=0.5)
    training.ranks = training.spec["settings"]["devices"] = 2
    process = training.start()
    training.wait_for(process, lambda: len(training.events("step", 1)) >= 2)
    rank = training.events("step", 1)[-1]["pid"]
    stopped: set[int] = set()
    while process.poll() is None:
        for pid in set(descendants(rank)) - stopped:
            os.kill(pid, signal.SIGSTOP)
            stopped.add(pid)
        time.sleep(0.01)
    status, output = training.finish(process)
    assert status == 1, output
    assert re.search(r"ValueError: the batch of .* cannot be loaded: the second ", output), output
    steps = [training.events("step", each)[-1]["step"] for each in (0, 1)]
    assert steps[0] == steps[1] == training.state().progress.step
    survived("one of two ranks without a batch", 1, 1)


@pytest.mark.slow
@pytest.mark.parametrize("possible", [0, 1, 3])
def test_processes_that_cannot_be_started(
    corpus: Corpus, undisturbed: Training, tmp_path: Path, survived: Survived, possible: int
) -> None:
    """Two are wanted, and it is told once that there are fewer."""
    training = training_in(tmp_path / "run", corpus, forks=possible)
    status, output = training.finish()
    assert status == 0, output
    assert bits(training) == bits(undisturbed)
    lines = [line for line in output.splitlines() if "could be started" in line]
    expected = [f"only {possible} of 2"] if possible < 2 else []
    assert [line.split(" loading")[0] for line in lines] == expected
    survived(f"{possible} forks and no more", 1, 1)


@pytest.mark.slow
def test_little_shared_memory(corpus: Corpus, tmp_path: Path, survived: Survived) -> None:
    """64 MB, as in a container: less than the batches that two processes load ahead."""
    if os.geteuid() != 0 or subprocess.run(["unshare", "-m", "true"], check=False).returncode:
        pytest.skip("needs to mount a small /dev/shm: root, and unshare")
    letters = (240, 250)  # of 0.13 s each
    manifest, dev = corpus(160, letters=letters), corpus(4, "dev", letters=letters)
    settings = SETTINGS | {"max_epochs": 1, "batch_duration_s": 340.0}  # 10 utterances, 10.9 MB
    training = Training(tmp_path / "run", manifest, dev, settings=settings)
    training.wrapper = [
        "unshare", "-m", "sh", "-c",
        'mount -t tmpfs -o size=64m tmpfs /dev/shm && exec "$0" "$@"',
    ]  # fmt: skip
    status, output = training.finish()
    assert status == 0, output
    assert len(training.events("step")) >= 8
    survived("/dev/shm of 64 MB", 1, 1)


def command(folder: Path, manifest: Path, *words: str) -> list[str]:
    """A small `asr train` on two devices, which goes on where it was."""
    return [
        "train", "features=log_mel_40_8k", "augment=none", "schedule=constant",
        "model.subsampling=2", "model.channels=4", "model.hidden_size=16", "model.num_layers=1",
        f"data.train={manifest}", f"data.dev={manifest}", f"paths.run_dir={folder}", "name=run",
        "resume=auto", "trainer.accelerator=cpu", "trainer.batch_duration_s=1.5",
        "trainer.log_every=1", "trainer.save_every_steps=2", "trainer.num_workers=1", *words,
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["asr", "torchrun"])
@pytest.mark.parametrize("moment", ["start", "step"])
def test_ranks_end_with_the_process_that_started_them(
    corpus: Corpus, tmp_path: Path, survived: Survived, launcher: str, moment: str
) -> None:
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    start = ["-P", "-m", "asr"] if launcher == "asr" else [*torchrun, "-m", "asr"]
    devices = "trainer.devices=2"
    words = command(tmp_path, corpus(60), devices, "trainer.max_epochs=100000")
    steps = tmp_path / "train" / "run" / "steps.csv"
    with subprocess.Popen(
        [sys.executable, *start, *words],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        end = time.monotonic() + LIMIT_S
        expected = 2 if moment == "start" else 4  # with their loading processes
        while len(descendants(process.pid)) < expected or (
            moment == "step" and not (steps.exists() and steps.read_text().count("\n") > 5)
        ):
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.05)
        if moment == "start":
            time.sleep(0.5)  # into Python's own start, and the imports
        theirs = descendants(process.pid)
        process.kill()
    killed = time.monotonic()
    while any(map(runs, theirs)) and time.monotonic() - killed < GONE_S:
        time.sleep(0.02)
    left = [pid for pid in theirs if runs(pid)]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left
    if moment == "step":  # and nobody trains on beside the resume
        epochs = int(steps.read_text().splitlines()[-1].split(",")[1]) + 1
        again = command(tmp_path, corpus(60), devices, f"trainer.max_epochs={epochs}")
        subprocess.run([sys.executable, *start, *again], check=True, timeout=LIMIT_S)
        taken = [int(row.split(",")[0]) for row in steps.read_text().splitlines()[1:]]
        assert taken == list(range(1, len(taken) + 1))
    survived(f"ranks of {launcher} killed at the {moment}", 1, 1)


@pytest.mark.slow
def test_nothing_is_imported_from_the_working_folder(
    corpus: Corpus, tmp_path: Path, survived: Survived
) -> None:
    hostile, canary = tmp_path / "work", tmp_path / "canary"
    hostile.mkdir()
    names = ["random", "types", "torch", "asr", "numpy", "yaml", "sitecustomize", "hydra_plugins"]
    for name in names:
        (hostile / f"{name}.py").write_text(f"open({str(canary)!r}, 'a').write('{name} ')\n")
    words = command(tmp_path, corpus(60), "trainer.devices=2", "trainer.max_epochs=1")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "asr", *words],
        cwd=hostile,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, done.stderr
    assert not canary.exists(), canary.read_text()
    assert StateStore(tmp_path / "train" / "run" / "state").exists()
    survived("files in the working folder not imported", len(names), len(names))


@pytest.mark.slow
def test_all_processes_run_the_package_that_the_first_one_runs(
    corpus: Corpus, tmp_path: Path, survived: Survived
) -> None:
    """A checkout that is not installed, run from its own folder, which may be full of anything."""
    checkout, marks = tmp_path / "checkout", tmp_path / "marks"
    marks.mkdir()
    for name in ("asr", "conf"):
        shutil.copytree(ROOT / name, checkout / name)
    with (checkout / "asr" / "trainer" / "trainer.py").open("a") as file:
        file.write(f"\nimport os\nopen({str(marks)!r} + f'/{{os.getpid()}}', 'w').close()\n")
    words = command(tmp_path, corpus(60), "trainer.devices=2", "trainer.max_epochs=1")
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run(
        [sys.executable, "-m", "asr", *words],
        cwd=checkout, env=variables, check=True, timeout=LIMIT_S,
    )  # fmt: skip
    assert len(list(marks.iterdir())) == 3
    survived("processes of one package", 3, 3)
