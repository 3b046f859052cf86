"""Text for terminals and logs: what would act is escaped, letters and their joiners stay."""

from __future__ import annotations

import json

import pytest

from asr.text.printable import printable, printable_json


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
