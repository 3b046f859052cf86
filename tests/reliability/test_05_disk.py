"""Check 5: without space or permission the states stay as they are, in one line with the bytes."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from asr.trainer.checkpoint import StateStore
from tests.reliability.training import LIMIT_S, ROOT, limit_memory

TINY = (
    "features=log_mel_40_8k", "features.n_mels=20", "augment=none", "model.subsampling=2",
    "model.channels=4", "model.hidden_size=16", "model.num_layers=1", "trainer.num_workers=0",
    "trainer.batch_duration_s=1.45", "trainer.accelerator=cpu", "trainer.log_every=1",
    "trainer.scan_memory=false", "trainer.max_epochs=500", "trainer.save_every_steps=3",
)  # fmt: skip
NO_SPACE, READ_ONLY = os.strerror(errno.ENOSPC), os.strerror(errno.EROFS)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 6 MiB."""
    yield from small_disk(tmp_path / "disk")


@pytest.fixture
def other_disk(tmp_path: Path) -> Iterator[Path]:
    """Another one."""
    yield from small_disk(tmp_path / "other_disk")


def small_disk(folder: Path) -> Iterator[Path]:
    """Mounted while the test runs."""
    folder.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    if mount.returncode:
        pytest.skip(f"no file system can be mounted here: {mount.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


class Command:
    """`asr train` on the small disk, as a user runs it."""

    def __init__(self, disk: Path, corpus: Callable[..., Path]) -> None:
        self.disk = disk
        self.run_dir = disk / "train" / "run"
        self.arguments = [
            "train", *TINY, f"data.train={corpus(60)}", f"data.dev={corpus(12, 'dev')}",
            f"paths.run_dir={disk}", "name=run", "resume=auto",
        ]  # fmt: skip

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "asr", *(arguments or self.arguments)],
            env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=limit_memory,
        )

    def finish(self, *arguments: str) -> None:
        """Start and wait for a good end."""
        process = self.start(*arguments)
        output, _ = process.communicate(timeout=LIMIT_S)
        assert process.returncode == 0, output

    def wait_for_states(self, process: subprocess.Popen[str], count: int = 1) -> None:
        """Until it has saved so many times within the training."""
        end = time.monotonic() + LIMIT_S
        while self.step() < 3 * count:
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < end
            time.sleep(0.01)

    def step(self) -> int:
        index = self.run_dir / "state" / "index.json"
        return json.loads(index.read_text())["states"][-1]["step"] if index.exists() else -1

    def states(self) -> dict[str, bytes]:
        folder = self.run_dir / "state"
        return {path.name: path.read_bytes() for path in folder.glob("*") if path.suffix != ".part"}


def fill(disk: Path) -> None:
    """Leave no free byte."""
    size = 1 << 20
    with (disk / "ballast").open("wb", buffering=0) as file:
        while size:
            try:
                file.write(bytes(size))
            except OSError:
                size //= 2


def end_of(process: subprocess.Popen[str], problem: str) -> str:
    """The one line in which a command tells a problem with the disk; its path and its bytes."""
    output, _ = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 2, output
    assert "Traceback" not in output
    errors = [line for line in output.splitlines() if line.startswith("asr: error: ")]
    assert errors == output.splitlines()[-1:], output
    written = r"(\S+): cannot be written, \d+ bytes needed: (.*)"
    message = re.fullmatch(rf"asr: error: {written}", errors[0])
    assert message, errors[0]
    assert message[2] == problem
    return message[1]


