r"""Replacements in texts by regular expressions that a file of somebody else's may have brought.

A pattern such as `(a+)+$` takes time that doubles with every letter of a text that it does not
match. Which patterns do so cannot be told from their looks, and an engine that never does lacks
`\b` for letters beyond ASCII. So replacements have a time, which the `regex` package keeps to: a
thousandth of a second a text, saved up to a second. Patterns, texts and what becomes of them have a
longest length.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import lru_cache

import regex

MAX_PATTERNS = 100
MAX_PATTERN = 1000  # characters of a pattern, and of what takes its place
MAX_TEXT = 1 << 20  # characters of a text, before and after
MOST_S = 1.0  # [s] of a processor for a text, and for many of them before they earn more
EARNED_S = 1e-3  # [s] by each text; an honest rule takes some microseconds
EARNED_PER_CHARACTER_S = 1e-5  # [s] beside
# A pattern that calls itself took 800 MB a second; nothing that a transcript needs is written so.
_RECURSION = regex.compile(r"(?<!\\)(?:\\\\)*\(\?(?:R|&|P>|[+-]?\d|\(DEFINE)")


def check_replacements(pairs: Sequence[tuple[str, str]]) -> None:
    r"""Refuse what cannot be replaced by.

    Args:
        pairs: pattern and what takes its place, in which `\1` is the pattern's first group.

    Raises:
        ValueError: a pattern that cannot be read, calls itself or is too long, or too many of them.
    """
    if len(pairs) > MAX_PATTERNS:
        raise ValueError(f"replace has {len(pairs)} patterns, expected at most {MAX_PATTERNS}")
    for pattern, replacement in pairs:
        longest = max(len(pattern), len(replacement))
        if longest > MAX_PATTERN:
            raise ValueError(
                f"replace: {_short(pattern)} has {longest} characters, expected at most "
                f"{MAX_PATTERN}"
            )
        if not pattern or _RECURSION.search(pattern):
            what = "calls itself" if pattern else "is empty"
            raise ValueError(f"replace: {_short(pattern)} {what}, expected a regular expression")
        try:
            _compiled(pattern)
            # With a branch that matches nothing, so that the replacement is read too.
            regex.compile(f"|{pattern}", regex.VERSION0).sub(replacement, "")
        except (regex.error, IndexError, ValueError, OverflowError, RecursionError) as error:
            raise ValueError(
                f"replace: {_short(pattern)} to {_short(replacement)}: {error}, expected a regular "
                "expression and its replacement"
            ) from error


def replace_all(text: str, pairs: Sequence[tuple[str, str]]) -> str:
    """Replace each pattern wherever it matches, one after the other.

    Args:
        text: any text.
        pairs: as `check_replacements` lets them pass.

    Raises:
        ValueError: a pattern that takes too long on this text, or makes it too long.
    """
    _BUDGET.earn(EARNED_S + EARNED_PER_CHARACTER_S * len(text))
    start = time.thread_time()
    try:
        for pattern, replacement in pairs:
            if len(text) > MAX_TEXT:
                raise ValueError(
                    f"replace: {_short(pattern)} on a text of {len(text)} characters, expected at "
                    f"most {MAX_TEXT}"
                )
            # The package counts the seconds of a processor: a busy machine changes nothing.
            left = _BUDGET.left_s - (time.thread_time() - start)
            text = _compiled(pattern).sub(_Growth(replacement), text, timeout=max(left, 1e-3))
    except (TimeoutError, MemoryError, RecursionError) as error:
        raise ValueError(
            f"replace: {_short(pattern)} takes too long on a text of {len(text)} characters, "
            "expected a pattern without repeats inside of repeats"
        ) from error
    finally:
        _BUDGET.left_s -= time.thread_time() - start
    return text


class _Budget:
    """The time [s] that is left for replacements."""

    def __init__(self) -> None:
        self.left_s = MOST_S

    def earn(self, seconds: float) -> None:
        """Add some, up to the most."""
        self.left_s = min(max(self.left_s, 0.0) + seconds, MOST_S)


_BUDGET = _Budget()


class _Growth:
    """Makes what takes the place of a match, and stops where all of them become too long.

    Args:
        replacement: in which groups may stand many times, and make much of little.
    """

    def __init__(self, replacement: str) -> None:
        self.replacement, self.length = replacement, 0

    def __call__(self, match: regex.Match[str]) -> str:
        """Expand the replacement for a match.

        Raises:
            ValueError: with those before it, it is too long.
        """
        longest = max(end - start for start, end in match.regs)
        self.length += len(self.replacement) + self.replacement.count("\\") * longest
        if self.length > MAX_TEXT:
            raise ValueError(
                f"replace: {_short(self.replacement)} makes a text of more than {MAX_TEXT} "
                "characters, expected a shorter one"
            )
        return str(match.expand(self.replacement))


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")


# Version 0 reads what Python's own `re` reads, in the same way.
@lru_cache(maxsize=2 * MAX_PATTERNS)
def _compiled(pattern: str) -> regex.Pattern[str]:
    return regex.compile(pattern, regex.VERSION0)
