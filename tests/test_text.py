"""Text: rules on cases made by hand and on most of Unicode, ids, what is made visible."""

# ruff: noqa: RUF001 - words of many scripts

from __future__ import annotations

import json
import re
import unicodedata
from dataclasses import asdict

import numpy as np
import pytest
import torch

from asr.text import (
    BLANK_ID,
    CharTokenizer,
    TextNormalizer,
    printable,
    printable_json,
    settled,
    word_spans,
)
from asr.untrusted import check_arguments

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


# Words as they are written, with the rule's source.
@pytest.mark.parametrize(
    ("language", "raw", "expected"),
    [
        # Unicode 15, SpecialCasing.txt, "Turkish and Azeri".
        ("tr", "İyi günler, ISPARTA ılık", "iyi günler ısparta ılık"),
        ("tr", "IĞDIR'da DİYARBAKIR", "ığdır'da diyarbakır"),
        ("tr", "I\u0307STANBUL", "istanbul"),  # decomposed, as macOS types it
        ("az", "İSTİ QIŞ", "isti qış"),
        ("", "İyi günler", "iyi günler"),
        ("de", "STRAẞE İ", "straße i"),
        # SpecialCasing.txt, "Lithuanian": the dot stays below an accent.
        ("lt", "ŽEMĖ", "žemė"),
        ("lt", "I\u0301 J\u0303 \u012e\u0303", "i\u0307\u0301 j\u0307\u0303 \u012f\u0307\u0303"),
        ("lt", "\u00cd", "i\u0307\u0301"),
        # Academy of the Hebrew Language: geresh marks foreign sounds, gershayim acronyms.
        ("he", "ג׳ירפה גבוהה", "ג׳ירפה גבוהה"),
        ("he", "ג'ירפה צה\"ל", "ג׳ירפה צה״ל"),
        ("he", 'רח׳ תל־אביב, "שלום"!', "רח׳ תל אביב שלום"),
        ("", "צה״ל", "צה ל"),
        # Institut d'Estudis Catalans: the geminate l is written l·l.
        ("ca", "Il·lusió, COL·LEGI", "il·lusió col·legi"),
        ("ca", "co\u0140lecció paral\u2022lel", "col·lecció paral·lel"),
        ("", "col·legi", "col legi"),
        # The Unicode Standard 15, 5.18: a capital sharp s becomes one letter; final sigma.
        ("de", "GROẞE Straße, „Öl“ – z.B. Größe", "große straße öl z b größe"),
        ("el", "ΣΊΣΥΦΟΣ, ΟΔΌΣ!", "σίσυφος οδός"),
        # Académie française: the apostrophe joins, guillemets stand apart.
        ("fr", "« L’ŒUVRE d’aujourd’hui »", "l'œuvre d'aujourd'hui"),
        # TCVN 6909: precomposed letters with two marks.
        ("vi", "TIẾNG VIỆT, Hà Nội ở Đồng", "tiếng việt hà nội ở đồng"),
        # The Unicode Standard 15, 12.1: nukta and virama are marks within words; danda ends one.
        ("hi", "नमस्ते, क्या हिंदी। क़लम", "नमस्ते क्या हिंदी क़लम"),
        # The same, 9.2: hamza, madda and alef maksura are letters; the comma is the Arabic one.
        ("ar", "أهلاً، إلى آخره؟ مـرحبا", "أهلاً إلى آخره مرحبا"),
        # GB/T 15834: full-width punctuation; JIS X 4051: the prolonged sound mark is a letter.
        ("zh", "你好，世界！《红楼梦》", "你好 世界 红楼梦"),
        ("ja", "コーヒー、東京タワー。", "コーヒー 東京タワー"),
        # Royal Society of Thailand: sara am is one letter.
        ("th", "น้ำ สวัสดีครับ", "น้ำ สวัสดีครับ"),
    ],
)
def test_languages(language: str, raw: str, expected: str) -> None:
    rules = TextNormalizer(language=language)
    assert rules(raw) == unicodedata.normalize("NFC", expected)
    assert rules(rules(raw)) == rules(raw)
    assert rules(unicodedata.normalize("NFD", raw)) == rules(raw)


def test_tatweel_and_stray_joiners_carry_nothing() -> None:
    assert RULES("\u0645\u0640\u0640\u0631\u062d\u0628\u0627") == "\u0645\u0631\u062d\u0628\u0627"
    assert RULES("foo\u200c bar\u200dbaz \u200c") == "foo barbaz"
    persian = "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"
    assert RULES(f"\u200c{persian}\u200c") == persian
    assert RULES(persian.replace("\u200c", "\u200c\u200c")) == persian
    marathi = "\u0930\u094d\u200d\u092f"  # an eyelash ra: a joiner behind a virama
    assert RULES(marathi) == marathi


