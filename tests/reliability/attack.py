"""Commands whose memory and time are bounded, each a child of one process that has imported all.

A child starts in milliseconds where a fresh process takes seconds. The process reads a request a
line, `{"arguments": [...], ...}`, and answers with an `Outcome` a line.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
MORE_BYTES = 500_000_000  # of memory that a command may take beyond what its imports do
MORE_S = 5.0  # [s] that a command may compute or wait
HUNG_S = 40.0  # [s] after which it is killed; a loaded machine is slow, and no reason to fail
PREPARING_S = 600.0  # [s] that one may take without a bound on its memory: it makes what is tried
CLOSED = "closed"


@dataclass(frozen=True)
class Outcome:
    """What became of a command.

    Attributes:
        status: its exit status, negative for a signal.
        seconds: from its beginning to its end [s].
        computed: of them on a processor [s].
        num_bytes: memory in use at most, beyond what was there when it began [bytes].
        errors: the lines on its standard error.
        output: what it printed.
    """

    status: int
    seconds: float
    computed: float
    num_bytes: int
    errors: tuple[str, ...]
    output: str

    @property
    def is_bounded(self) -> bool:
        """Whether it ended soon, by itself, in little memory."""
        is_quick = min(self.seconds, self.computed) <= MORE_S and self.seconds < HUNG_S
        return self.status >= 0 and is_quick and self.num_bytes <= MORE_BYTES

    def is_one_line(self, about: str) -> bool:
        """Whether it ended so as a user's mistake does, in a line of a length to read with this."""
        told = [line for line in self.errors if line.startswith("asr: error: ")]
        is_told = len(told) == 1 and about in told[0] and len(told[0]) < 1000
        return self.is_bounded and self.status == 2 and is_told


class Attacker:
    """Runs commands of `asr` one after another.

    Args:
        process: that runs them.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(
        self,
        *arguments: str,
        folder: Path,
        stdin: str = os.devnull,
        more_bytes: int | None = MORE_BYTES,
    ) -> Outcome:
        """Run one command.

        Args:
            arguments: of `asr`.
            folder: in which it is run.
            stdin: a file to be its standard input, or CLOSED.
            more_bytes: of data that it can allocate; None for any number.
        """
        request = {
            "arguments": arguments, "folder": str(folder), "stdin": stdin, "more": more_bytes
        }  # fmt: skip
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return Outcome(**{**answer, "errors": tuple(answer["errors"])})


@contextmanager
def attacker() -> Iterator[Attacker]:
    """A process to run commands in, for the length of the block."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.reliability.attack"], cwd=ROOT, text=True,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        yield Attacker(process)
        process.stdin.close()  # type: ignore[union-attr]


def _serve() -> None:
    from asr.cli.main import COMMANDS

    for name in COMMANDS:
        importlib.import_module(f"asr.cli.{name.replace('-', '_')}")
    for name in ("asr.cli.build", "asr.aligner", "asr.trainer", "numba", "optuna", "matplotlib"):
        importlib.import_module(name)
    idle = {"arguments": ["--version"], "folder": "/", "stdin": os.devnull, "more": None}
    before = _answer(idle, 0).num_bytes
    for line in sys.stdin:
        print(json.dumps(asdict(_answer(json.loads(line), before))), flush=True)


def _answer(request: dict[str, Any], before: int) -> Outcome:
    # Files, not pipes: nobody needs to read them meanwhile.
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        start = time.monotonic()
        child = os.fork()
        if not child:
            _run(request, out.fileno(), err.fileno())
        while not (ended := os.wait4(child, os.WNOHANG))[0]:
            if time.monotonic() - start > (PREPARING_S if request["more"] is None else HUNG_S):
                os.kill(child, signal.SIGKILL)
            time.sleep(0.005)
        _, status, usage = ended
        seconds = time.monotonic() - start
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    return Outcome(
        os.waitstatus_to_exitcode(status), seconds, usage.ru_utime + usage.ru_stime,
        usage.ru_maxrss * 1024 - before, tuple(texts[1].splitlines()), texts[0],
    )  # fmt: skip


def _run(request: dict[str, Any], out: int, err: int) -> None:
    """Be the command."""
    import torch

    from asr.cli.main import main

    status = 1
    try:
        os.dup2(out, 1)
        os.dup2(err, 2)
        os.chdir(request["folder"])
        if request["stdin"] == CLOSED:
            sys.stdin = None  # type: ignore[assignment]  # as Python has it then
            os.close(0)
        else:
            os.dup2(os.open(request["stdin"], os.O_RDONLY), 0)
            sys.stdin = open(0, closefd=False)  # noqa: SIM115
        torch.set_num_threads(1)  # threads of OpenMP do not outlive a fork
        if request["more"] is not None:
            pages = int(Path("/proc/self/statm").read_text().split()[5])
            bound = pages * resource.getpagesize() + request["more"]
            resource.setrlimit(resource.RLIMIT_DATA, (bound, bound))
        status = main(request["arguments"])
    except SystemExit as leave:
        status = leave.code if isinstance(leave.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    _serve()
