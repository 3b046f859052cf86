"""Grey pictures as PNG files."""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray


def gray_png(levels: NDArray[np.uint8]) -> bytes:
    """An 8-bit grey picture.

    (Portable Network Graphics, W3C recommendation, third edition; color type 0.)

    Args:
        levels: `(height, width)` uint8, the top row first.

    Returns:
        A PNG file.
    """
    height, width = levels.shape
    # Each value as its difference from the left neighbour (filter 1): smooth pictures get smaller.
    rows = np.diff(levels, axis=1, prepend=np.uint8(0))
    filtered = np.concatenate([np.ones((height, 1), np.uint8), rows], axis=1)
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            _chunk(b"IHDR", header),
            _chunk(b"IDAT", zlib.compress(filtered.tobytes(), 9)),
            _chunk(b"IEND", b""),
        )
    )


def _chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)
