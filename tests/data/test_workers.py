"""Loading processes answer in order, are replaced when lost, and end with their parent."""

from __future__ import annotations

import errno
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import wait
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr.data.workers import AHEAD, Interrupted, Workers, end_with_parent

LIMIT_S = 60.0  # [s] for what takes 3
SILENCE_S = 0.5  # [s] in place of the minute that a process may be silent
REQUESTS = [[number, number + 100] for number in range(12)]
DONE = [[-number, -number - 100] for number in range(12)]


def negative(key: int) -> int:
    return -key


@pytest.fixture
def pool() -> Iterator[Callable[..., Workers[int, list[int]]]]:
    """Makes pools of two processes, which are ended afterwards."""
    made: list[Workers[int, list[int]]] = []

    def make(load: Callable[[int], int] = negative, **settings: object) -> Workers[int, list[int]]:
        defaults = {"finish": list, "name": "u{}".format, "count": 2, "silence_s": SILENCE_S}
        made.append(Workers(load, **(defaults | settings)))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for each in made:
        each.close()


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_results_come_in_the_order_of_the_requests(
    pool: Callable[..., Workers[int, list[int]]], count: int
) -> None:
    def slow_start(key: int) -> int:
        time.sleep(0.05 if key == 0 else 0)
        return -key

    workers = pool(slow_start, count=count)
    for _ in range(2):  # the same processes serve again
        assert list(workers.load(REQUESTS)) == DONE
        pids = workers.pids
        assert len(set(pids)) == count
    assert list(workers.load([])) == []
    assert list(workers.load([[], [5]])) == [[], [-5]]
    assert workers.pids == pids


@pytest.mark.parametrize(("count", "ahead"), [(0, 1), (1, AHEAD), (2, 2 * AHEAD)])
def test_only_the_next_requests_are_taken(
    pool: Callable[..., Workers[int, list[int]]], count: int, ahead: int
) -> None:
    taken = []

    def requests() -> Iterator[list[int]]:
        for number in range(100):
            taken.append(number)
            yield [number]

    results = pool(count=count).load(requests())
    for number in range(3):
        assert next(results) == [-number]
        assert len(taken) == number + ahead + (count > 0)


