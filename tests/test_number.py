"""Numbers spelt out: what is one number, how it is read, and languages by hand."""

from __future__ import annotations

import sys

import pytest

from asr.number import spell_numbers


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3 apples", "three apples"),
        ("1,234 pears", "one thousand two hundred and thirty-four pears"),
        ("3.5 kg, 0.5", "three point five kg, zero point five"),
        ("-5 or \u22125", "minus five or minus five"),
        ("10-12, 10:30, 12/5", "ten-twelve, ten:thirty, twelve/five"),
        ("007 and 00", "zero zero seven and zero zero"),
        ("call 5551234", "call five five five one two three four"),
        ("1,000,000", "one million"),
        ("in 1984, 2024 and 2005", "in nineteen eighty-four, twenty twenty-four and two thousand "
         "and five"),
        ("1,984 and 3000", "one thousand nine hundred and eighty-four and three thousand"),
        ("the 1st, 22ND and 4th-grade", "the first, twenty-second and fourth-grade"),
        ("20%, $5, 3km, mp3", "twenty %, $ five, three km, mp three"),
        ("1.2.3", "one two three"),
        ("1,23", "one twenty-three"),  # no number in English
        ("9" * 16 + ".5", " ".join(["nine"] * 16) + " five"),
        ("\u0663 \u0967\u0968", "three twelve"),  # Arabic and Devanagari figures
        ("x\u00b2 \u2460", "x\u00b2 \u2460"),  # no figures of a number
        ("no figures", "no figures"),
    ],
)  # fmt: skip
def test_what_a_number_is(text: str, expected: str) -> None:
    assert spell_numbers(text, "en") == expected


# Numerals as grammars of each language give them (Duden; Grevisse; RAE; Crusca; TDK; VLKK; ...).
@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("de", "1.234 und 3,5", "eintausendzweihundertvierunddreißig und drei Komma fünf"),
        ("de", "1984, 21", "neunzehnhundertvierundachtzig, einundzwanzig"),
        ("fr", "le 1er mai, la 2e, 71", "le premier mai, la deuxième, soixante et onze"),
        ("fr", "1\u202f000 et 3,5", "mille et trois virgule cinq"),
        ("es", "el 1.º y 21", "el primero y veintiuno"),
        ("it", "3,14 e 1º", "tre virgola uno quattro e primo"),
        ("pt_BR", "1.000", "mil"),
        ("nl", "de 2e van 21", "de tweede van eenentwintig"),
        ("tr", "12 ve 3,5", "oniki ve üç virgül beş"),
        ("az", "21", "iyirmi bir"),
        ("lt", "21", "dvidešimt vienas"),
        ("pl", "-5", "minus pięć"),
        ("ru", "21", "двадцать один"),
        ("vi", "3,5 và -5", "ba phẩy năm và âm năm"),
        ("ar", "3,5", "ثلاثة فاصلة خمسة"),
        ("he", "21", "עשרים ואחת"),
        ("ja", "私は3個、1,234円", "私は三個、千二百三十四円"),
        ("th", "ฉันมี3คน", "ฉันมีสามคน"),
        ("ca", "la 2n", "la segon"),
        ("sv", "den 2:a", "den andra"),
    ],
)
def test_languages(language: str, text: str, expected: str) -> None:
    assert spell_numbers(text, language) == expected


def test_a_language_that_there_is_not_is_told() -> None:
    with pytest.raises(ValueError, match="numbers is 'hi', expected a language of num2words: am, "):
        spell_numbers("3", "hi")
    assert spell_numbers("three", "hi") == "three"


def test_the_package_that_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "num2words", None)
    with pytest.raises(ValueError, match=r"num2words is not installed.*'lstm-asr\[text\]'"):
        spell_numbers("3", "es_VE")  # no other test asks for it, so none has made it
