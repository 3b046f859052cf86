"""A file is there whole, old or new, whatever happens to its writer."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from asr.atomic_file import remove_leftovers, replace_text, replacing


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file that holds "former", alone in its folder."""
    path = tmp_path / "model"
    path.write_text("former")
    return path


def assert_untouched(path: Path) -> None:
    assert path.read_text() == "former"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("function", ["replace", "fsync"])
def test_a_former_file_survives_a_full_disk(
    path: Path, function: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, function, full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        replace_text(path, "new")
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(path)
    assert_untouched(path)


def test_a_former_file_survives_a_write_that_is_interrupted(path: Path) -> None:
    def write_half() -> None:
        with replacing(path) as file:
            file.write(b"half of wh")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert_untouched(path)


def test_the_new_file_is_made_beside_the_old_one_and_flushed_first(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    replace, fsync = os.replace, os.fsync

    def flushed(descriptor: int) -> None:
        done.append("fsync")
        fsync(descriptor)

    def recorded(source: Path, target: Path) -> None:
        done.append("replace")
        assert Path(source).parent == Path(target).parent
        replace(source, target)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(os, "replace", recorded)
    replace_text(path, "new")
    assert done == ["fsync", "replace", "fsync"]  # the file, its name, the folder
    assert path.read_text() == "new"


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        replace_text(tmp_path / "a", "")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_leftovers_of_a_killed_writer_are_found(tmp_path: Path) -> None:
    block = replacing(tmp_path / "a")
    block.__enter__().write(b"half")  # as if killed here
    (tmp_path / "a.part").write_text("somebody else's")
    assert remove_leftovers(tmp_path) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["a.part"]
