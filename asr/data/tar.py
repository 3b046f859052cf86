"""The members of a tar from anybody: met in order, their headers bounded, plain files alone."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Generator
from functools import partial
from typing import IO, Any, TypeVar

from asr.untrusted import HasBytes

BLOCK_BYTES = 1 << 20  # that are read at a time
# Of a member's headers: its name, and what PAX and GNU write before it. tarfile reads them whole,
# whatever size they announce, and in a time that grows with its square; and so the map of a file
# with holes, which lies where others have their content.
MAX_HEADER_BYTES = 1 << 13

T = TypeVar("T")


def tar_members(file: HasBytes) -> Generator[tuple[tarfile.TarInfo, IO[bytes] | None], None, None]:
    """Go once through the members of a tar that is not packed.

    Args:
        file: read from where it is.

    Yields:
        A member and, where it is a plain file, its content, which can be read until the next member
        is asked for: None for folders, and for links, devices and files with holes. Whoever asks
        for the next has looked at the member's size: so much is passed over.

    Raises:
        tarfile.TarError: damaged, or headers beyond MAX_HEADER_BYTES.
    """
    bounded: Any = _Bounded(file)  # all it needs is read
    # Not "r|*": what is packed once more could unpack to any size.
    begin = partial(
        tarfile.open, fileobj=bounded, mode="r|", bufsize=BLOCK_BYTES,
        encoding="utf-8", errors="strict",
    )  # fmt: skip
    tar: Any = _careful(begin)
    member: tarfile.TarInfo | None
    while (member := _careful(tar.next)) is not None:
        tar.members.clear()  # tarfile would keep them all
        if member.size < 0:
            raise tarfile.ReadError(f"{member.name!r} has {member.size} bytes")
        padded = -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
        bounded.limit = member.offset_data + padded + MAX_HEADER_BYTES
        is_plain = member.isreg() and not member.issparse()
        yield member, tar.extractfile(member) if is_plain else None


def _careful(step: Callable[[], T]) -> T:
    """What a step of tarfile gives; names that are no UTF-8 and sizes that are none are damage."""
    try:
        return step()
    except ValueError as error:
        raise tarfile.ReadError(str(error)) from error


class _Bounded:
    """A file of which no more is read than up to a limit.

    Attributes:
        limit: from the beginning [bytes].
    """

    def __init__(self, file: HasBytes) -> None:
        self._file = file
        self._taken = 0
        self.limit = MAX_HEADER_BYTES

    def read(self, size: int) -> bytes:
        """The next bytes, fewer before the limit.

        Raises:
            tarfile.TarError: there are none before it.
        """
        left = self.limit - self._taken
        if left <= 0:
            raise tarfile.ReadError(f"headers of more than {MAX_HEADER_BYTES} bytes")
        block = self._file.read(min(size, left))
        self._taken += len(block)
        return block
