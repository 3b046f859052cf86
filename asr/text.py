"""Text: transcripts as written to normalised ones, characters to ids, and text made visible."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import index

BLANK_ID = 0  # CTC's blank
EXCERPT_LENGTH = 60  # characters of a text that an error message shows
UNICODE_FORMS = ("NFC", "NFD", "NFKC", "NFKD")
APOSTROPHE = "'"
# Typed for an apostrophe: right and left single quotation mark, reversed 9, modifier letter,
# full width, grave and acute accent, and the Greek accents that NFC turns into those two.
APOSTROPHES = "\u2019\u2018\u201b\u02bc\uff07\u0060\u00b4\u1fef\u1ffd"
# Punctuation by Unicode's categories, but read aloud as a word: it has to be seen in the alphabet.
SPOKEN = "%&@#\u2030\u00a7\u066a\uff05\uff06\uff20\uff03"
# The joiners decide how Persian and Indic words are written; other format characters are unseen.
JOINERS = "\u200c\u200d"


class _Cleaning(dict[int, str | None]):
    """Table for str.translate that finds the replacement of a code point when it is first met."""

    def __init__(self) -> None:
        super().__init__({ord(typed): APOSTROPHE for typed in APOSTROPHES})

    def __missing__(self, code: int) -> str | None:
        character = chr(code)
        unseen = unicodedata.category(character) in ("Cc", "Cf") and character not in JOINERS
        self[code] = None if unseen and not character.isspace() else character
        return self[code]


class _PunctuationToSpace(dict[int, str]):
    """Table for str.translate; a space, so that words on both sides stay two words."""

    def __init__(self, kept: str) -> None:
        super().__init__({ord(character): character for character in kept + SPOKEN})

    def __missing__(self, code: int) -> str:
        character = chr(code)
        self[code] = " " if unicodedata.category(character).startswith("P") else character
        return self[code]


_CLEANING = _Cleaning()


@lru_cache(maxsize=16)
def _punctuation_to_space(kept: str) -> _PunctuationToSpace:
    return _PunctuationToSpace(kept)


@dataclass(frozen=True)
class TextNormalizer:
    """Turns transcripts as people write them into the characters that a model learns.

    Typographic apostrophes become `'`, unseen characters (control and format characters but the
    zero-width joiners) go, white space of any kind becomes one space between words. Symbols
    (`$`, `+`), digits and the marks that are read aloud (`%`, `&`, `@`, `#`) stay: they stand for
    words, and the alphabet shows them to whoever should spell them out. The rules are idempotent.

    Attributes:
        unicode_form: "NFC", "NFD", "NFKC" or "NFKD" (Unicode Standard Annex 15).
        lowercase: Unicode's lower case, without the rules of one language (Turkish I becomes i).
        remove_punctuation: characters of Unicode's categories P* become spaces.
        keep: punctuation that stays where it is inside a word, between two letters, marks or
            digits: with `'` don't stays and 'quoted' loses its quotes; add `-` for well-known.

    Example:
        >>> TextNormalizer()("Don\u2019t  stop \u2013 “please”!")
        "don't stop please"
    """

    unicode_form: str = "NFC"
    lowercase: bool = True
    remove_punctuation: bool = True
    keep: str = APOSTROPHE

    def __post_init__(self) -> None:
        if self.unicode_form not in UNICODE_FORMS:
            raise ValueError(
                f"unicode_form is {self.unicode_form!r}, expected one of {', '.join(UNICODE_FORMS)}"
            )
        for name in ("lowercase", "remove_punctuation"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected true or false")
        if not isinstance(self.keep, str) or any(character.isspace() for character in self.keep):
            raise ValueError(f"keep is {self.keep!r}, expected characters without white space")

    def __call__(self, text: str) -> str:
        """Normalise one transcript.

        Args:
            text: as written.

        Returns:
            Words with one space between them, possibly none at all.
        """
        text = self._compose(text.translate(_CLEANING))
        if self.lowercase:
            text = self._compose(text.lower())
        if self.remove_punctuation:
            # A form with K may make punctuation, so this comes after it.
            kept = self.keep.translate(_CLEANING)
            text = _only_inside_words(text.translate(_punctuation_to_space(kept)), kept)
        return " ".join(text.split())

    def rules(self) -> tuple[str, ...]:
        """Say what is done to a text, in this order, to stand beside an error rate."""
        punctuation = "punctuation becomes spaces" + (
            f" (inside words stays {self.keep})" if self.keep else ""
        )
        return (
            f"Unicode {self.unicode_form}",
            "typographic apostrophes become '",
            "control and format characters removed",
            *(["lower case"] if self.lowercase else []),
            *([punctuation] if self.remove_punctuation else []),
            "single spaces between words",
        )

    def _compose(self, text: str) -> str:
        # A form may make an apostrophe (U+0149 under NFKC), hence the second cleaning.
        form = unicodedata.normalize(self.unicode_form, text)  # type: ignore[arg-type]
        return form.translate(_CLEANING)


def _only_inside_words(text: str, kept: str) -> str:
    """Turn the kept characters into spaces where a neighbour is no letter, mark or digit."""
    if not any(character in text for character in kept):
        return text
    padded = f" {text} "
    return "".join(
        " " if here in kept and not (_in_word(before) and _in_word(after)) else here
        for before, here, after in zip(padded, padded[1:], padded[2:], strict=False)
    )


def _in_word(character: str) -> bool:
    return unicodedata.category(character)[0] in "LMN"


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
        """Make the tokenizer of all characters that occur, sorted by code point.

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
        """Find the characters of a text that the alphabet lacks, sorted; none where it has all."""
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
    """Describe a character as a message shows it: itself, its code point and its name."""
    name = unicodedata.name(character, "unnamed")
    return f"{character!r} (U+{ord(character):04X} {name})"


def _check_alphabet(characters: list[str]) -> None:
    if not characters:
        raise ValueError("the alphabet is empty, expected at least one character")
    for entry in characters:
        if not isinstance(entry, str) or len(entry) != 1:
            raise ValueError(f"alphabet entry {entry!r} is not one character, expected one")
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


def printable(text: str, keep: str = "") -> str:
    r"""Show a text with escapes (`\x1b`) in the place of characters that are not printable.

    Args:
        text: of anybody: a file's name, a transcript, a value of a file.
        keep: control characters that are ours and stay: tabs between columns, say.
    """
    return "".join(
        c if c.isprintable() or c in JOINERS or c in keep else c.encode("unicode_escape").decode()
        for c in text
    )


def printable_json(value: object) -> str:
    """Write a value as JSON on one line, its letters as they are and what would act as escapes.

    Raises:
        ValueError: NaN or infinities.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return "".join(c if c.isprintable() or c in JOINERS else json.dumps(c).strip('"') for c in text)
