"""What files with word times are made of."""

from __future__ import annotations

from typing import Protocol


class TimedWord(Protocol):
    """A word, as transcribed or aligned."""

    @property
    def word(self) -> str:
        """Its characters."""

    @property
    def start(self) -> float:
        """[s]."""

    @property
    def end(self) -> float:
        """[s]."""

    @property
    def confidence(self) -> float:
        """0 to 1."""
