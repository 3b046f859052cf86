"""Raw transcripts to normalised ones, by rules that hold in any language."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import lru_cache

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
        """What is done to a text, in words and in this order, to stand beside an error rate."""
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
