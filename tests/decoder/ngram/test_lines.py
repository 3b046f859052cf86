"""Texts line by line: what a user may name, and pipes that nobody writes to."""

from __future__ import annotations

import gzip
import os
import threading
import time
from pathlib import Path

import pytest

from asr.decoder.ngram.lines import WAIT_S, numbered_lines, open_text
from asr.untrusted import MAX_LINE_BYTES


def read(path: Path) -> list[bytes]:
    with open_text(path) as file:
        return [line for _, line in numbered_lines(path, file)]


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


def write_later(path: Path, blocks: list[bytes], wait_s: float) -> threading.Thread:
    """A writer that takes its time before every block."""

    def write() -> None:
        with path.open("wb", buffering=0) as file:
            for block in blocks:
                time.sleep(wait_s)
                file.write(block)

    thread = threading.Thread(target=write)
    thread.start()
    return thread


@pytest.mark.parametrize("content", [b"a\nb\n", gzip.compress(b"a\nb\n")])
def test_files_are_text_or_gzip(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "text"
    path.write_bytes(content)
    assert read(path) == [b"a\n", b"b\n"]


def test_a_pipe_is_read_to_its_end(fifo: Path) -> None:
    for blocks in ([b"a\n", b"b\n"], [gzip.compress(b"a\nb\n")], [b"a\nb\n" * 1], []):
        thread = write_later(fifo, blocks, wait_s=0.15)
        # A writer that leaves without a word is like one that never came.
        if blocks:
            assert read(fifo) == [b"a\n", b"b\n"]
        else:
            with pytest.raises(ValueError, match="a pipe that nobody writes to"):
                read(fifo)
        thread.join()


def test_a_pipe_of_a_shell_is_read(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"a\nb\n")
    os.close(writing)
    assert read(Path(f"/dev/fd/{reading}")) == [b"a\n", b"b\n"]
    os.close(reading)


def test_a_pipe_that_nobody_writes_to_is_told_soon(fifo: Path) -> None:
    start = time.monotonic()
    with pytest.raises(ValueError, match=r"fifo: a pipe that nobody writes to, expected a text$"):
        read(fifo)
    assert WAIT_S <= time.monotonic() - start < WAIT_S + 2


def test_a_device_without_end_is_told_soon() -> None:
    with pytest.raises(ValueError, match=rf"^/dev/zero:1: more than {MAX_LINE_BYTES} bytes, "):
        read(Path("/dev/zero"))
    assert read(Path("/dev/null")) == []


def test_folders_and_missing_files_are_named(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(OSError, match="irectory") as found:
            read(path)
        assert found.value.filename == str(path) or str(path) in str(found.value.filename)
