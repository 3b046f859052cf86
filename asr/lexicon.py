"""How words are said: a lexicon of pronunciations, each a row of phones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from asr.text import CharTokenizer
from asr.untrusted import open_regular, shown, whole_lines

SPACE = " "  # between words, and a phone like any other to the model
MAX_WORDS = 1 << 20
MAX_PHONES = 1 << 10
MAX_PHONE_LENGTH = 32  # characters of its name
# Characters that stand for phones of longer names: those of the Latin alphabet, then of Chinese,
# which are all letters, can all be seen, and are enough.
FIRST_NUMBER = 0xF0000  # of private characters, which stand for phones while a file is read
LETTERS = tuple(map(chr, (*range(ord("a"), ord("z") + 1), *range(0x4E00, 0x4E00 + MAX_PHONES))))


@dataclass(frozen=True)
class Lexicon:
    """Words, how each is said, and the phones that they are made of.

    Inside, a phone is one character, so that a pronunciation is a text of an alphabet. A phone
    whose name is one character stands for itself; others are given a letter that is free.

    Attributes:
        phones: the name of each phone by the character that stands for it.
        pronunciations: of each word at least one, in characters; the first is what training takes.
    """

    phones: Mapping[str, str]
    pronunciations: Mapping[str, tuple[str, ...]]

    @cached_property
    def alphabet(self) -> str:
        """The characters of a model that writes these phones: the space, and one a phone."""
        return SPACE + "".join(sorted(self.phones))

    def missing(self, text: str) -> list[str]:
        """List the words of a text that the lexicon has not, each once."""
        return [word for word in dict.fromkeys(text.split()) if word not in self.pronunciations]

    def spell(self, text: str) -> str:
        """Write a text as it is said: the first pronunciation of each word, spaces between.

        Raises:
            ValueError: a word that the lexicon has not.
        """
        if missing := self.missing(text):
            raise ValueError(describe_missing(missing))
        return SPACE.join(self.pronunciations[word][0] for word in text.split())

    def under(self, rules: Callable[[str], str]) -> Lexicon:
        """Give the lexicon whose words are written as text rules write them; others are left out.

        Args:
            rules: what a transcript goes through; of a word they make one, several or none.
        """
        pronunciations: dict[str, tuple[str, ...]] = {}
        for word, own in self.pronunciations.items():
            written = rules(word)
            if written and SPACE not in written:
                known = pronunciations.get(written, ())
                pronunciations[written] = (*known, *(each for each in own if each not in known))
        return Lexicon(self.phones, pronunciations)

    def names(self, characters: str) -> str:
        """Write characters by the names of their phones, `HH AH L OW`; words parted by ` | `."""
        words = (" ".join(self.phones.get(each, each) for each in word)
                 for word in characters.split(SPACE))  # fmt: skip
        return " | ".join(words)

    def lines(self) -> Iterator[str]:
        """Write the lexicon as a file has it, without ends of lines."""
        for word, pronunciations in self.pronunciations.items():
            for pronunciation in pronunciations:
                yield f"{word}\t{self.names(pronunciation)}"


def describe_missing(words: Sequence[str]) -> str:
    """Name words that a lexicon has not: the first, and how many more."""
    more = f" and {len(words) - 1} more" if len(words) > 1 else ""
    return f"word {shown(words[0])}{more} not in the lexicon"


def read_lexicon(path: Path | str, phones: Mapping[str, str] | None = None) -> Lexicon:
    """Read a lexicon: a word a line, a tab or a space, its phones with spaces between.

    A word with several pronunciations has several lines, the usual one first.

    Args:
        path: a regular file.
        phones: of a model, as `Lexicon.phones`; None takes those of the file.

    Raises:
        ValueError: `file:line: what is wrong`; a word without phones, a phone that the model has
            not, more words or phones than there may be, or none.
        OSError: missing or unreadable.
    """
    path = Path(path)
    with open_regular(path, "a lexicon") as file:
        return parse_lexicon(whole_lines(file, path), path, phones)


def read_words_of_model(
    path: Path | str, phones: Mapping[str, str], rules: Callable[[str], str]
) -> Lexicon:
    """Read a lexicon in the phones of a model, its words as the model's text rules write them.

    Raises:
        ValueError: as `read_lexicon`, or no words that the rules leave.
        OSError: missing or unreadable.
    """
    lexicon = read_lexicon(path, phones).under(rules)
    if not lexicon.pronunciations:
        raise ValueError(f"{path}: no words that the model's text rules leave, expected some")
    return lexicon


def parse_lexicon(
    lines: Iterable[tuple[int, bytes]], where: object, phones: Mapping[str, str] | None = None
) -> Lexicon:
    """Read the numbered lines of a lexicon, as `read_lexicon` does."""
    said: dict[str, dict[str, None]] = {}
    # Phones of the file's own stand by their number until all of them are known.
    characters = {} if phones is None else {name: each for each, name in phones.items()}
    for number, line in lines:
        try:
            word, *own = line.decode().split()
        except ValueError as error:
            if not line.strip():
                continue
            raise ValueError(f"{where}:{number}: not UTF-8, expected a word and its phones") from (
                error
            )
        try:
            pronunciation = "".join([characters[name] for name in own])
        except KeyError:
            for name in own:
                if name not in characters:
                    _check_phone(name, phones, f"{where}:{number}")
                    characters[name] = chr(FIRST_NUMBER + len(characters))
            pronunciation = "".join([characters[name] for name in own])
        if not own:
            raise ValueError(f"{where}:{number}: {shown(word)} has no phones, expected some")
        said.setdefault(word, {})[pronunciation] = None
        if len(said) > MAX_WORDS or len(characters) > MAX_PHONES:
            raise ValueError(
                f"{where}:{number}: more than {MAX_WORDS:,} words or {MAX_PHONES:,} phones, "
                "expected a lexicon"
            )
    if not said:
        raise ValueError(f"{where}: no words, expected a word and its phones a line")
    if phones is not None:
        return Lexicon(dict(phones), {word: tuple(each) for word, each in said.items()})
    phones = characters_of(characters)
    letters = {name: letter for letter, name in phones.items()}
    table = {ord(number): letters[name] for name, number in characters.items()}
    return Lexicon(
        phones,
        {word: tuple(each.translate(table) for each in own) for word, own in said.items()},
    )


def _check_phone(name: str, known: Mapping[str, str] | None, place: str) -> None:
    if known is not None:
        raise ValueError(
            f"{place}: phone {shown(name)}, expected one of the model's, "
            f"{' '.join(sorted(known.values()))}"
        )
    if len(name) > MAX_PHONE_LENGTH:
        raise ValueError(f"{place}: phone {shown(name)}, expected a short name")


def read_words(path: Path, tokenizer: CharTokenizer) -> list[str]:
    """Read a list of words, one a line, for a model of characters.

    Args:
        path: a regular file.
        tokenizer: of the model, which can write them.

    Raises:
        ValueError: `file:line: what is wrong`; or no words.
        OSError: missing or unreadable.
    """
    words: dict[str, None] = {}
    with open_regular(path, "a lexicon") as file:
        for number, line in whole_lines(file, path):
            try:
                word = line.decode().strip()
                if len(word.split()) > 1:
                    raise ValueError(f"{shown(word)}, expected one word a line")
                tokenizer.encode(word)
            except ValueError as error:
                raise ValueError(f"{path}:{number}: {error}") from error
            if word:
                words[word] = None
    if not words:
        raise ValueError(f"{path}: no words, expected one a line")
    return list(words)


def characters_of(names: Iterable[str]) -> dict[str, str]:
    """Give each phone a character of its own, by which its name is found; always the same one.

    Args:
        names: at most MAX_PHONES.
    """
    names = sorted(set(names))
    phones = {name: name for name in names if len(name) == 1}
    free = [letter for letter in LETTERS if letter not in phones]
    for name in names:
        if len(name) == 1:
            continue
        wanted = name[0].lower()
        letter = wanted if wanted in free else free[0]
        free.remove(letter)
        phones[letter] = name
    return phones
