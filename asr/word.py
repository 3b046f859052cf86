"""What has a place in time: a word of a transcript, a character of a CTC path."""

from __future__ import annotations

import reprlib
from dataclasses import dataclass

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

    Raises:
        ValueError: times or a confidence that no word has.
    """

    word: str
    start: float
    end: float
    confidence: float

    def __post_init__(self) -> None:
        for name, value, most in (
            ("start", self.start, MAX_SECONDS), ("end", self.end, MAX_SECONDS),
            ("confidence", self.confidence, 1),
        ):  # fmt: skip
            if not 0 <= value <= most:
                word = reprlib.repr(self.word)  # a file of somebody else's may hold a long one
                raise ValueError(f"word {word}: {name} is {value}, expected 0 to {most:g}")


@dataclass(frozen=True)
class Character:
    """A character of a text and where a CTC path writes it.

    Attributes:
        character: one; the space between two words is one too.
        start: of its first frame on the path [s].
        end: of its last frame on the path [s]. What follows up to the next character are blanks:
            the path does not say whether it is still spoken.
        log_prob: mean log-probability of its frames [nats].
    """

    character: str
    start: float
    end: float
    log_prob: float
