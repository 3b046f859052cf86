"""Texts are made visible, numbers are written for readers, long alignments are cut."""

import unicodedata

import pytest

from asr.metrics.error_rate import score_utterance
from asr.report.wording import Gap, compact, excerpt, p_value, setting_text, shortened, visible

BIDI_CONTROLS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain größe 声 🎤", "plain größe 声 🎤"),
        ("\x1b[31mred", "␛[31mred"),
        ("a\nb\r\x00\x7f", "a␊b␍␀␡"),
        ("\x9b31m", "<U+009B>31m"),
        ("\u202egnp.exe", "<U+202E>gnp.exe"),
        ("\u2028\u2029\ufeff", "<U+2028><U+2029><U+FEFF>"),
        ("\ud800", "<U+D800>"),
        ("\u0645\u06cc\u200c\u062e", "\u0645\u06cc\u200c\u062e"),
    ],
)
def test_visible_by_hand(text, expected):
    assert visible(text) == expected


def test_no_control_of_unicode_is_left():
    every = "".join(map(chr, range(0x110000)))
    shown = visible(every)
    left = {each for each in shown if unicodedata.category(each) in ("Cc", "Cs", "Zl", "Zp")}
    assert left == set()
    assert not {each for each in shown if unicodedata.bidirectional(each) in BIDI_CONTROLS}


def test_numbers_settings_and_long_texts_by_hand():
    digits = {(None, 4): "—", (0.03124, 4): "0.0312", (1e-5, 4): "< 0.0001", (4e-4, 3): "< 0.001"}
    assert {given: p_value(*given) for given in digits} == digits
    texts = {None: "none", True: "yes", False: "no", 8: "8", 0.25: "0.25", "fast": "fast"}
    assert {value: setting_text(value) for value in texts} == texts
    assert setting_text(None, absent="—") == "—"
    assert [shortened("abcdef", most) for most in (6, 4)] == ["abcdef", "abc…"]
    assert shortened("abcdef", 4, keep_end=True) == "…def"


def shown(reference, hypothesis):
    words = score_utterance("u", reference, hypothesis).alignment
    return [each.num_words if isinstance(each, Gap) else each.reference for each in excerpt(words)]


def test_short_stretches_stay_whole():
    reference = "a b c d e f g h i j k l x"
    assert shown(reference, reference.replace("x", "y")) == reference.split()


def test_long_stretches_keep_both_ends():
    reference = "a b c d e f g h i j k l m x"
    expected = ["a", "b", "c", "d", 5, "j", "k", "l", "m", "x"]
    assert shown(reference, reference.replace("x", "y")) == expected


def test_an_alignment_as_scripts_read_it():
    words = score_utterance("u", "the cat sat on mats", "the big bat sat mats").alignment
    steps = [["the"], ["", "big"], ["cat", "bat"], ["sat"], ["on", ""], ["mats"]]
    assert compact(words) == steps
    assert compact(score_utterance("u", "a\x1b b", "a\x1b b").alignment) == [["a␛ b"]]