def test_requests_that_nobody_waits_for_leave_no_trace(
    pool: Callable[..., Workers[int, list[int]]],
) -> None:
    workers = pool()
    abandoned = workers.load(REQUESTS)
    assert next(abandoned) == DONE[0]
    other = workers.load([[7], [8]])
    assert next(other) == [-7]
    abandoned.close()
    assert next(other) == [-8]
    assert list(workers.load(REQUESTS)) == DONE


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (signal.SIGKILL, "was killed by SIGKILL (lack of memory?)"),
        (signal.SIGXCPU, "was killed by SIGXCPU"),
        (signal.SIGSTOP, "did not answer for 0.5 s"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_process_that_is_lost_is_told_and_replaced(
    pool: Callable[..., Workers[int, list[int]]],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    number: signal.Signals,
    told: str,
) -> None:
    mark = tmp_path / "pid"

    def load(key: int) -> int:
        if key == 3 and not mark.exists():
            mark.write_text(str(os.getpid()))
            os.kill(os.getpid(), number)
        return -key

    workers = pool(load)
    assert list(workers.load(REQUESTS)) == DONE
    lost = int(mark.read_text())
    assert warnings(caplog) == [f"loading process {lost} {told}: another one takes its place"]
    assert len(workers.pids) == 2
    assert lost not in workers.pids
    assert not Path(f"/proc/{lost}").exists()


def test_one_that_is_lost_while_it_has_nothing_to_do_is_replaced_too(
    pool: Callable[..., Workers[int, list[int]]], caplog: pytest.LogCaptureFixture
) -> None:
    workers = pool()
    workers.start()
    os.kill(workers.pids[0], signal.SIGKILL)
    assert list(workers.load(REQUESTS)) == DONE
    assert len(warnings(caplog)) == 1


@pytest.mark.parametrize("ending", ["SIGKILL", "status 3", "SIGSTOP"])
def test_a_batch_at_which_two_are_lost_ends_it_by_name(
    pool: Callable[..., Workers[int, list[int]]],
    caplog: pytest.LogCaptureFixture,
    ending: str,
) -> None:
    def load(key: int) -> int:
        if key == 3 and ending == "status 3":
            os._exit(3)
        if key == 3:
            os.kill(os.getpid(), signal.Signals[ending])
        return -key

    results = pool(load).load([[1], [2, 3, 4, 5, 6], [7]])
    assert next(results) == [-1]
    how = {
        "SIGKILL": "was killed by SIGKILL (lack of memory?)",
        "SIGSTOP": "did not answer for 0.5 s",
    }.get(ending, "ended with status 3")
    message = (
        "the batch of u2, u3, u4 and 2 more cannot be loaded: the second loading process "
        f"{how} at it, expected its utterances"
    )
    with pytest.raises(ValueError, match="cannot be loaded") as caught:
        next(results)
    assert str(caught.value) == message
    assert len(warnings(caplog)) == 1


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("no noise"), None),
        (FileNotFoundError(2, "No such file", "a.wav"), None),
        (KeyError("a mistake"), "u3 cannot be loaded: KeyError: 'a mistake'"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_is_raised_with_its_result_and_a_fault_of_the_program_told_once(
    pool: Callable[..., Workers[int, list[int]]],
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    error: Exception,
    told: str | None,
) -> None:
    def load(key: int) -> int:
        if key == 3:
            raise error
        return -key

    workers = pool(load)
    results = workers.load([[1], [2, 3, 4], [7]])
    assert next(results) == [-1]
    with pytest.raises(ValueError if told else type(error)) as caught:
        next(results)
    assert str(caught.value) == (told or str(error))
    assert capfd.readouterr().err.count("Traceback") == (told is not None)
    assert warnings(caplog) == []
    assert list(workers.load([[7]])) == [[-7]], "by the same processes"


def test_slow_is_not_silent(
    pool: Callable[..., Workers[int, list[int]]],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("asr.data.workers.SIGN_S", 0.05)

    def slow(key: int) -> int:
        time.sleep(0.1)
        return -key

    keys = list(range(12))  # which take longer together than a process may be silent
    assert list(pool(slow).load([keys])) == [[-key for key in keys]]
    assert warnings(caplog) == []


def test_time_in_which_all_were_stopped_is_no_silence(
    pool: Callable[..., Workers[int, list[int]]],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    is_first = True

    def stopped_once(sources: list[object], wait_s: float) -> list[object]:
        nonlocal is_first
        if wait_s and is_first:
            is_first = False
            time.sleep(2 * SILENCE_S)
        return wait(sources, wait_s)  # type: ignore[arg-type]

    def slow(key: int) -> int:
        time.sleep(2 * SILENCE_S + 0.2)
        return -key

    monkeypatch.setattr("asr.data.workers.wait", stopped_once)
    assert list(pool(slow).load([[1]])) == [[-1]]
    assert warnings(caplog) == []


def test_waiting_is_given_up_when_asked_to(
    pool: Callable[..., Workers[int, list[int]]],
) -> None:
    is_stop = False
    workers = pool(is_stop=lambda: is_stop, silence_s=LIMIT_S)
    results = workers.load(REQUESTS)
    assert next(results) == DONE[0]
    for pid in workers.pids:
        os.kill(pid, signal.SIGSTOP)
    is_stop = True
    with pytest.raises(Interrupted):
        list(results)  # what was there is still given
    start = time.monotonic()
    workers.close()
    assert time.monotonic() - start < 5
    is_stop = False
    assert list(workers.load(REQUESTS)) == DONE


@pytest.mark.parametrize("possible", [0, 1])
def test_where_processes_cannot_be_started_the_others_load(
    pool: Callable[..., Workers[int, list[int]]],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    possible: int,
) -> None:
    fork, forks = os.fork, 0

    def limited() -> int:
        nonlocal forks
        forks += 1
        if forks > possible:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return fork()

    monkeypatch.setattr(os, "fork", limited)
    workers = pool()
    for _ in range(2):
        assert list(workers.load(REQUESTS)) == DONE
    assert len(workers.pids) == possible
    who = "they load" if possible else "this process loads"
    assert warnings(caplog) == [
        f"only {possible} of 2 loading processes could be started (Resource temporarily "
        f"unavailable): {who} all batches"
    ]
    if possible:  # and none takes the place of the last one
        os.kill(workers.pids[0], signal.SIGKILL)
        assert list(workers.load(REQUESTS)) == DONE
        assert workers.pids == []


def test_large_requests_and_results_wait_for_nobody(
    pool: Callable[..., Workers[int, list[int]]],
) -> None:
    """More than any pipe holds, to a process that is stopped."""
    workers = pool(load=len, count=1)
    results = workers.load([bytes(10**7)] for _ in range(6))  # type: ignore[misc]
    workers.start()
    os.kill(workers.pids[0], signal.SIGSTOP)
    assert list(results) == [[10**7]] * 6


def test_a_pool_that_is_forgotten_ends_its_processes() -> None:
    workers = Workers(negative, list, str, 2)
    workers.start()
    pids = workers.pids
    os.kill(pids[0], signal.SIGSTOP)
    del workers
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_a_process_without_its_parent_ends() -> None:
    pid = os.fork()
    if not pid:
        end_with_parent(1 << 30)  # the one it had is gone
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


# Loads one of six batches and leaves without a word to the loading processes: Python alone, and
# with torch, whose import registers what is done at the exit too.
ALONE = """
import os, signal, sys, time
from asr.data.workers import Workers

def load(key):
    if sys.argv[2] == "stuck" and key != "u0":
        time.sleep(10_000)
    return key

loader = Workers(load, list, str, count=1 if sys.argv[2] == "stuck" else 2)
batches = loader.load([f"u{k}"] for k in range(6))
name = next(batches)[0]
"""
WITH_TORCH = """
import os, signal, sys
from pathlib import Path
from asr.data import dataset
from asr.data.manifest import Utterance

utterances = [Utterance(Path(sys.argv[1]), "a", 0.1, f"u{k}") for k in range(6)]
loader = dataset.batch_loader(8000, num_workers=2)
batches = loader.load([dataset.Request(0, each, [1])] for each in utterances)
name = next(batches).utterances[0].id
"""
ENDING = """
ending, pids = sys.argv[2], loader.pids
print(name, *pids, flush=True)
if ending == "without its loader":
    del loader
if ending == "error":
    raise ValueError("wrong")
if ending == "stopped":
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
if ending == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(
    ("script", "ending", "status"),
    [
        (WITH_TORCH, "plain", 0),
        (ALONE, "without its loader", 0),
        (ALONE, "error", 1),
        (ALONE, "stuck", 0),
        (WITH_TORCH, "stopped", 0),
        (ALONE, "killed", -signal.SIGKILL),
    ],
    ids=["plain", "without its loader", "error", "stuck", "stopped", "killed"],
)
def test_a_script_that_closes_nothing_ends(
    tmp_path: Path, script: str, ending: str, status: int
) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(800), 8000)
    with subprocess.Popen(
        [sys.executable, "-c", script + ENDING, str(path), ending],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    assert process.returncode == status
    first, *pids = output.split()
    assert first == "u0"
    assert pids
    end = time.monotonic() + LIMIT_S
    while ending == "killed" and any(map(runs, pids)) and time.monotonic() < end:
        time.sleep(0.01)  # the kernel ends them a moment later
    for pid in pids:
        assert not runs(pid), "a loading process was left behind"


def runs(pid: str) -> bool:
    """Whether a process runs; one that has ended may still be listed, for its parent to see."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
