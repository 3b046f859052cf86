"""TextGrids by hand, read back, and refused."""

from __future__ import annotations

import pytest

from asr.report.textgrid import Interval, textgrid
from tests.report.textgrids import read_textgrid


def test_by_hand() -> None:
    # The example of the Praat manual, "TextGrid file formats", with other numbers.
    assert textgrid(2.3, {"words": [Interval(0.5, 1.25, 'a "b"')]}) == (
        'File type = "ooTextFile"\nObject class = "TextGrid"\n\nxmin = 0 \nxmax = 2.3 \n'
        "tiers? <exists> \nsize = 1 \nitem []: \n    item [1]:\n"
        '        class = "IntervalTier" \n        name = "words" \n        xmin = 0 \n'
        "        xmax = 2.3 \n        intervals: size = 3 \n"
        "        intervals [1]:\n            xmin = 0 \n            xmax = 0.5 \n"
        '            text = "" \n'
        "        intervals [2]:\n            xmin = 0.5 \n            xmax = 1.25 \n"
        '            text = "a ""b""" \n'
        "        intervals [3]:\n            xmin = 1.25 \n            xmax = 2.3 \n"
        '            text = "" \n'
    )


def test_read_back_with_silences_between() -> None:
    words = [Interval(0.0, 0.4, 'say "é"'), Interval(0.4, 1.0, "二"), Interval(3599.98, 3600, '"')]
    grid = read_textgrid(textgrid(3600.0, {'w"s': words, "none": []}))
    assert grid.duration == 3600
    assert grid.tiers == {
        'w"s': [*map(tuple, words[:2]), (1.0, 3599.98, ""), tuple(words[2])],
        "none": [(0, 3600, "")],
    }


@pytest.mark.parametrize(
    "intervals",
    [
        pytest.param([Interval(0.5, 0.5, "a")], id="no length"),
        pytest.param([Interval(0.5, 0.7, "b"), Interval(0.6, 0.8, "a")], id="overlap"),
        pytest.param([Interval(0.5, 1.1, "a")], id="beyond the end"),
        pytest.param([Interval(-0.1, 0.1, "a")], id="before the start"),
    ],
)
def test_intervals_that_praat_would_refuse(intervals: list[Interval]) -> None:
    with pytest.raises(ValueError, match=r"tier words: 'a' from .* s, expected a length, and with"):
        textgrid(1.0, {"words": intervals})
