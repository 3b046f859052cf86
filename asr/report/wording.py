"""How pages and the terminal write what they are given: numbers, intervals, texts of strangers."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # `asr runs` needs no NumPy
    from asr.metrics.error_rate import WordPair
    from asr.metrics.interval import Interval

Setting = str | int | float | bool | None  # a value of a config

RATE_NAMES = {"word": "WER", "character": "CER"}  # by the unit of an evaluation
NOT_GIVEN = "(none given)"  # in the place of a speaker, or of a field's value
CONTEXT = 4  # right words that an excerpt keeps at each end of a long run of them

# C0 and C1 controls, DEL, soft line and paragraph breaks, bidirectional marks, embeddings,
# overrides and isolates, byte-order mark, interlinear and tag characters, lone surrogates.
# Zero-width (non-)joiners stay: Persian, Indic scripts and emoji need them.
_ACTING = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028\u2029\u202a-\u202e\u2060-\u206f"
    "\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)


def visible(text: str) -> str:
    """Replace control, direction and surrogate characters by something harmless to see.

    Args:
        text: any string, as from a manifest or a file name.

    Returns:
        The text with ASCII controls as their pictures (U+2400 to U+2421) and the others as
        `<U+202E>`; it neither steers a terminal nor reorders what is around it. All else stays, a
        backslash too: reports show texts as they are (`asr.text.printable` is for messages).
    """

    def picture(match: re.Match[str]) -> str:
        code = ord(match[0])
        if code < 0x20:
            return chr(0x2400 + code)
        return "␡" if code == 0x7F else f"<U+{code:04X}>"

    return _ACTING.sub(picture, text)


def shortened(text: str, max_length: int, keep_end: bool = False) -> str:
    """Cut what is longer than it may be, with an ellipsis in the place of its end or beginning."""
    if len(text) <= max_length:
        return text
    return f"…{text[1 - max_length :]}" if keep_end else f"{text[: max_length - 1]}…"


def setting_text(value: Setting, absent: str = "none") -> str:
    """Write the value of a setting for readers: `yes`, `no`, a number, a text."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return absent if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def p_value(p: float | None, digits: int = 4) -> str:
    """Write a probability: `0.0312`, `< 0.0001`; a dash where there is none."""
    if p is None:
        return "—"
    least = 10**-digits
    return f"< {least:.{digits}f}" if p < least else f"{p:.{digits}f}"


def percent(rate: float, digits: int = 1) -> str:
    """Write a fraction in per cent: 0.0537 is `5.4 %`, infinity is `∞`."""
    return f"{rate:.{digits}%}".replace("%", "\u202f%") if math.isfinite(rate) else "∞"


def number(count: int) -> str:
    """Write a whole number in groups of three digits: 1024 is `1,024`."""
    return f"{count:,}"


def counted(count: int, noun: str) -> str:
    """Write a number and its noun: `1 error`, `1,024 errors`."""
    return f"{number(count)} {noun}{'' if count == 1 else 's'}"


def length(seconds: float) -> str:
    """Write a length of audio in the unit that suits it: `4.2 s`, `12.5 min`, `5.40 h`."""
    if seconds < 60:
        return f"{seconds:.1f}\u202fs"
    return f"{seconds / 60:.1f}\u202fmin" if seconds < 3600 else f"{seconds / 3600:.2f}\u202fh"


def between(interval: Interval | None, digits: int = 1) -> str:
    """Write an interval's ends in per cent: `[4.1, 6.9]`; a dash where there is none."""
    if interval is None:
        return "—"
    ends = (
        f"{100 * end:.{digits}f}" if math.isfinite(end) else "∞" if end > 0 else "-∞"
        for end in (interval.low, interval.high)
    )
    return f"[{', '.join(ends)}]"


def told(interval: Interval) -> str:
    """Say what an interval is: `95 % bootstrap interval, resampled by speaker (40)`."""
    level = percent(interval.level, 0)
    return (
        f"{level} percentile bootstrap interval, resampled by {interval.block} "
        f"({number(interval.num_blocks)})"
    )


def bounds(low: float, high: float, last: bool) -> str:
    """Write a bin: `1.2 to < 3.4`, and `3.4 to 9.9` for the last, to which its end belongs."""
    ends = [f"{end:.3g}" if abs(end) < 1000 else f"{end:.0f}" for end in (low, high)]
    return f"{ends[0]} to {'' if last else '< '}{ends[1]}"


@dataclass(frozen=True, slots=True)
class Gap:
    """Words left out of a shown alignment, all of them right."""

    num_words: int


def excerpt(words: Iterable[WordPair]) -> Iterator[WordPair | Gap]:
    """Cut every long run of right words in an alignment to the four at each end.

    Args:
        words: a whole alignment.

    Yields:
        Its words in order, and a gap wherever five or more were left out.
    """
    for is_right, run in groupby(words, lambda word: word.kind == "equal"):
        group = list(run)
        if is_right and len(group) > 3 * CONTEXT:
            yield from group[:CONTEXT]
            yield Gap(len(group) - 2 * CONTEXT)
            yield from group[-CONTEXT:]
        else:
            yield from group


def compact(words: Iterable[WordPair], unit: str = "word") -> list[list[str]]:
    """Write an alignment as a page's script reads it: [right words], [reference, hypothesis].

    An empty text stands for what is absent: of an insertion the reference, of a deletion the other.

    Args:
        words: an alignment.
        unit: of the evaluation; right characters stand beside each other without spaces.
    """
    gap = "" if unit == "character" else " "
    steps: list[list[str]] = []
    for is_right, run in groupby(words, lambda word: word.kind == "equal"):
        pairs = [[visible(word.reference or ""), visible(word.hypothesis or "")] for word in run]
        steps += [[gap.join(reference for reference, _ in pairs)]] if is_right else pairs
    return steps
