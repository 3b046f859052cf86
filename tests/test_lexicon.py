"""Lexicons: read, refused in a line, texts as they are said, phones as characters."""

from __future__ import annotations

from pathlib import Path

import pytest

from asr.lexicon import characters_of, parse_lexicon, read_lexicon, read_words
from asr.text import CharTokenizer, TextNormalizer

ENGLISH = "the\tDH AH\nthe\tDH IY\ntwo T UW\nto\tT UW\n\nto\tT AH\nTo\tT UW\nit's\tIH T S\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "lexicon.txt"
    path.write_text(ENGLISH)
    return path


def test_a_text_as_it_is_said(path: Path) -> None:
    lexicon = read_lexicon(path)
    said = lexicon.spell("to the two")
    assert lexicon.names(said) == "T UW | DH AH | T UW"
    assert len(said.split()) == 3
    assert set(said) <= set(lexicon.alphabet)
    assert len(lexicon.alphabet) == 1 + 7  # a space, and a character for each phone
    assert [len(lexicon.pronunciations[word]) for word in ("the", "to", "two")] == [2, 2, 1]


def test_words_that_are_missing_are_named(path: Path) -> None:
    lexicon = read_lexicon(path)
    assert lexicon.missing("the cat the cat sat") == ["cat", "sat"]
    with pytest.raises(ValueError, match="word 'cat' and 1 more not in the lexicon"):
        lexicon.spell("the cat sat")


def test_what_is_written_is_read_back(path: Path, tmp_path: Path) -> None:
    lexicon = read_lexicon(path)
    again = tmp_path / "again.txt"
    again.write_text("\n".join(lexicon.lines()))
    assert read_lexicon(again) == lexicon
    assert "to\tT UW" in again.read_text().splitlines()


def test_words_are_written_by_the_rules_of_the_texts(path: Path) -> None:
    lexicon = read_lexicon(path).under(TextNormalizer(keep=""))
    assert "To" not in lexicon.pronunciations
    assert "it's" not in lexicon.pronunciations  # two words, where the apostrophe is none
    assert [lexicon.names(each) for each in lexicon.pronunciations["to"]] == ["T UW", "T AH"]


def test_phones_of_one_character_are_themselves_and_others_get_a_free_one() -> None:
    phones = characters_of(["t", "T", "tʃ", "ai", "a", "Q7"])
    assert {phones[each] for each in ("t", "T", "a")} == {"t", "T", "a"}
    assert phones["q"] == "Q7"
    assert sorted(phones.values()) == sorted(["t", "T", "tʃ", "ai", "a", "Q7"])
    assert characters_of(["Q7", "ai", "a", "tʃ", "T", "t"]) == phones
    many = characters_of(f"P{number}" for number in range(1000))
    assert len(many) == 1000
    CharTokenizer(sorted(many))  # all of them are characters that an alphabet may have


def test_a_model_knows_its_phones(path: Path, tmp_path: Path) -> None:
    lexicon = read_lexicon(path)
    more = tmp_path / "more.txt"
    more.write_text("tee\tT IY\n")
    added = read_lexicon(more, lexicon.phones)
    assert added.names(added.spell("tee")) == "T IY"
    more.write_text("tee\tT IY\ncat\tK AE T\n")
    with pytest.raises(ValueError, match=r"more.txt:2: phone 'K', expected one of the model's, AH"):
        read_lexicon(more, lexicon.phones)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no words, expected a word and its phones a line"),
        (b"a\tA\nb\n", ":2: 'b' has no phones, expected some"),
        (b"a\tA\n\xff\tB\n", ":2: not UTF-8"),
        (b"a\t" + b"x" * 40 + b"\n", ":1: phone 'xxx"),
    ],
)
def test_what_is_no_lexicon_is_told(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"bad.txt.*{message}"):
        read_lexicon(path)


def test_too_many_phones_are_refused() -> None:
    lines = ((number, b"word%d P%d" % (number, number)) for number in range(1, 2000))
    with pytest.raises(ValueError, match=r":1025: more than .* expected a lexicon"):
        parse_lexicon(lines, "x")


def test_a_list_of_words(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("ab\n\nba\nab\n")
    tokenizer = CharTokenizer("ab ")
    assert read_words(path, tokenizer) == ["ab", "ba"]
    for content, message in (
        ("ab\nabc\n", r"words.txt:2: character 'c' .*not in the alphabet"),
        ("a b\n", r"words.txt:1: 'a b', expected one word a line"),
        ("\n", "no words, expected one a line"),
    ):
        path.write_text(content)
        with pytest.raises(ValueError, match=message):
            read_words(path, tokenizer)
