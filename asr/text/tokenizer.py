"""Characters of normalised text to ids and back; id 0 is CTC's blank."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from operator import index

from asr.text.normalize import JOINERS

BLANK_ID = 0
EXCERPT_LENGTH = 60  # characters of a text that an error message shows


class CharTokenizer:
    """One id a character: the blank has 0, the first character of the alphabet has 1.

    The alphabet keeps the order it is given in, because a trained model's output layer depends on
    it; `from_texts` sorts, so that the same characters always give the same ids.

    Args:
        alphabet: the characters, as one string or one entry each.

    Raises:
        ValueError: for an empty alphabet, an entry that is not one character, a control or format
            character but the zero-width joiners, or a duplicate.

    Example:
        >>> CharTokenizer("abc").encode("cab")
        [3, 1, 2]
    """

    def __init__(self, alphabet: Sequence[str] | str) -> None:
        characters = list(alphabet)
        _check_alphabet(characters)
        self._characters = "".join(characters)
        self._ids = {character: i for i, character in enumerate(characters, BLANK_ID + 1)}

    @classmethod
    def from_texts(cls, texts: Iterable[str]) -> CharTokenizer:
        """The tokenizer of all characters that occur, sorted by code point.

        Args:
            texts: normalised transcripts.

        Raises:
            ValueError: where no text has a character.
        """
        characters: set[str] = set()
        for text in texts:
            characters.update(text)
        return cls(sorted(characters))

    @property
    def alphabet(self) -> str:
        """The characters in the order of their ids, without the blank."""
        return self._characters

    @property
    def blank_id(self) -> int:
        """The id that stands for no character."""
        return BLANK_ID

    @property
    def vocab_size(self) -> int:
        """How many ids there are, the blank included."""
        return len(self._characters) + 1

    def encode(self, text: str) -> list[int]:
        """Turn text into ids.

        Args:
            text: normalised transcript.

        Returns:
            One id in [1, vocab_size) a character.

        Raises:
            ValueError: for a character that the alphabet lacks.
        """
        try:
            return [self._ids[character] for character in text]
        except KeyError:
            raise ValueError(self._unknown(text)) from None

    def unknown_characters(self, text: str) -> str:
        """The characters of a text that the alphabet lacks, sorted; empty where it has all."""
        return "".join(sorted(set(text) - self._ids.keys()))

    def decode(self, ids: Iterable[int]) -> str:
        """Turn ids into text; blanks become nothing, repeats stay.

        Args:
            ids: integers in [0, vocab_size), NumPy's and PyTorch's as well.

        Raises:
            ValueError: for an id out of range.
        """
        return "".join(self._character(index(i)) for i in ids)

    def _character(self, i: int) -> str:
        if not 0 <= i < self.vocab_size:
            raise ValueError(f"id {i} is out of range, expected 0 to {self.vocab_size - 1}")
        return "" if i == BLANK_ID else self._characters[i - 1]

    def _unknown(self, text: str) -> str:
        position = next(i for i, character in enumerate(text) if character not in self._ids)
        shown = text if len(text) <= EXCERPT_LENGTH else text[: EXCERPT_LENGTH - 3] + "..."
        return (
            f"character {describe_character(text[position])} at position {position} of {shown!r} "
            f"is not in the alphabet, expected one of {self._characters!r}"
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CharTokenizer) and self.alphabet == other.alphabet

    def __hash__(self) -> int:
        return hash(self._characters)

    def __repr__(self) -> str:
        return f"CharTokenizer({self._characters!r})"


def describe_character(character: str) -> str:
    """A character as a message shows it: itself, its code point and its name."""
    name = unicodedata.name(character, "unnamed")
    return f"{character!r} (U+{ord(character):04X} {name})"


def _check_alphabet(characters: list[str]) -> None:
    if not characters:
        raise ValueError("the alphabet is empty, expected at least one character")
    for entry in characters:
        if not isinstance(entry, str) or len(entry) != 1:
            raise ValueError(f"alphabet entry {entry!r} is not one character")
        category = unicodedata.category(entry)
        if category == "Cs":
            raise ValueError(f"alphabet entry {entry!r} is half a surrogate pair, no character")
        # No normalised text has them, and on a terminal they would act.
        if category in ("Cc", "Zl", "Zp") or (category == "Cf" and entry not in JOINERS):
            raise ValueError(
                f"alphabet entry {describe_character(entry)} is a control or format character, "
                "expected characters that are seen, spaces and joiners"
            )
    seen: set[str] = set()
    for entry in characters:
        if entry in seen:
            raise ValueError(f"alphabet has {describe_character(entry)} twice, expected once")
        seen.add(entry)
