"""What commands print: nothing that a file's name or text could make a terminal do."""

from __future__ import annotations

import sys

from asr.text import printable

KEPT = "\n\t"  # between the lines and columns of what we print ourselves


def say(text: str) -> None:
    """Print lines of a result to standard output."""
    sys.stdout.write(f"{printable(text, KEPT)}\n")
    sys.stdout.flush()


def tell(text: str) -> None:
    """Print a line about a result to standard error."""
    print(f"asr: {printable(text)}", file=sys.stderr)
