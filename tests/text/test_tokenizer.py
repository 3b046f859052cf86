"""Characters to ids and back."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from asr.text.tokenizer import BLANK_ID, CharTokenizer


def test_ids_follow_the_alphabet_and_blank_is_zero() -> None:
    tokenizer = CharTokenizer(" 'ab")
    assert BLANK_ID == tokenizer.blank_id == 0
    assert tokenizer.vocab_size == 5
    assert tokenizer.encode("ab a'") == [3, 4, 1, 3, 2]
    assert tokenizer.encode("") == []


def test_the_given_order_is_kept() -> None:
    assert CharTokenizer("cab").alphabet == "cab"
    assert CharTokenizer(["c", "a", "b"]) == CharTokenizer("cab") != CharTokenizer("abc")
    assert len({CharTokenizer("cab"), CharTokenizer(["c", "a", "b"])}) == 1


def test_from_texts_sorts_by_code_point_whatever_the_order_of_texts() -> None:
    texts = ["the cat", "caf\u00e9's", ""]
    tokenizer = CharTokenizer.from_texts(texts)
    assert tokenizer.alphabet == " 'acefhst\u00e9"
    assert CharTokenizer.from_texts(reversed(texts)) == tokenizer


def test_decode_undoes_encode_in_any_script() -> None:
    texts = [
        "don't stop",
        "\u4f60\u597d \u4e16\u754c",
        "\u0928\u092e\u0938\u094d\u0924\u0947",
        "\U0001f600a",
    ]
    tokenizer = CharTokenizer.from_texts(texts)
    for text in texts:
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_decode_leaves_the_blank_out_and_repeats_in() -> None:
    tokenizer = CharTokenizer("ab")
    assert tokenizer.decode([0, 1, 1, 0, 1, 2, 0]) == "aaab"
    assert tokenizer.decode([0, 0]) == ""


def test_decode_takes_the_integers_of_numpy_and_torch() -> None:
    tokenizer = CharTokenizer("ab")
    assert tokenizer.decode(np.array([1, 2], dtype=np.int64)) == "ab"
    assert tokenizer.decode(torch.tensor([2, 1])) == "ba"
    with pytest.raises(TypeError):
        tokenizer.decode([1.0])  # type: ignore[list-item]


@pytest.mark.parametrize("bad", [-1, 3, 10**9])
def test_an_id_out_of_range_is_refused(bad: int) -> None:
    with pytest.raises(ValueError, match=f"id {bad} is out of range, expected 0 to 2"):
        CharTokenizer("ab").decode([1, bad])


def test_an_unknown_character_is_named_with_its_place() -> None:
    message = (
        "character '\u00e9' (U+00E9 LATIN SMALL LETTER E WITH ACUTE) at position 3 of 'caf\u00e9' "
        "is not in the alphabet, expected one of 'acf'"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        CharTokenizer("acf").encode("caf\u00e9")


def test_a_long_text_is_shortened_in_the_message() -> None:
    with pytest.raises(ValueError, match=r"at position 5000 of 'a{57}\.\.\.' is not") as caught:
        CharTokenizer("a").encode("a" * 5000 + "\x1b")
    assert "\x1b" not in str(caught.value)


def test_unknown_characters_lists_each_once() -> None:
    assert CharTokenizer("ab").unknown_characters("abcbdc") == "cd"
    assert CharTokenizer("ab").unknown_characters("ab") == ""


@pytest.mark.parametrize(
    ("alphabet", "message"),
    [
        ("", "the alphabet is empty"),
        ([], "the alphabet is empty"),
        ("aba", "alphabet has 'a' (U+0061 LATIN SMALL LETTER A) twice"),
        (["a", "ch"], "alphabet entry 'ch' is not one character"),
        (["a", ""], "alphabet entry '' is not one character"),
        (["a", 1], "alphabet entry 1 is not one character"),
        ("a\ud800", "is half a surrogate pair"),
    ],
)
def test_a_bad_alphabet_is_refused(alphabet: str | list[str], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        CharTokenizer(alphabet)


@pytest.mark.parametrize(
    "character",
    ["\x00", "\t", "\n", "\x1b", "\x7f", "\x9b", "\u2028", "\u2029", "\u202e", "\ufeff"],
)
def test_what_would_act_on_a_terminal_is_no_character(character: str) -> None:
    message = f"alphabet entry {character!r} (U+{ord(character):04X} "
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        CharTokenizer(f"a{character}b")
    assert "control or format character" in str(caught.value)
    assert str(caught.value).isprintable()


def test_marks_joiners_and_private_characters_stay() -> None:
    """Combining acute, virama, the joiners of Persian and Hindi, a private letter, a new one."""
    alphabet = " e\u0301\u094d\u200c\u200d\ue000\U0001fadf"
    assert CharTokenizer(alphabet).alphabet == alphabet


def test_texts_without_a_character_make_no_alphabet() -> None:
    with pytest.raises(ValueError, match="the alphabet is empty"):
        CharTokenizer.from_texts(["", ""])
