"""The text rules, on cases worked out by hand and on most characters of Unicode."""

from __future__ import annotations

import json
import unicodedata
from dataclasses import asdict

import pytest

from asr.text.normalize import TextNormalizer

RULES = TextNormalizer()
# Alphabets, marks and punctuation of all kinds, then the compatibility forms: where rules can meet.
CHARACTERS = [chr(code) for code in (*range(0x3100), *range(0xF900, 0x10000))]


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("Hello, World!", "hello world"),
        ("  a \t b\u00a0c\u3000d\n", "a b c d"),
        ("don\u2019t DON\u02bcT don\u00b4t don`t", "don't don't don't don't"),
        ("'quoted' \u2018words\u2019, the boys' room", "quoted words the boys room"),
        ("rock\u2014and\u2026roll", "rock and roll"),
        ("well-known snake_case", "well known snake case"),
        ("e\u0301t\u00e9", "\u00e9t\u00e9"),
        ("STRASSE stra\u00dfe", "strasse stra\u00dfe"),
        ("\u039f\u0394\u039f\u03a3", "\u03bf\u03b4\u03bf\u03c2"),  # ΟΔΟΣ ends in a final sigma
        ("\u4f60\u597d\uff0c\u4e16\u754c\u3002", "\u4f60\u597d \u4e16\u754c"),
        ("\u0928\u092e\u0938\u094d\u0924\u0947!", "\u0928\u092e\u0938\u094d\u0924\u0947"),
        ("\u00bfQu\u00e9 tal?", "qu\u00e9 tal"),
        ("50% of $5 & 3+4", "50% of $5 & 3+4"),
        ("soft\u00adhyphen zero\u200bwidth \ufeffbom \x1b[31m", "softhyphen zerowidth bom 31m"),
        (
            "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
            "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        ),
        ("e\u200b\u0301", "\u00e9"),
        ("...", ""),
        ("", ""),
    ],
)
def test_hand_made_cases(raw: str, expected: str) -> None:
    assert RULES(raw) == expected


def test_kept_punctuation_stays_only_inside_words() -> None:
    rules = TextNormalizer(keep="'-")
    assert rules("Well-known -- 'tis a non-\u2019smoker- x'-y") == "well-known tis a non smoker x y"
    # A combining mark belongs to its word: Devanagari's last letter here is one.
    assert rules("\u0915\u0940-\u0932\u093e") == "\u0915\u0940-\u0932\u093e"


def test_a_typographic_apostrophe_in_keep_means_the_apostrophe() -> None:
    assert TextNormalizer(keep="\u2019")("don\u2019t") == "don't"


def test_without_the_apostrophe_in_keep_words_are_split() -> None:
    assert TextNormalizer(keep="")("l\u2019homme") == "l homme"


def test_what_is_switched_off_stays() -> None:
    rules = TextNormalizer(lowercase=False, remove_punctuation=False)
    assert rules("Hello,  World \u2019") == "Hello, World '"


def test_unicode_forms() -> None:
    assert TextNormalizer(unicode_form="NFD")("\u00e9") == "e\u0301"
    assert TextNormalizer(unicode_form="NFKC")("\ufb01ne \uff11") == "fine 1"
    assert TextNormalizer(unicode_form="NFKC")("\u0149") == "n"  # it decomposes to 'n


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC", "NFKD"])
def test_idempotent_on_every_character_of_most_scripts(form: str) -> None:
    rules = TextNormalizer(unicode_form=form, keep="'-")
    changed = []
    for start in range(0, len(CHARACTERS), 64):
        # Each stands in a word, by itself and before a mark.
        once = rules(" ".join(f"a{c}b {c} {c}\u0301" for c in CHARACTERS[start : start + 64]))
        if rules(once) != once:
            changed.append(hex(ord(CHARACTERS[start])))
    assert changed == []


def test_nothing_of_category_p_is_left_but_what_is_read_aloud() -> None:
    left = RULES(" ".join(CHARACTERS))
    assert any(unicodedata.category(c) == "Pd" for c in CHARACTERS)
    spoken = set("%&@#\u2030\u00a7\u066a\uff05\uff06\uff20\uff03")
    assert {c for c in left if unicodedata.category(c).startswith("P")} == spoken


def test_rules_are_told_as_they_are_set() -> None:
    assert RULES.rules() == (
        "Unicode NFC",
        "typographic apostrophes become '",
        "control and format characters removed",
        "lower case",
        "punctuation becomes spaces (inside words stays ')",
        "single spaces between words",
    )
    assert TextNormalizer("NFKC", lowercase=False, remove_punctuation=False).rules() == (
        "Unicode NFKC",
        "typographic apostrophes become '",
        "control and format characters removed",
        "single spaces between words",
    )
    assert "punctuation becomes spaces" in TextNormalizer(keep="").rules()


def test_settings_survive_json() -> None:
    rules = TextNormalizer(unicode_form="NFKC", lowercase=False, keep="'-")
    assert TextNormalizer(**json.loads(json.dumps(asdict(rules)))) == rules


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"unicode_form": "nfc"}, "unicode_form is 'nfc', expected one of NFC, NFD, NFKC, NFKD"),
        ({"lowercase": "yes"}, "lowercase is 'yes', expected true or false"),
        ({"keep": "- "}, "keep is '- ', expected characters without white space"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TextNormalizer(**settings)  # type: ignore[arg-type]