def test_arabic_marks_go_where_that_is_asked_for() -> None:
    vowelled, bare = "\u0643\u064e\u062a\u064e\u0628\u064e", "\u0643\u062a\u0628"  # kataba
    assert RULES(vowelled) == vowelled
    assert TextNormalizer(remove_arabic_marks=True)(vowelled) == bare
    madda = "\u0622\u0645\u0646"  # its alef with madda is one letter, in every form
    assert TextNormalizer(remove_arabic_marks=True)(madda) == madda


@pytest.mark.parametrize(
    ("drop_in", "raw", "expected"),
    [
        ("[]()", "[noise] two zero (laughs) four", "two zero four"),
        ("[]", "[a [b] c] d [e] [f", "d f"),
        ("**<>", "*cough* <unk> well * known", "well known"),
        ("[]", "a] b [c", "a b c"),
        ("", "[noise] two", "noise two"),
    ],
)
def test_tags_go_with_what_stands_in_them(drop_in: str, raw: str, expected: str) -> None:
    assert TextNormalizer(drop_in=drop_in)(raw) == expected


def test_replacements_come_first_and_in_their_order() -> None:
    rules = TextNormalizer(
        replace=((r"\bDr\.", "doctor"), (r"(\d+) ?%", r"\1 percent"), ("percent", "per cent")),
        numbers="en",
    )
    assert rules("Dr. Smith: 20% (or 3.5 %)") == (
        "doctor smith twenty per cent or three point five per cent"
    )
    assert rules(rules("Dr. 20%")) == rules("Dr. 20%")
    assert rules.rules()[3:7] == (
        r"'\\bDr\\.' becomes 'doctor'",
        r"'(\\d+) ?%' becomes '\\1 percent'",
        "'percent' becomes 'per cent'",
        "numbers spelt out in en",
    )
    # What is made is cleaned as what was there.
    assert TextNormalizer(replace=(("x", "\u2019\u200b\x1bE\u0301"),))("axa") == "a'éa"


def test_numbers_come_after_tags_and_before_lower_case() -> None:
    rules = TextNormalizer(drop_in="[]", numbers="de", language="de")
    assert rules("[20 s] Es sind 21 Äpfel, 3,5 kg.") == (
        "es sind einundzwanzig äpfel drei komma fünf kg"
    )


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


@pytest.mark.parametrize("language", ["", "tr", "lt", "he", "ca"])
@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC", "NFKD"])
def test_idempotent_on_every_character_of_most_scripts(form: str, language: str) -> None:
    rules = TextNormalizer(unicode_form=form, keep="'-", language=language)
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
        "control and format characters, tatweel and stray joiners removed",
        "lower case",
        "punctuation becomes spaces (inside words stays ')",
        "single spaces between words",
    )
    assert TextNormalizer("NFKC", lowercase=False, remove_punctuation=False).rules() == (
        "Unicode NFKC",
        "typographic apostrophes become '",
        "control and format characters, tatweel and stray joiners removed",
        "single spaces between words",
    )
    assert "punctuation becomes spaces" in TextNormalizer(keep="").rules()
    assert TextNormalizer(unit="word").rules() == RULES.rules()
    told = TextNormalizer(unit="character").rules()[-1]
    assert told == "the unit is the character, spaces left out"


