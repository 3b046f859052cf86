"""Characters that act are shown instead."""

import unicodedata

import pytest

from asr.report.visible import visible

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
def test_by_hand(text, expected):
    assert visible(text) == expected


def test_no_control_of_unicode_is_left():
    every = "".join(map(chr, range(0x110000)))
    shown = visible(every)
    left = {each for each in shown if unicodedata.category(each) in ("Cc", "Cs", "Zl", "Zp")}
    assert left == set()
    assert not {each for each in shown if unicodedata.bidirectional(each) in BIDI_CONTROLS}
