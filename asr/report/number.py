"""Numbers in words: counts, rates and times as a reader of a report wants them."""

from __future__ import annotations

import math


def percent(rate: float, digits: int = 1) -> str:
    """A fraction in per cent: 0.0537 is `5.4 %`, infinity is `∞`."""
    return f"{rate:.{digits}%}".replace("%", "\u202f%") if math.isfinite(rate) else "∞"


def number(count: int) -> str:
    """A whole number in groups of three digits: 1024 is `1,024`."""
    return f"{count:,}"


def counted(count: int, noun: str) -> str:
    """A number and its noun: `1 error`, `1,024 errors`."""
    return f"{number(count)} {noun}{'' if count == 1 else 's'}"


def length(seconds: float) -> str:
    """A length of audio in the unit that suits it: `4.2 s`, `12.5 min`, `5.40 h`."""
    if seconds < 60:
        return f"{seconds:.1f}\u202fs"
    return f"{seconds / 60:.1f}\u202fmin" if seconds < 3600 else f"{seconds / 3600:.2f}\u202fh"