def test_settings_survive_json() -> None:
    rules = TextNormalizer(unicode_form="NFKC", keep="'-", replace=(("a", "b"),), numbers="en")
    stored = json.loads(json.dumps(asdict(rules)))
    assert TextNormalizer(**check_arguments(TextNormalizer, stored, "text")) == rules
    rules = TextNormalizer(lowercase=False)
    stored = json.loads(json.dumps(asdict(rules)))
    assert TextNormalizer(**check_arguments(TextNormalizer, stored, "text")) == rules


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"unicode_form": "nfc"}, "unicode_form is 'nfc', expected one of NFC, NFD, NFKC, NFKD"),
        ({"lowercase": "yes"}, "lowercase is 'yes', expected true or false"),
        ({"keep": "- "}, "keep is '- ', expected characters without white space"),
        ({"language": "Turkish"}, "language is 'Turkish', expected a code of ISO 639 such as tr"),
        ({"language": None}, "language is None, expected a code"),
        ({"drop_in": "[]("}, r"drop_in is '\[\]\(', expected pairs of brackets"),
        ({"drop_in": "ab"}, "drop_in is 'ab', expected pairs of brackets"),
        ({"replace": (("(a", ""),)}, r"replace: '\(a' to '': missing \)"),
        ({"numbers": "English"}, "numbers is 'English', expected a language of num2words such"),
        ({"unit": "letter"}, "unit is 'letter', expected one of auto, word, character"),
        ({"remove_arabic_marks": 1}, "remove_arabic_marks is 1, expected true or false"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TextNormalizer(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("texts", "unit"),
    [
        (["今天天气很好 我们去公园", "你好 世界", "打开"], "character"),
        (["今天 天气 很 好", "你 好"], "word"),  # somebody has parted the words
        (["コーヒーが好きです"], "character"),
        (["ฉันมีสามคน น้ำใจดีมากครับ"], "character"),
        (["วันนี้ อากาศ ดี มาก"], "word"),
        (["ຂ້ອຍຮັກເຈົ້າ", "ខ្ញុំស្រឡាញ់អ្នក", "မြန်မာစာသင်နေတယ်"], "character"),
        (["我用 iphone 拍照很好看真的很好看我们都喜欢"], "character"),
        (["the word 你好 means hello"], "word"),
        (["안녕 하세요", "nghĩa là gì", "नमस्ते", "שלום", "hello"], "word"),
        (["donaudampfschifffahrtsgesellschaft"], "word"),
        ([], "word"),
    ],
)
def test_the_unit_is_the_character_where_no_spaces_part_words(texts: list[str], unit: str) -> None:
    assert settled(RULES, texts).unit == unit
    assert settled(RULES, reversed(texts)).unit == unit
    assert settled(TextNormalizer(unit="word"), texts).unit == "word"
    alphabet = CharTokenizer.from_texts([*texts, "a"]).alphabet
    if unit == "character" and len(texts) > 1:
        assert settled(RULES, [alphabet]).unit == unit


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("今天 我用iphone拍照", "今|天|我|用|iphone|拍|照"),
        ("か\u3099コーヒー", "か\u3099|コ|ー|ヒ|ー"),
        # Annex 29: marks stay with their letter, sara am too; a coeng and a virama bind the next.
        ("น้ำใจดี", "น้ำ|ใ|จ|ดี"),
        ("ខ្ញុំស្រ", "ខ្ញុំ|ស្រ"),
        ("မြန်မာသင်္ဘော", "မြ|န်|မာ|သ|င်္ဘော"),
        ("hello 2 worlds", "hello|2|worlds"),
        ("", ""),
    ],
)
def test_words_of_a_text_without_spaces_are_letters_with_their_marks(
    text: str, expected: str
) -> None:
    spans = word_spans(text, "character")
    assert "|".join(text[first:behind] for first, behind in spans) == expected
    assert "".join(text[first:behind] for first, behind in spans) == text.replace(" ", "")
    spans = word_spans(text, "word")
    assert [text[first:behind] for first, behind in spans] == text.split()


def test_settings_know_texts_again_that_went_through_the_same_rules() -> None:
    assert RULES.settings() == {
        "unicode_form": "NFC", "lowercase": True, "remove_punctuation": True, "keep": "'",
        "language": "", "drop_in": "", "remove_arabic_marks": False,
    }  # fmt: skip
    rules = TextNormalizer(replace=(("a", "b"),), numbers="en", unit="character")
    assert json.loads(json.dumps(rules.settings())) == rules.settings()
    assert rules.settings()["replace"] == [["a", "b"]]
    assert rules.settings()["numbers"] == "en"


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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("größe 声 mi\u200ckhaham क्\u200dष", "größe 声 mi\u200ckhaham क्\u200dष"),
        ("\x1b[2J\x07\x9b\x7f", r"\x1b[2J\x07\x9b\x7f"),
        ("a\tb\nc\rd", r"a\tb\nc\rd"),
        ("\u202e\u2066\u2028\ufeff\U000e0041", r"\u202e\u2066\u2028\ufeff\U000e0041"),
        ("\udce9.wav", r"\udce9.wav"),
    ],
)
def test_what_would_act_is_escaped(text: str, expected: str) -> None:
    assert printable(text) == expected


def test_what_is_ours_is_kept() -> None:
    assert printable("a\tb\n\x1b", "\n\t") == "a\tb\n\\x1b"


def test_json_is_one_printable_line_with_the_same_value() -> None:
    value = {"name": 'x\x1b\x9b\u202e\udce9\U000e0041"\\', "text": "größe\u200c 声"}
    text = printable_json(value)
    assert json.loads(text) == value
    assert all(c.isprintable() or c == "\u200c" for c in text)
    assert "größe\u200c 声" in text
    text.encode()  # a lone surrogate could not be
    with pytest.raises(ValueError, match="not JSON compliant"):
        printable_json(float("nan"))
