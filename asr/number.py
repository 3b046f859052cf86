"""Numbers in figures, spelt out in a language by num2words."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from decimal import Decimal
from functools import cache
from typing import Any

LANGUAGE = re.compile("(?:[a-z]{2,3}(?:_[A-Z]{2})?)?")  # as num2words names them, or none
INSTALL = "pip install 'lstm-asr[text]'"
MOST_DIGITS = 15  # of a number; longer ones, and LONG ones without marks, go digit by digit
LONG = 7  # digits of a telephone number, an account, a code
YEARS = range(1100, 2100)  # four figures without a mark
# Elsewhere a year is read as any number; num2words gives it an era or a suffix in some languages.
YEARS_BY_HUNDREDS = {"en", "de", "nl", "da", "no"}
# 3.5 there, 3,5 elsewhere; the other mark is that of thousands.
DECIMAL_POINT = {"en", "ja", "ko", "th", "he", "am", "bn", "kn", "te", "tet", "cy"}
ALWAYS_THOUSANDS = "'\u2019\u00a0\u202f"  # 1'000 and 1 000
ORDINALS = {  # what stands behind the figures of an ordinal
    "en": "st|nd|rd|th",
    "fr": "ers?|[èe]?res?|nde?s?|i?[èe]mes?|es?",
    "es": r"\.?[ºª]",
    "pt": r"\.?[ºª]",
    "it": "[ºª]",
    "ca": "[rntè]",
    "nl": "ste|de|e",
    "sv": ":[ae]",
}
# What num2words 0.5.14 gets wrong: decimals that it cuts or doubles, negative numbers it refuses.
DECIMAL_WORD = {"it": "virgola", "tr": "virgül", "ar": "فاصلة", "fa": "ممیز", "vi": "phẩy"}
MINUS_WORD = {"pl": "minus", "cs": "mínus", "vi": "âm"}
SIGNS = "%\u2030\u066a\uff05&@#"  # read aloud, as are symbols ($, +, °)
UNSPACED = {"ja", "th"}  # words that stand beside each other as they are


def spell_numbers(text: str, language: str) -> str:
    """Spell out the numbers of a text.

    A number is read as one, with the language's marks (1,000 and 3.5 in English; 1.000 and 3,5 in
    German); a hyphen or minus before it counts where nothing stands before that. Digit by digit go
    numbers with a leading zero, with seven figures or more and no mark, and beyond fifteen. Four
    figures from 1100 to 2099 are a year. An ordinal is told by its ending (1st, 2e, 3º).

    Args:
        text: before punctuation is taken away.
        language: of num2words: en, de, pt_BR.

    Raises:
        ValueError: num2words is not installed, or has no such language.
    """
    if not any(map(str.isdigit, text)):
        return text
    speller = _speller(language)
    return speller.pattern.sub(speller, text)


class _Speller:
    """Spells what its pattern finds.

    Args:
        language: of num2words.
    """

    def __init__(self, language: str) -> None:
        try:
            from num2words import CONVERTER_CLASSES, num2words
        except ImportError as error:
            raise ValueError(
                f"numbers is {language} and num2words is not installed, expected it: {INSTALL}"
            ) from error
        if language not in CONVERTER_CLASSES:
            known = ", ".join(sorted(CONVERTER_CLASSES))
            raise ValueError(f"numbers is {language!r}, expected a language of num2words: {known}")
        self.language, self.base = language, language.partition("_")[0]
        self._num2words: Callable[..., Any] = num2words
        self._gap = "" if self.base in UNSPACED else " "
        self._decimal, other = ".," if self.base in DECIMAL_POINT else ",."
        thousands = re.escape(other + ALWAYS_THOUSANDS)
        marks = re.escape(".,") + ALWAYS_THOUSANDS
        self._shape = re.compile(
            rf"(?:\d{{1,3}}(?P<mark>[{thousands}])\d{{3}}(?:(?P=mark)\d{{3}})*|(?P<plain>\d+))"
            rf"(?:{re.escape(self._decimal)}(?P<fraction>\d+))?"
        )
        ordinal = ORDINALS.get(self.base, "(?!)")
        self.pattern = re.compile(
            rf"(?P<minus>(?<!\S)[-\u2212])?(?P<figures>\d+(?:[{marks}]\d+)*)"
            rf"(?P<ordinal>(?:{ordinal})(?!\w))?",
            re.IGNORECASE,
        )

    def __call__(self, found: re.Match[str]) -> str:
        """Spell a match of the pattern, with a gap to letters that touch it."""
        shape = self._shape.fullmatch(found["figures"])
        if shape is None:  # 10:30, 1.2.3: several numbers
            parts = [self._whole(part) for part in re.findall(r"\d+", found["figures"])]
        elif shape["fraction"]:
            parts = [self._fraction(shape)]
        else:
            parts = [self._whole(found["figures"], is_ordinal=bool(found["ordinal"]))]
        if found["minus"]:
            parts.insert(0, self._minus())
        spelt = self._gap.join(parts).replace(",", "")
        start, end = found.span()
        before, after = found.string[max(start - 1, 0) : start], found.string[end : end + 1]
        return (
            (self._gap if _is_spoken(before) else "")
            + spelt
            + (self._gap if _is_spoken(after) else "")
        )

    def _whole(self, figures: str, is_ordinal: bool = False) -> str:
        digits = "".join(filter(str.isdecimal, figures))
        has_mark = len(digits) < len(figures)
        is_code = len(digits) > 1 and int(digits[0]) == 0
        if is_code or len(digits) > MOST_DIGITS or (len(digits) >= LONG and not has_mark):
            return self._gap.join(self._say(int(digit)) for digit in digits)
        number = int(digits)
        if is_ordinal:
            return self._say(number, to="ordinal")
        is_year = len(digits) == 4 and not has_mark and number in YEARS
        if is_year and self.base in YEARS_BY_HUNDREDS:
            return self._say(number, to="year")
        return self._say(number)

    def _fraction(self, shape: re.Match[str]) -> str:
        whole, fraction = shape[0].rsplit(self._decimal, 1)
        spoken = self._gap.join(self._say(int(digit)) for digit in fraction)
        if self.base in DECIMAL_WORD:
            return f"{self._whole(whole)} {DECIMAL_WORD[self.base]} {spoken}"
        digits = "".join(filter(str.isdecimal, whole))
        if len(digits) + len(fraction) > MOST_DIGITS:
            return f"{self._whole(whole)}{self._gap}{spoken}"
        return self._say(Decimal(f"{int(digits)}.{fraction}"))

    def _minus(self) -> str:
        if self.base in MINUS_WORD:
            return MINUS_WORD[self.base]
        return self._say(-5).removesuffix(self._say(5)).strip()

    def _say(self, number: int | Decimal, **to: str) -> str:
        return str(self._num2words(number, lang=self.language, **to))


def _is_spoken(character: str) -> bool:
    """Whether it is a letter, or a sign that is read aloud: 20 %, $ 5."""
    return bool(character) and (character in SIGNS or unicodedata.category(character)[0] in "LMNS")


@cache
def _speller(language: str) -> _Speller:
    return _Speller(language)
