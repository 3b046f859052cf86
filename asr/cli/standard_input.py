"""Standard input as one of the files that a user names, by the name `-`."""

from __future__ import annotations

import io
import sys
from typing import cast

from asr.untrusted import read_stream

STDIN = "-"
MAX_STDIN_BYTES = 1 << 30  # 1 GiB of a recording: 9 hours of 16-bit samples at 16 kHz


def standard_input(expected: str) -> io.BufferedReader:
    """Standard input, for reading bytes.

    Args:
        expected: what should come from there, for the message.

    Raises:
        ValueError: it is closed.
    """
    # Python has no sys.stdin where the process was started without one.
    if sys.stdin is None:
        raise ValueError(f"standard input is closed, expected {expected}")
    return cast(io.BufferedReader, sys.stdin.buffer)


def read_standard_input(expected: str, max_bytes: int) -> bytes:
    """All of standard input.

    Args:
        expected: what should come from there, for the message.
        max_bytes: no more than that is read.

    Raises:
        ValueError: it is closed, a terminal, or has more.
    """
    file = standard_input(expected)
    if file.isatty():
        raise ValueError(f"standard input is a terminal, expected {expected}")
    return read_stream(file, "standard input", expected, max_bytes)