@pytest.mark.slow
@pytest.mark.parametrize("case", ["while it trains", "at its start", "when it goes on"])
def test_no_space_for_a_state(
    disk: Path,
    corpus: Callable[..., Path],
    survived: Callable[[str, int, int], None],
    case: str,
) -> None:
    command = Command(disk, corpus)
    if case == "at its start":
        command.run_dir.mkdir(parents=True)
        fill(disk)
        process, before = command.start(), {}
    else:
        process = command.start()
        command.wait_for_states(process, 2)
        if case == "when it goes on":
            process.terminate()
            process.communicate(timeout=LIMIT_S)
            assert process.returncode == 75
        fill(disk)
        before = command.states()
        process = command.start() if case == "when it goes on" else process
    assert end_of(process, NO_SPACE).startswith(str(disk))
    assert command.states() == before
    (disk / "ballast").unlink()
    again = command.start()
    command.wait_for_states(again, command.step() // 3 + 2)  # it goes on from there
    again.kill()
    again.communicate()
    survived(f"disk, no space {case}", 1, 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["steps.csv", "validations.csv", "left_out.jsonl"])
def test_no_space_for_a_log(
    disk: Path,
    other_disk: Path,
    tmp_path: Path,
    corpus: Callable[..., Path],
    survived: Callable[[str, int, int], None],
    name: str,
) -> None:
    command = Command(disk, corpus)
    train = corpus(60)
    if name == "left_out.jsonl":  # something to list, after the first states
        rows = [json.loads(line) for line in train.read_text().splitlines()]
        for row in rows:
            row["audio_filepath"] = str(train.parent / row["audio_filepath"])
        (tmp_path / "broken.wav").write_bytes(b"no audio")
        rows[-1] |= {"audio_filepath": str(tmp_path / "broken.wav"), "duration": 5.0}
        manifest = tmp_path / "broken.jsonl"
        manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
        command.arguments += [f"data.train={manifest}", "trainer.batch_duration_s=6"]
    process = command.start()
    command.wait_for_states(process, 0)
    log = command.run_dir / name
    log.unlink(missing_ok=True)
    # A file of the other file system in its place: a link would be refused.
    elsewhere = other_disk / name
    elsewhere.touch()
    log.touch()
    subprocess.run(["mount", "--bind", str(elsewhere), str(log)], check=True)
    try:
        fill(other_disk)
        assert end_of(process, NO_SPACE) == str(log)
        before = command.states()
        assert StateStore(command.run_dir / "state").load()
    finally:
        subprocess.run(["umount", "--lazy", str(log)], check=True)
    log.unlink()
    again = command.start()
    command.wait_for_states(again, command.step() // 3 + 2)
    again.kill()
    again.communicate()
    assert before
    survived(f"disk, no space for {name}", 1, 1)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["model", "report"])
def test_no_space_for_a_model_or_a_report(
    disk: Path, corpus: Callable[..., Path], survived: Callable[[str, int, int], None], case: str
) -> None:
    command = Command(disk, corpus)
    command.arguments += ["trainer.max_epochs=1"]
    command.finish()
    model = command.run_dir / "best.safetensors"
    before = {path: path.read_bytes() for path in command.run_dir.glob("*.safetensors")}
    if case == "model":
        fill(disk)
        process = command.start(
            "average", str(model), str(model.with_stem("last")), "--output",
            f"{disk}/mean.safetensors",
        )  # fmt: skip
        assert end_of(process, NO_SPACE) == f"{disk}/mean.safetensors"
        assert not (disk / "mean.safetensors").exists()
    else:
        arguments = [
            "evaluate", f"model_file={model}", f"manifest={corpus(12, 'dev')}",
            f"paths.run_dir={disk}", "name=report", "device=cpu",
        ]  # fmt: skip
        command.finish(*arguments)
        report = disk / "evaluate" / "report" / "report.html"
        written = report.read_bytes()
        fill(disk)
        assert end_of(command.start(*arguments), NO_SPACE).startswith(str(report.parent))
        assert report.read_bytes() == written
    assert {path: path.read_bytes() for path in before} == before
    survived(f"disk, no space for a {case}", 1, 1)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["from the start", "later"])
def test_a_folder_that_cannot_be_written_to(
    disk: Path, corpus: Callable[..., Path], survived: Callable[[str, int, int], None], case: str
) -> None:
    command = Command(disk, corpus)
    folder = disk / "train" if case == "from the start" else command.run_dir / "state"
    if case == "from the start":
        folder.mkdir()
        with read_only(folder):
            output, _ = command.start().communicate(timeout=LIMIT_S)
        errors = [line for line in output.splitlines() if line.startswith("asr: error: ")]
        assert errors == output.splitlines()[-1:] == [f"asr: error: {command.run_dir}: {READ_ONLY}"]
    else:
        process = command.start()
        command.wait_for_states(process)
        with read_only(folder):
            before = command.states()
            assert end_of(process, READ_ONLY).startswith(str(folder))
            assert command.states() == before
    again = command.start()
    command.wait_for_states(again, command.step() // 3 + 2)
    again.kill()
    again.communicate()
    survived(f"disk, read-only {case}", 1, 1)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Nobody may write to the folder, whoever is writing there just now."""
    subprocess.run(["mount", "--bind", str(folder), str(folder)], check=True)
    subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
