"""One writer at a time in a folder: a lock file that ends with the process that holds it."""

from __future__ import annotations

import errno
import fcntl
import io
import os
import socket
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

# A process that was killed lets go when the kernel has put it away, which may take a moment.
PATIENCE_S = 2.0
MAX_HOLDER_BYTES = 200
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


@contextmanager
def locked(
    path: Path,
    busy: str,
    waiting: Callable[[str], object] | None = None,
    unlockable: Callable[[str], object] | None = None,
) -> Iterator[None]:
    """Hold a lock file; the operating system lets go of it when the process ends in any way.

    It holds between machines too where their file system has locks, as NFS does.

    Args:
        path: the file, made where it is missing; it stays, and names the process that held it.
        busy: what another process does that holds it, for the message.
        waiting: is told when another process holds the lock, which is then waited for.
        unlockable: is told when the file system has no locks; nothing is held then. None raises.

    Raises:
        ValueError: where another process holds it and `waiting` is None, or where it is no file.
        OSError: where the file cannot be made, or has no locks and `unlockable` is None.
    """
    with _open(path) as file:
        try:
            _acquire(file.fileno())
        except BlockingIOError as error:
            file.seek(0)
            other = (file.read(MAX_HOLDER_BYTES) or b"").decode("ascii", "replace").strip()
            if waiting is None:
                who = f" ({other})" if other.isprintable() and other else ""
                raise ValueError(f"{path}: another process{who} {busy}") from error
            waiting(f"{path}: waiting for another process")
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in _NO_LOCKS or unlockable is None:
                raise OSError(error.errno, os.strerror(error.errno or 0), str(path)) from error
            unlockable(f"{path}: this file system has no locks: see that nobody else writes here")
        holder = f"{os.getpid()} on {socket.gethostname()}\n".encode("ascii", "replace")
        try:
            os.ftruncate(file.fileno(), 0)
            os.pwrite(file.fileno(), holder, 0)
        except OSError as error:
            problem = os.strerror(error.errno or 0)
            reason = f"cannot be written, {len(holder)} bytes needed: {problem}"
            raise OSError(error.errno, reason, str(path)) from error
        yield


def _open(path: Path) -> io.FileIO:
    """Open the file to read and write; never what a link leads to, which would be emptied."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise ValueError(f"{path}: a link, expected a lock file") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ValueError(f"{path}: not a regular file, expected a lock file")
    # Without a buffer, whose rest would be written, and fail, once more at the end.
    return open(descriptor, "r+b", buffering=0)


def _acquire(descriptor: int) -> None:
    """Take the lock, or raise BlockingIOError when another process keeps it."""
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
