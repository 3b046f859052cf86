"""What has a place in time: a word of a transcript, a character of a CTC path."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

MAX_SECONDS = 1e9  # [s] what is later is no time but a slip


@dataclass(frozen=True)
class Word:
    """A word and when it is spoken.

    Attributes:
        word: its characters.
        start: of its first character on the CTC path [s].
        end: of its last character on the CTC path [s].
        confidence: that it is right, 0 to 1: the geometric mean of its characters' probabilities,
            or what a calibration makes of that.
        is_joined: no space stands before it: a language without spaces between words has a
            character here for a word.

    Raises:
        ValueError: times or a confidence that no word has.
    """

    word: str
    start: float
    end: float
    confidence: float
    is_joined: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        for name, value, most in (
            ("start", self.start, MAX_SECONDS), ("end", self.end, MAX_SECONDS),
            ("confidence", self.confidence, 1),
        ):  # fmt: skip
            if not 0 <= value <= most:
                word = reprlib.repr(self.word)  # a file of somebody else's may hold a long one
                raise ValueError(f"word {word}: {name} is {value}, expected 0 to {most:g}")

    def row(self) -> dict[str, Any]:
        """Tell it as JSON has it; that it is joined only where it is."""
        fields = asdict(self)
        return fields if self.is_joined else {k: v for k, v in fields.items() if k != "is_joined"}


def text_of(words: Iterable[Word]) -> str:
    """Write words as one text, with the spaces that are between them."""
    text = "".join(word.word if word.is_joined else f" {word.word}" for word in words)
    return text.removeprefix(" ")


@dataclass(frozen=True)
class Character:
    """A character of a text and where a CTC path writes it.

    Attributes:
        character: one, or a phone's name; the space between two words is one too.
        start: of its first frame on the path [s].
        end: of its last frame on the path [s]. What follows up to the next character are blanks:
            the path does not say whether it is still spoken.
        log_prob: mean log-probability of its frames [nats].
    """

    character: str
    start: float
    end: float
    log_prob: float
