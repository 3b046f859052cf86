"""Text line by line, plain or gzip: of a model, and of what a user names to make one of."""

from __future__ import annotations

import io
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from asr.untrusted import MAX_LINE_BYTES, HasLines, lines, unpacked

WAIT_S = 3.0  # [s] for somebody who writes to a named pipe
POLL_S = 0.02  # [s]


@contextmanager
def open_text(path: Path) -> Iterator[io.BufferedReader[Any]]:
    """Open a file, a pipe or a device for reading bytes, unpacked where it begins as gzip does.

    A user may name a pipe, as in `<(zcat ...)`; one that nobody writes to is an error soon.

    Raises:
        ValueError: a pipe without a writer.
        OSError: missing, unreadable or a folder.
    """
    # Without O_NONBLOCK a FIFO would wait here, for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    is_pipe = stat.S_ISFIFO(os.fstat(descriptor).st_mode)
    if not is_pipe:
        os.set_blocking(descriptor, True)
    try:
        raw = _Pipe(descriptor, path) if is_pipe else io.FileIO(descriptor)
    except IsADirectoryError as error:
        os.close(descriptor)
        raise IsADirectoryError(21, "Is a directory, expected a text", str(path)) from error
    with io.BufferedReader(raw) as file:
        yield unpacked(file, path)


def numbered_lines(name: Path | str, file: HasLines) -> Iterator[tuple[int, bytes]]:
    """Each line with its number from 1.

    Raises:
        ValueError: a line longer than MAX_LINE_BYTES, damaged gzip, or no end of empty lines; the
            message has `name`.
    """
    for number, raw in lines(file, name):
        if len(raw) > MAX_LINE_BYTES:
            raise ValueError(
                f"{name}:{number}: more than {MAX_LINE_BYTES} bytes, expected a shorter line"
            )
        yield number, raw


class _Pipe(io.FileIO):
    """The reading end of a pipe that does not wait longer than WAIT_S for a writer to come."""

    def __init__(self, descriptor: int, path: Path) -> None:
        super().__init__(descriptor)
        self._path = path
        self._is_met = False

    def readinto(self, target: Any) -> int | None:
        """Read some bytes; none are the end."""
        until = time.monotonic() + WAIT_S
        while not self._is_met:
            size = super().readinto(target)  # None: there is a writer, but nothing to read yet
            self._is_met = size != 0
            if self._is_met:
                os.set_blocking(self.fileno(), True)
            elif time.monotonic() > until:
                raise ValueError(f"{self._path}: a pipe that nobody writes to, expected a text")
            if size:
                return size
            time.sleep(0 if self._is_met else POLL_S)
        return super().readinto(target)
