"""Texts packed with gzip, xz or bzip2 by whomever: no bombs, and what is damaged is told."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Callable
from typing import Any

MAX_RATIO = 200  # bytes out of one packed byte; text has 3 to 20, and gzip allows 1,032
FREE_BYTES = 1 << 20  # that may come out of any packed file, however well it is packed
PACKED_BYTES = 1 << 13  # that are read at a time of a packed file
MAX_XZ_MEMORY = 1 << 27  # 128 MiB; xz -9 takes 65, and a header may ask for 4 GiB


def unpacked(file: io.BufferedReader[Any], name: object) -> io.BufferedReader[Any]:
    """Unpack an open buffered file where it begins as gzip, xz or bzip2 does.

    Args:
        file: at its beginning.
        name: of the file in messages.

    Returns:
        A reader that raises ValueError where more comes out than any text packs to: MAX_RATIO bytes
        a byte, beyond the first FREE_BYTES; and DamagedError where it is damaged.
    """
    head = file.peek(10)
    for form, magic in _MAGIC.items():
        if magic.match(head):
            return io.BufferedReader(_Unpacked(file, name, form), FREE_BYTES)
    return file


# How packed files begin; of bzip2 with the first block's mark, since a text may begin with BZh.
_MAGIC = {
    "gzip": re.compile(rb"\x1f\x8b"),
    "xz": re.compile(rb"\xfd7zXZ\x00"),
    "bzip2": re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)"),
}


class DamagedError(ValueError):
    """A packed file is damaged; its message names neither file nor line."""


class _Counted:
    """A file whose bytes are counted when they are read."""

    def __init__(self, file: io.BufferedReader[Any]) -> None:
        self._file = file
        self.num_bytes = 0

    def read(self, size: int = -1) -> bytes:
        """Read the next bytes."""
        content = self._file.read(size)
        self.num_bytes += len(content)
        return content


class _Streams:
    """The content of xz or bzip2 streams, one behind the other, as `xz a >> b` makes them.

    lzma.LZMAFile takes as much memory as a header asks for, and both it and bz2.BZ2File pass over
    what is no stream behind the first.
    """

    def __init__(self, file: _Counted, begin: Callable[[], Any]) -> None:
        self._file, self._begin = file, begin
        self._stream = begin()
        self._packed = b""  # read, and not given to the stream

    def read1(self, size: int) -> bytes:
        """Read some of the next bytes; none are the end."""
        while True:
            is_over = self._stream.eof
            if not self._packed and (is_over or self._stream.needs_input):
                self._packed = self._file.read(PACKED_BYTES)
                if not self._packed:
                    if is_over:
                        return b""
                    raise EOFError("cut short")
            if is_over:
                self._packed = self._packed.lstrip(b"\0")  # which xz may have between streams
                if self._packed:
                    self._stream = self._begin()
                continue
            content: bytes = self._stream.decompress(self._packed, size)
            self._packed = self._stream.unused_data if self._stream.eof else b""
            if content:
                return content


class _Unpacked(io.RawIOBase):
    """The content of a packed file, for as long as it is no bomb."""

    def __init__(self, file: io.BufferedReader[Any], name: object, form: str) -> None:
        self._name, self._form = name, form
        self._packed = _Counted(file)
        self._num_bytes = 0
        self._content: gzip.GzipFile | _Streams
        if form == "gzip":
            self._content = gzip.GzipFile(fileobj=self._packed)  # type: ignore[call-overload]
        elif form == "xz":
            self._content = _Streams(
                self._packed, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, MAX_XZ_MEMORY)
            )
        else:
            self._content = _Streams(self._packed, bz2.BZ2Decompressor)

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, target: Any) -> int:
        """Fill a buffer; how many bytes there were for it."""
        try:
            content = self._content.read1(len(target))
        except (gzip.BadGzipFile, zlib.error, EOFError, lzma.LZMAError) as error:
            raise DamagedError(f"damaged {self._form} ({error})") from error
        except OSError as error:
            if self._form != "bzip2" or error.errno is not None:  # of the file itself
                raise
            raise DamagedError(f"damaged {self._form} ({error})") from error
        self._num_bytes += len(content)
        if self._num_bytes > FREE_BYTES + MAX_RATIO * self._packed.num_bytes:
            raise ValueError(
                f"{self._name}: {self._form} of {self._packed.num_bytes} bytes that unpacks to "
                f"{self._num_bytes} and more, expected at most {MAX_RATIO} times its size"
            )
        target[: len(content)] = content
        return len(content)
