"""Locks: one holder at a time, named to the others, gone with its process."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

import asr.lock
from asr.lock import locked


def hold(path: Path, doing: str = "reads") -> None:
    """Take a lock that another has."""
    with locked(path, doing):
        pytest.fail("held twice")


HOLD = """
import sys
from pathlib import Path
from asr.lock import locked
with locked(Path(sys.argv[1]), "writes"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asr.lock, "PATIENCE_S", 0.2)


def test_the_second_is_refused_by_name_and_may_go_on_after_the_first(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locked(path, "writes"):
        mine = f"{os.getpid()} on "
        with pytest.raises(ValueError, match=rf"^{path}: another process \({mine}.+\) reads"):
            hold(path)
        holder = path.read_text()
    with locked(path, "reads"):
        assert path.read_text() == holder


def test_a_killed_holder_lets_go(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(ValueError, match=rf"another process \({process.pid} on "):
            hold(path)
        process.kill()
        process.wait()
        with locked(path, "reads"):
            pass


def test_what_the_holder_wrote_cannot_act_on_a_terminal(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locked(path, "writes"):
        path.write_bytes(b"\x1b[2J" * 200)
        with pytest.raises(ValueError, match="another process writes") as error:
            hold(path, "writes")
    assert str(error.value).isprintable()


def test_neither_links_nor_fifos_are_taken_for_a_lock(tmp_path: Path) -> None:
    treasure = tmp_path / "treasure"
    treasure.write_text("precious")
    (tmp_path / "link").symlink_to(treasure)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ValueError, match="link: a link, expected a lock file"):
        hold(tmp_path / "link")
    with pytest.raises(ValueError, match="fifo: not a regular file, expected a lock file"):
        hold(tmp_path / "fifo")
    assert treasure.read_text() == "precious"


def test_a_file_system_without_locks_is_told_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*arguments: object) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(fcntl, "flock", none)
    told: list[str] = []
    with locked(tmp_path / "lock", "writes", unlockable=told.append):
        assert told == [
            f"{tmp_path / 'lock'}: this file system has no locks: see that nobody else writes here"
        ]
    with pytest.raises(OSError, match="lock") as error, locked(tmp_path / "lock", "writes"):
        pytest.fail("held")
    assert error.value.filename == str(tmp_path / "lock")
