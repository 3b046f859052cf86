"""Replacements: right as Python's own, and bounded whatever the pattern."""

from __future__ import annotations

import random
import re
import time

import pytest

from asr.replacement import MAX_PATTERN, MAX_PATTERNS, MAX_TEXT, check_replacements, replace_all


def test_they_are_those_of_python() -> None:
    draws = random.Random(7)
    pairs = [
        (r"\bDr\.", "doctor"), (r"(\w)-(\w)", r"\2 \1"), ("(?i)MR", "mister"), (r"\s+$", ""),
        ("(?P<n>[a-c]+)d", r"<\g<n>>"), ("é|(?<=x)y|z*?", "Ω"), (r"[^\W\d_]{3,}\d", "#"),
        (r"(?x) a  b # together", "ab"), (r"\(?1\)", "one"), ("a(?=b)", ""),
    ]  # fmt: skip
    check_replacements(pairs)
    for _ in range(300):
        text = "".join(draws.choice("abcdxyzéMrDR. -1(2)") for _ in range(draws.randrange(40)))
        for pattern, replacement in pairs:
            expected = re.sub(pattern, replacement, text)
            assert replace_all(text, [(pattern, replacement)]) == expected
    assert replace_all("abc", [("a", "b"), ("b", "c")]) == "ccc"  # in their order


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([("(a", "")], r"replace: '\(a' to '': missing \)"),
        ([("a", r"\2")], "to '.*2': invalid group reference"),
        ([("a", "\\")], "bad escape"),
        ([("(?P<n>a)", r"\g<m>")], "unknown group"),
        ([("", "x")], "replace: '' is empty"),
        ([("(?R)?a", "")], "calls itself"),
        ([("(a(?1)?b)", "")], "calls itself"),
        ([("(?P<x>a(?&x)?)", "")], "calls itself"),
        ([("a" * (MAX_PATTERN + 1), "")], "has 1001 characters, expected at most 1000"),
        ([("a", "")] * (MAX_PATTERNS + 1), "replace has 101 patterns, expected at most 100"),
    ],
)
def test_what_is_no_replacement_is_named(pairs: list[tuple[str, str]], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        check_replacements(pairs)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("pattern", "replacement", "text"),
    [
        ("(a|aa)+$", "", "a" * 100_000 + "b"),
        ("((((a{1,999}){1,999}){1,999}){1,999}){1,999}b", "", "a" * 100_000),
        (".", "x" * 1000, "a" * 10_000),
        ("(.*)", r"\1" * 400, "a" * 10_000),
        ("a", "b", "a" * (MAX_TEXT + 1)),
    ],
)
def test_no_pattern_hangs_or_fills_memory(pattern: str, replacement: str, text: str) -> None:
    check_replacements([(pattern, replacement)])
    start = time.process_time()
    with pytest.raises(ValueError, match=r"^replace: '.{1,150}, expected a[t ].*") as caught:
        replace_all(text, [(pattern, replacement)] * 20)
    assert "\n" not in str(caught.value)
    assert time.process_time() - start < 3


def test_a_slow_pattern_does_not_get_its_time_once_more_for_every_text() -> None:
    """A recording's text goes through the rules word by word."""
    start = time.process_time()
    refused = 0
    for _ in range(100):
        try:
            replace_all("a" * 500 + "b", [("(a|aa)+$", "")])
        except ValueError:
            refused += 1
    assert refused
    assert time.process_time() - start < 5
