"""Files that are there whole or not at all, whenever the writer is killed."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

_LEFTOVER = re.compile(r"\.[0-9a-f]{16}\.part")


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[BinaryIO]:
    """Open a file whose bytes take the place of `path` when the block ends without an error.

    The bytes go to a new file in the same folder, which is renamed: a reader sees the old content
    or the new. After a kill that new file may be left; `remove_leftovers` knows its name.

    Args:
        path: the file to write; its folder must exist.
        durable: also outlast a loss of power (fsync of the file and of the folder).

    Raises:
        OSError: from writing; `path` is then as it was.
    """
    temporary = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        # Not tempfile's functions: they make files that only their owner may read.
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder outlast a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path) -> int:
    """Delete what killed writers left in a folder and below; only while nobody writes there.

    Returns:
        How many files were deleted.
    """
    leftovers = [path for path in folder.rglob(".*.part") if _LEFTOVER.fullmatch(path.name)]
    for path in leftovers:
        path.unlink()
    return len(leftovers)
