"""A reader of Praat's long text format, for tests: every line of the grammar and nothing else."""

from __future__ import annotations

import re
from typing import NamedTuple

NUMBER = r"(\d+(?:\.\d+)?)"
STRING = r'"((?:[^"]|"")*)"'
HEAD = re.compile(
    r'File type = "ooTextFile"\nObject class = "TextGrid"\n\nxmin = 0 \n'
    rf"xmax = {NUMBER} \ntiers\? <exists> \nsize = (\d+) \nitem \[\]: \n"
)
TIER = re.compile(
    rf'    item \[(\d+)\]:\n        class = "IntervalTier" \n        name = {STRING} \n'
    rf"        xmin = 0 \n        xmax = {NUMBER} \n        intervals: size = (\d+) \n"
)
INTERVAL = re.compile(
    rf"        intervals \[(\d+)\]:\n            xmin = {NUMBER} \n            xmax = {NUMBER} \n"
    rf"            text = {STRING} \n"
)


class TextGrid(NamedTuple):
    """Its end, and (start, end, text) by tier."""

    duration: float
    tiers: dict[str, list[tuple[float, float, str]]]


def read_textgrid(text: str) -> TextGrid:
    """Parse a whole TextGrid; what Praat requires of it is asserted."""
    head = HEAD.match(text)
    assert head, text[:200]
    duration, place = float(head[1]), head.end()
    tiers: dict[str, list[tuple[float, float, str]]] = {}
    for number in range(1, int(head[2]) + 1):
        tier = TIER.match(text, place)
        assert tier, text[place : place + 200]
        assert (int(tier[1]), float(tier[3])) == (number, duration)
        place = tier.end()
        intervals = tiers[tier[2].replace('""', '"')] = []
        for count in range(1, int(tier[4]) + 1):
            interval = INTERVAL.match(text, place)
            assert interval, text[place : place + 200]
            assert int(interval[1]) == count
            place = interval.end()
            start, end = float(interval[2]), float(interval[3])
            assert start < end
            assert start == (intervals[-1][1] if intervals else 0)
            intervals.append((start, end, interval[4].replace('""', '"')))
        assert intervals[-1][1] == duration
    assert place == len(text)
    return TextGrid(duration, tiers)
