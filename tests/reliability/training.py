"""Starts trainings as processes (driver.py), and reads what they told."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from asr.trainer.checkpoint import State, StateStore, read_state
from tests.reliability.driver import read

ROOT = Path(__file__).parents[2]
ADDRESS_SPACE = 16 << 30  # [bytes] of a child: torch and Numba reserve far more than they use
LIMIT_S = 120.0  # [s] for a child that takes seconds


class Training:
    """A training in a folder, started, killed and gone on with as often as a test likes.

    Args:
        folder: of the run; the spec lies beside it.
        train: manifest, or folder of shards, to learn from.
        dev: manifest to validate on.
        ranks: processes, joined by torchrun where there are several.
        max_restarts: of torchrun.
        spec: further entries of the spec.
    """

    def __init__(
        self,
        folder: Path,
        train: Path,
        dev: Path,
        ranks: int = 1,
        max_restarts: int = 0,
        settings: dict[str, Any] | None = None,
        **spec: Any,
    ) -> None:
        self.folder = folder
        self.ranks = ranks
        self.max_restarts = max_restarts
        self.spec = {
            "run_dir": str(folder), "train": str(train), "dev": str(dev),
            "settings": {"devices": ranks, **(settings or {})}, **spec,
        }  # fmt: skip
        self.environment: dict[str, str] = {}
        self.wrapper: list[str] = []  # a command that runs the training's own

    def start(self) -> subprocess.Popen[str]:
        """Start it, or go on with it."""
        path = self.folder.with_suffix(".json")
        path.write_text(json.dumps(self.spec))
        launcher = [
            "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={self.ranks}",
            f"--max-restarts={self.max_restarts}", "--signals-to-handle=SIGTERM,SIGINT,SIGUSR1",
        ]  # fmt: skip
        return subprocess.Popen(
            [
                *self.wrapper, sys.executable, *(launcher if self.ranks > 1 else []),
                str(Path(__file__).with_name("driver.py")), str(path),
            ],
            env=os.environ
            | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
            | self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=limit_memory,
        )  # fmt: skip

    def finish(self, process: subprocess.Popen[str] | None = None) -> tuple[int, str]:
        """Wait for a process, a new one where none is given; its status and what it said."""
        process = process or self.start()
        try:
            output, _ = process.communicate(timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            output, _ = process.communicate()
            raise AssertionError(f"still running after {LIMIT_S:g} s: {output}") from None
        return process.returncode, output

    def events(self, name: str | None = None, rank: int = 0) -> list[dict[str, Any]]:
        """What a rank told so far, of one kind or all."""
        told = read(self.folder / f"events.{rank}.jsonl")
        return [row for row in told if name in (None, row["event"])]

    def wait_for(self, process: subprocess.Popen[str], is_true: Callable[[], bool]) -> None:
        """Wait until something is so, while the process runs."""
        end = time.monotonic() + LIMIT_S
        while not is_true():
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < end, "waited in vain"
            time.sleep(0.01)  # more often would take the time from what is waited for

    def state(self) -> State:
        """The newest whole state."""
        content, path = StateStore(self.folder / "state").load()
        return read_state(content, path)


def descendants(pid: int) -> list[int]:
    """The processes that a process has started, and those that they have."""
    found: list[int] = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # a thread that has ended
            found += map(int, file.read_text().split())
    return found + [each for child in found for each in descendants(child)]


def runs(pid: int) -> bool:
    """Whether a process runs; one that has ended may still be listed, for its parent to see."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def limit_memory() -> None:
    """Bound the address space of a child."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
