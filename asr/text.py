"""Text: transcripts as written to normalised ones, characters to ids, and text made visible."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from operator import index
from typing import Any, Literal

import regex

from asr.number import LANGUAGE, spell_numbers
from asr.replacement import check_replacements, replace_all

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
# Scripts whose letters join (Unicode names begin so): elsewhere a joiner carries nothing.
JOINING_SCRIPTS = frozenset({
    "ARABIC", "SYRIAC", "MANDAIC", "NKO", "MONGOLIAN", "DEVANAGARI", "BENGALI", "GURMUKHI",
    "GUJARATI", "ORIYA", "TAMIL", "TELUGU", "KANNADA", "MALAYALAM", "SINHALA", "TIBETAN", "MYANMAR",
    "KHMER", "BALINESE", "JAVANESE",
})  # fmt: skip
TATWEEL = "\u0640"  # makes an Arabic word longer on the page, and is no letter
DOT_ABOVE = "\u0307"
GERESH, GERSHAYIM = "\u05f3", "\u05f4"
MIDDLE_DOT = "\u00b7"
# Punctuation that belongs to a language's words; a geresh also ends them.
KEPT_BY_LANGUAGE = {"he": GERESH + GERSHAYIM, "ca": MIDDLE_DOT}
# Vowels, doubling and their like: fathatan to sukun, superscript alef, marks of the Quran.
ARABIC_MARKS = re.compile(
    "[\u064b-\u0652\u0670\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed]"
)
AUTO, WORD, CHARACTER = UNITS = ("auto", "word", "character")
Unit = Literal["word", "character"]
# Scripts that write words without spaces between them (Unicode Standard Annex 14, classes ID and
# SA), and the sound marks that two of them share.
_UNSPACED = (
    r"\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}ー\uff70"
)
UNSPACED = regex.compile(f"[{_UNSPACED}]")
# What stands by itself there: a letter with its marks (an extended grapheme cluster, Annex 29), and
# what a virama puts below it. Words of other scripts stay whole.
PIECES = regex.compile(rf"(?=[{_UNSPACED}])\X(?:\p{{M}}|(?<=[\u17d2\u1039])\X)*|[^ {_UNSPACED}]+")
BETWEEN_SPACES = regex.compile("[^ ]+")
CHARACTERS_PER_SPACE = 8  # at least, where spaces only part clauses
LANGUAGE_CODE = re.compile("(?:[a-z]{2,3})?")  # ISO 639, or none


class _Cleaning(dict[int, str | None]):
    """Table for str.translate that finds the replacement of a code point when it is first met."""

    def __init__(self) -> None:
        super().__init__({ord(typed): APOSTROPHE for typed in APOSTROPHES})
        self[ord(TATWEEL)] = None

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
_punctuation_to_space = lru_cache(maxsize=16)(_PunctuationToSpace)  # the tables of some rules


@dataclass(frozen=True)
class TextNormalizer:
    r"""Turns transcripts as people write them into the characters that a model learns.

    Typographic apostrophes become `'`, unseen characters (control and format characters, but
    zero-width joiners between letters that join) and the tatweel go, white space of any kind
    becomes one space between words. Symbols (`$`, `+`), digits and the marks that are read aloud
    (`%`, `&`, `@`, `#`) stay: they stand for words, and the alphabet shows them to whoever should
    spell them out. The rules are idempotent, but for what `replace` may make of its own.

    Attributes:
        unicode_form: "NFC", "NFD", "NFKC" or "NFKD" (Unicode Standard Annex 15).
        lowercase: Unicode's lower case, by the rules of `language`.
        remove_punctuation: characters of Unicode's categories P* become spaces.
        keep: punctuation that stays where it is inside a word, between two letters, marks or
            digits: with `'` don't stays and 'quoted' loses its quotes; add `-` for well-known.
        language: ISO 639 code. Turkish and Azerbaijani (tr, az) have an i with a dot and one
            without, in capitals too; Lithuanian (lt) keeps the dot below an accent (Unicode's
            SpecialCasing); Hebrew (he) keeps geresh and gershayim, also typed as quotes inside a
            word; Catalan (ca) keeps the middle dot. Others, and none, need no rules of their own.
        drop_in: pairs of characters; what stands between the two goes, and they with it: `[]()`
            for [noise] and (laughs), `**` for *cough*.
        remove_arabic_marks: vowels and the other marks above and below Arabic letters go.
        replace: pairs of a regular expression and what takes its place (`\1` is the first group),
            applied in order to the text with its capitals and punctuation. It should not match what
            it has made: texts go through the rules in preparing, and again in training.
        unit: what errors are counted in, "word" or "character", which is for languages that put no
            spaces between words; "auto" leaves it to `unit_of`.
        numbers: language of num2words in which numbers are spelt out, after `replace`; none leaves
            them in figures.

    Example:
        >>> TextNormalizer()("Don't  stop -- “please”!")
        "don't stop please"
    """

    unicode_form: str = "NFC"
    lowercase: bool = True
    remove_punctuation: bool = True
    keep: str = APOSTROPHE
    language: str = ""
    drop_in: str = ""
    remove_arabic_marks: bool = False
    replace: tuple[tuple[str, str], ...] = ()
    numbers: str = ""
    unit: str = "auto"

    def __post_init__(self) -> None:
        if self.unicode_form not in UNICODE_FORMS:
            raise ValueError(
                f"unicode_form is {self.unicode_form!r}, expected one of {', '.join(UNICODE_FORMS)}"
            )
        for name in ("lowercase", "remove_punctuation", "remove_arabic_marks"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected true or false")
        if not isinstance(self.keep, str) or any(character.isspace() for character in self.keep):
            raise ValueError(f"keep is {self.keep!r}, expected characters without white space")
        if not isinstance(self.language, str) or not LANGUAGE_CODE.fullmatch(self.language):
            raise ValueError(
                f"language is {self.language!r}, expected a code of ISO 639 such as tr, or none"
            )
        if not isinstance(self.drop_in, str) or len(self.drop_in) % 2 or _has_words(self.drop_in):
            raise ValueError(
                f"drop_in is {self.drop_in!r}, expected pairs of brackets or other marks"
            )
        if not isinstance(self.numbers, str) or not LANGUAGE.fullmatch(self.numbers):
            raise ValueError(
                f"numbers is {self.numbers!r}, expected a language of num2words such as en, or none"
            )
        if self.unit not in UNITS:
            raise ValueError(f"unit is {self.unit!r}, expected one of {', '.join(UNITS)}")
        check_replacements(self.replace)

    def __call__(self, text: str) -> str:
        """Normalise one transcript.

        Args:
            text: as written.

        Returns:
            Words with one space between them, possibly none at all.

        Raises:
            ValueError: a pattern of `replace` takes too long, or `numbers` has no num2words or no
                such language there.
        """
        text = self._compose(text.translate(_CLEANING))
        for first, last in zip(self.drop_in[::2], self.drop_in[1::2], strict=True):
            text = _without_tags(text, first, last)
        if self.replace:
            text = self._compose(replace_all(text, self.replace))
        if self.numbers:
            text = self._compose(spell_numbers(text, self.numbers))
        if self.remove_arabic_marks:
            text = ARABIC_MARKS.sub("", text)
        text = self._spelt(text)
        if any(joiner in text for joiner in JOINERS):
            text = _without_stray_joiners(text)
        if self.lowercase:
            text = self._compose(self._lower(text))
        if self.remove_punctuation:
            # A form with K may make punctuation, so this comes after it.
            kept = self._kept.translate(_CLEANING)
            text = _only_inside_words(text.translate(_punctuation_to_space(kept)), kept)
        return " ".join(text.split())

    def rules(self) -> tuple[str, ...]:
        """Say what is done to a text, in this order, to stand beside an error rate."""
        punctuation = "punctuation becomes spaces" + (
            f" (inside words stays {self._kept})" if self._kept else ""
        )
        language = f" of language {self.language}" if self.language else ""
        return (
            f"Unicode {self.unicode_form}",
            "typographic apostrophes become '",
            "control and format characters, tatweel and stray joiners removed",
            *([f"what stands in {self.drop_in} removed"] if self.drop_in else []),
            *(f"{pattern!r} becomes {replacement!r}" for pattern, replacement in self.replace),
            *([f"numbers spelt out in {self.numbers}"] if self.numbers else []),
            *(["Arabic marks removed"] if self.remove_arabic_marks else []),
            *([f"lower case{language}"] if self.lowercase else []),
            *([punctuation] if self.remove_punctuation else []),
            "single spaces between words",
            *(["the unit is the character, spaces left out"] if self.unit == CHARACTER else []),
        )

    def settings(self) -> dict[str, Any]:
        """Tell the rules as JSON has them, to know texts again that went through the same ones.

        What was added later stands there only where it says something, so that what was written
        before is known again. The unit changes no text.
        """
        told: dict[str, Any] = asdict(self)
        told |= {"replace": [list(pair) for pair in self.replace]}
        return {
            name: value
            for name, value in told.items()
            if name != "unit" and (value or name not in ("replace", "numbers"))
        }

    @property
    def _kept(self) -> str:
        """Punctuation that stays inside words."""
        return self.keep + KEPT_BY_LANGUAGE.get(self.language, "")

    def _compose(self, text: str) -> str:
        # A form may make an apostrophe (U+0149 under NFKC), hence the second cleaning.
        form = unicodedata.normalize(self.unicode_form, text)  # type: ignore[arg-type]
        return form.translate(_CLEANING)

    def _spelt(self, text: str) -> str:
        """One spelling of what a language's writers type in several ways."""
        if self.language == "he":
            text = re.sub('(?<=[\u05d0-\u05ea])["\u201c\u201d](?=[\u05d0-\u05ea])', GERSHAYIM, text)
            return re.sub("(?<=[\u05d0-\u05ea])'(?=[\u05d0-\u05ea])", GERESH, text)
        if self.language == "ca":
            text = text.replace("\u0140", "l" + MIDDLE_DOT).replace("\u013f", "L" + MIDDLE_DOT)
            return re.sub("(?<=[lL])[\u2022\u2027\u22c5\u30fb](?=[lL])", MIDDLE_DOT, text)
        return text

    def _lower(self, text: str) -> str:
        """Lower case by Unicode's SpecialCasing for the language."""
        if self.language in ("tr", "az"):
            text = text.replace(f"I{DOT_ABOVE}", "i").replace("\u0130", "i").replace("I", "\u0131")
        if self.language == "lt":
            # Before an accent above, the dot of i and j is written.
            text = unicodedata.normalize("NFD", text)
            text = re.sub("([IJ]\u0328?)(?=[\u0300\u0301\u0303])", rf"\1{DOT_ABOVE}", text)
            return text.lower()
        # Elsewhere \u0130 would become an i with a second dot.
        return text.lower().replace(f"i{DOT_ABOVE}", "i")


