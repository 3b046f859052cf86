"""Text files line by line, plain or gzip, with nothing believed of what is inside."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

MAX_LINE_BYTES = 1 << 20  # 1 MiB: some 200,000 words
_GZIP = b"\x1f\x8b"


@contextmanager
def open_text(path: Path) -> Iterator[BinaryIO]:
    """Open a file, a pipe or a device for reading bytes, unpacked where it begins as gzip does.

    Raises:
        OSError: missing, unreadable or a folder.
    """
    with path.open("rb") as file:
        yield unpacked(file)


def unpacked(file: BinaryIO) -> BinaryIO:
    """The bytes of an open buffered file, unpacked where it begins as gzip does."""
    if cast(io.BufferedReader, file).peek(2)[:2] != _GZIP:
        return file
    return cast(BinaryIO, gzip.GzipFile(fileobj=file))


def numbered_lines(name: Path | str, file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Each line with its number from 1.

    Raises:
        ValueError: a line longer than MAX_LINE_BYTES, or damaged gzip; the message has `name`.
    """
    number = 0
    try:
        while raw := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(raw) > MAX_LINE_BYTES:
                raise ValueError(
                    f"{name}:{number}: more than {MAX_LINE_BYTES} bytes, expected a shorter line"
                )
            yield number, raw
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise ValueError(f"{name}:{number + 1}: damaged gzip ({error})") from error
