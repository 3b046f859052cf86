"""Times as a TextGrid, the form that Praat and most tools of phoneticians read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple


class Interval(NamedTuple):
    """A stretch of a tier.

    Attributes:
        start: [s].
        end: after the start [s].
        text: empty for silence.
    """

    start: float
    end: float
    text: str


def textgrid(duration: float, tiers: Mapping[str, Sequence[Interval]]) -> str:
    """A TextGrid in the long text format (Praat manual, "TextGrid file formats").

    Args:
        duration: of the recording [s].
        tiers: intervals by the tier's name, in order and without overlap; what lies between them
            becomes intervals without text.

    Raises:
        ValueError: intervals that have no length, overlap or go beyond the recording.
    """
    lines = [
        'File type = "ooTextFile"', 'Object class = "TextGrid"', "", "xmin = 0 ",
        f"xmax = {_number(duration)} ", "tiers? <exists> ", f"size = {len(tiers)} ", "item []: ",
    ]  # fmt: skip
    for number, (name, intervals) in enumerate(tiers.items(), start=1):
        whole = list(_without_gaps(name, intervals, duration))
        lines += [
            f"    item [{number}]:", '        class = "IntervalTier" ',
            f"        name = {_quoted(name)} ", "        xmin = 0 ",
            f"        xmax = {_number(duration)} ", f"        intervals: size = {len(whole)} ",
        ]  # fmt: skip
        for place, interval in enumerate(whole, start=1):
            lines += [
                f"        intervals [{place}]:",
                f"            xmin = {_number(interval.start)} ",
                f"            xmax = {_number(interval.end)} ",
                f"            text = {_quoted(interval.text)} ",
            ]
    return "\n".join(lines) + "\n"


def _without_gaps(name: str, intervals: Sequence[Interval], duration: float) -> Iterator[Interval]:
    end = 0.0
    for interval in intervals:
        if not end <= interval.start < interval.end <= duration:
            raise ValueError(
                f"tier {name}: {interval.text!r} from {interval.start:g} to {interval.end:g} s, "
                f"expected a length, and within {end:g} to {duration:g} s"
            )
        if interval.start > end:
            yield Interval(end, interval.start, "")
        yield interval
        end = interval.end
    if end < duration:
        yield Interval(end, duration, "")


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _number(seconds: float) -> str:
    return f"{seconds:.6f}".rstrip("0").rstrip(".")