def _without_tags(text: str, first: str, last: str) -> str:
    """Put a space in the place of each pair of marks and what stands between; a lone one stays."""
    opened: list[int] = []
    parts: list[tuple[int, int]] = []  # from the opening mark to behind the closing one
    for place, character in enumerate(text):
        if character == last and opened:
            start = opened.pop()
            while parts and parts[-1][0] > start:  # a pair within this one
                parts.pop()
            parts.append((start, place + 1))
        elif character == first:
            opened.append(place)
    ends = [0, *(end for _, end in parts)]
    starts = [*(start for start, _ in parts), len(text)]
    return " ".join(text[end:start] for end, start in zip(ends, starts, strict=True))


def _has_words(marks: str) -> bool:
    return any(_in_word(mark) or mark.isspace() for mark in marks)


def _without_stray_joiners(text: str) -> str:
    """Take joiners away but for one between two letters or marks of a script that joins."""

    def joins(character: str) -> bool:
        script = unicodedata.name(character, "").partition(" ")[0]
        return _in_word(character) and script in JOINING_SCRIPTS

    def kept(found: re.Match[str]) -> str:
        start, end = found.span()
        is_inside = start > 0 and end < len(text) and joins(text[start - 1]) and joins(text[end])
        return found[0][0] if is_inside else ""

    return re.sub(f"[{JOINERS}]+", kept, text)


