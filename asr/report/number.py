"""Numbers in words: counts, rates and times as a reader of a report wants them."""

from __future__ import annotations

import math

from asr.metrics.interval import Interval


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


def between(interval: Interval | None, digits: int = 1) -> str:
    """An interval's ends in per cent: `[4.1, 6.9]`; a dash where there is none."""
    if interval is None:
        return "—"
    ends = (
        f"{100 * end:.{digits}f}" if math.isfinite(end) else "∞" if end > 0 else "-∞"
        for end in (interval.low, interval.high)
    )
    return f"[{', '.join(ends)}]"


def told(interval: Interval) -> str:
    """What an interval is: `95 % bootstrap interval, resampled by speaker (40)`."""
    level = percent(interval.level, 0)
    return (
        f"{level} percentile bootstrap interval, resampled by {interval.block} "
        f"({number(interval.num_blocks)})"
    )


def bounds(low: float, high: float, last: bool) -> str:
    """A bin: `1.2 to < 3.4`, and `3.4 to 9.9` for the last, to which its end belongs."""
    return f"{_short(low)} to {'' if last else '< '}{_short(high)}"


def _short(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
