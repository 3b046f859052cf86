"""Files that are there whole or not at all, whenever the writer is killed."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

_LEFTOVER = re.compile(r"\.[0-9a-f]{16}\.part")


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[BinaryIO]:
    """Open a file whose bytes take the place of `path` when the block ends without an error.

    The bytes go to a new file in the same folder, which is renamed: a reader sees the old content
    or the new. Never in TMPDIR, as a rename is atomic only within one file system. After a kill the
    new file may be left; `remove_leftovers` knows its name.

    Args:
        path: the file to write; its folder must exist.
        durable: also outlast a loss of power (fsync of the file and of the folder).

    Raises:
        OSError: no space, no permission; it names `path`, which is then as it was.
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
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename in (None, str(temporary)) and error.errno:
            reason = f"cannot be written: {error.strerror}"
            raise OSError(error.errno, reason, str(path)) from error
        raise
    if durable:
        sync_folder(path.parent)


def append_text(path: Path, text: str) -> None:
    """Add UTF-8 text at the end of a file; a kill or a full disk may leave a part of it.

    Raises:
        OSError: no space, no permission, a link or a FIFO in the place of the file; it names `path`
            and the bytes needed.
    """
    content = text.encode()
    # A link would lead the text into somebody else's file; a FIFO would wait for its reader.
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        with open(os.open(path, flags, 0o666), "ab") as file:
            file.write(content)
    except OSError as error:
        raise _named(error, path, len(content)) from error


def replace_bytes(path: Path, content: bytes | memoryview, *, durable: bool = True) -> None:
    """Write content that is known as a whole in place of a file.

    Args:
        path: the file to write; its folder must exist.
        content: all of it.
        durable: see `replacing`.

    Raises:
        OSError: no space, no permission; it names `path` and the bytes needed, and the file is as
            it was.
    """
    view = memoryview(content)
    try:
        with replacing(path, durable=durable) as file:
            if shutil.disk_usage(path.parent).free < view.nbytes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            file.write(view)
    except OSError as error:
        raise _named(error, path, view.nbytes) from error


def _named(error: OSError, path: Path, size: int) -> OSError:
    """Make the error of the file and the bytes that were to be written."""
    problem = os.strerror(error.errno) if error.errno else str(error)
    return OSError(error.errno, f"cannot be written, {size} bytes needed: {problem}", str(path))


def replace_text(path: Path, text: str) -> None:
    """Write UTF-8 text, as it is, in place of a file."""
    replace_bytes(path, text.encode())


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
    # Links to folders are not followed by rglob.
    found = [path for path in folder.rglob(".*.part") if _LEFTOVER.fullmatch(path.name)]
    leftovers = [path for path in found if path.is_symlink() or not path.is_dir()]
    for path in leftovers:
        path.unlink()
    return len(leftovers)