def _only_inside_words(text: str, kept: str) -> str:
    """Turn the kept characters into spaces where a neighbour is no letter, mark or digit."""
    if not any(character in text for character in kept):
        return text
    padded = f" {text} "
    return "".join(
        " "
        if here in kept and not (_in_word(before) and (_in_word(after) or here == GERESH))
        else here
        for before, here, after in zip(padded, padded[1:], padded[2:], strict=False)
    )


def _in_word(character: str) -> bool:
    return unicodedata.category(character)[0] in "LMN"


def unit_of(counts: Mapping[str, int]) -> Unit:
    """Find what the errors of some texts are counted in: "word" or "character".

    It is the character where most characters are of a script that puts no spaces between words, and
    there is fewer than one space to eight of them: with more, somebody has parted the words.

    Args:
        counts: how often each character occurs in the normalised texts.
    """
    spaces = counts.get(" ", 0)
    characters = sum(counts.values()) - spaces
    unspaced = sum(count for one, count in counts.items() if UNSPACED.match(one))
    is_unspaced = 2 * unspaced > characters and CHARACTERS_PER_SPACE * spaces < characters
    return "character" if is_unspaced else "word"


def settled(rules: TextNormalizer, texts: Iterable[str]) -> TextNormalizer:
    """Give rules whose unit is no longer "auto".

    Args:
        rules: as asked for.
        texts: that went through them; or an alphabet, where no more is known.
    """
    if rules.unit != AUTO:
        return rules
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    return replace(rules, unit=unit_of(counts))


def word_spans(text: str, unit: Unit) -> list[tuple[int, int]]:
    """Find the words of a normalised text: first place of each, and the place behind its last.

    Args:
        text: with single spaces, if any.
        unit: "word": what stands between spaces. "character": there, each letter with its marks of
            a script that puts no spaces between words, and what is between those.
    """
    pattern = PIECES if unit == CHARACTER else BETWEEN_SPACES
    return [found.span() for found in pattern.finditer(text)]


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
        self._characters = "".join(characters)
        self._ids: dict[str, int] = {}
        for i, character in enumerate(characters, BLANK_ID + 1):
            if character in self._ids:
                raise ValueError(
                    f"alphabet has {describe_character(character)} twice, expected once"
                )
            self._ids[character] = i

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
            position = next(i for i, character in enumerate(text) if character not in self._ids)
            excerpt = text if len(text) <= EXCERPT_LENGTH else text[: EXCERPT_LENGTH - 3] + "..."
            raise ValueError(
                f"character {describe_character(text[position])} at position {position} of "
                f"{excerpt!r} is not in the alphabet, expected one of {self._characters!r}"
            ) from None

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
        text = ""
        for i in map(index, ids):
            if not 0 <= i < self.vocab_size:
                raise ValueError(f"id {i} is out of range, expected 0 to {self.vocab_size - 1}")
            text += "" if i == BLANK_ID else self._characters[i - 1]
        return text

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
