"""Several processes behind one port: they share the work, are replaced, and end together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from asr.serve.workers import Workers
from tests.serve.running import ROOT, Running, running, wait_for

START_S = 60.0


def processes(server: Running) -> set[int]:
    """Ids of the processes that answer."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
        if parent == server.process.pid:
            found.add(int(folder.name))
    return found


def counted(server: Running) -> float:
    """Answers of all processes together."""
    text = server.ask("GET", "/metrics").content.decode()
    name = 'asr_requests_total{route="/v1/audio/transcriptions",status="200"}'
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))


def test_two_processes(tone_model: Path, wav: bytes, tmp_path: Path) -> None:
    with running(tone_model, tmp_path / "log.txt", "--workers", "2") as server:
        wait_for(lambda: len(processes(server)) == 2)
        for _ in range(10):
            assert server.transcribe(wav).json == {"text": "c a"}
        assert counted(server) == 10
        first, second = sorted(processes(server))
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: len(processes(server) - {first}) == 2)
        assert server.transcribe(wav).json == {"text": "c a"}
        assert counted(server) == 11
        assert f"process {first} ended with status -9" in server.log.read_text()
        children = processes(server)
        assert second in children
        assert server.stop() == 0
        assert not any(Path(f"/proc/{child}").exists() for child in children)
        assert "Traceback" not in server.log.read_text()


def test_they_end_with_the_process_that_started_them(tone_model: Path, tmp_path: Path) -> None:
    with running(tone_model, tmp_path / "log.txt", "--workers", "2") as server:
        wait_for(lambda: len(processes(server)) == 2)
        children = processes(server)
        server.process.kill()
        server.process.wait()
        wait_for(lambda: not any(Path(f"/proc/{child}").exists() for child in children))


def test_what_is_wrong_with_a_model_is_told_once(tmp_path: Path) -> None:
    model = tmp_path / "broken.safetensors"
    model.write_bytes(b"no model")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "asr", "serve", "--port", "0", "--workers", "2", "--model",
         str(model)],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if line.startswith("asr: error: ")]
    assert len(errors) == 1
    assert "broken.safetensors" in errors[0]


@pytest.mark.parametrize("is_ready", [True, False])
def test_the_first_has_to_be_ready(is_ready: bool) -> None:
    """In a child of this process, whose signals these are."""
    child = os.fork()
    if not child:
        told: list[str] = []

        def work(ready: Callable[[], None]) -> int:
            if not is_ready:
                return 7
            ready()
            signal.pause()
            return 0

        def tell() -> None:
            told.append("ready")
            os.kill(os.getpid(), signal.SIGTERM)

        status = Workers(work, lambda pid: None, tell).run(3)
        os._exit(status if told == ["ready"] * is_ready else 99)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == (0 if is_ready else 7)


@pytest.mark.parametrize("wait_s", [0.0, 0.0005, 0.001, 0.002, 0.004])
def test_an_end_while_they_are_started_ends_them(wait_s: float) -> None:
    """Whenever it comes, no process is missed, and none outlives the others."""
    for _ in range(5):
        child = os.fork()
        if not child:
            os.setpgid(0, 0)

            def work(ready: Callable[[], None]) -> int:
                ready()
                signal.pause()
                return 0

            def end() -> None:
                if os.fork() == 0:
                    time.sleep(wait_s)
                    os.kill(os.getppid(), signal.SIGTERM)
                    os._exit(0)

            os._exit(Workers(work, lambda pid: None, end).run(4))
        until = time.monotonic() + START_S
        while not (done := os.waitpid(child, os.WNOHANG))[0]:
            if time.monotonic() > until:
                left = Path(f"/proc/{child}/task/{child}/children").read_text().split()
                for each in (child, *map(int, left)):
                    os.kill(each, signal.SIGKILL)
                raise AssertionError(f"{len(left)} processes are left")
            time.sleep(0.001)
        assert os.waitstatus_to_exitcode(done[1]) == 0
