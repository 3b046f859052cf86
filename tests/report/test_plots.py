"""Charts: shapes are where the numbers say, and intervals that go on are marked."""

import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from asr.metrics.calibration import reliability
from asr.metrics.error_rate import ErrorCounts, score_utterance
from asr.metrics.interval import Interval
from asr.report import plots
from asr.report.evaluation import Slice, Slices


def read(source):
    """The root of an SVG, and its paths by class as lists of lines, each a list of points."""
    root = ElementTree.fromstring(source)
    paths = {}
    for path in root.iter("path"):
        lines = path.get("d").split("M")[1:]
        points = [re.findall(r"(-?[\d.]+) (-?[\d.]+)", line) for line in lines]
        paths[path.get("class")] = [[(float(x), float(y)) for x, y in line] for line in points]
    return root, paths


def interval(low, high):
    return Interval(low, high, 0.95, "utterance", 10)


def texts(root, class_):
    return [each.text for each in root.iter("text") if each.get("class") == class_]


def slice_of(utterance, low, rate, high):
    """One bin of 10 words of which `rate` tenths are deleted."""
    said = " ".join("abcdefghij")
    errors = score_utterance(utterance.id, said, said[2 * rate :])
    made = Slice(None, low, low + 1, (replace(utterance, errors=errors),) * 2)
    made.__dict__["interval"] = interval(0.0, high)
    return made


@pytest.fixture
def slices(make_evaluation):
    utterance = make_evaluation().utterances[0]
    return Slices(
        "duration", "s", (slice_of(utterance, 1.0, 1, 0.15), slice_of(utterance, 2.0, 2, 0.9))
    )


def test_kinds_share_the_whole_width():
    root, paths = read(plots.stack(ErrorCounts(7, 2, 1, 1)))
    assert root.get("aria-hidden") == "true"
    width = float(root.get("viewBox").split()[2])
    edges = {
        kind: (min(x for x, _ in line), max(x for x, _ in line)) for kind, (line,) in paths.items()
    }
    assert edges == {
        "sub": (0, width / 2),
        "del": (width / 2, 3 * width / 4),
        "ins": (3 * width / 4, width),
    }
    assert list(read(plots.stack(ErrorCounts(7, 0, 0, 0)))[0]) == []


def test_columns_stand_for_rates_and_their_numbers_stand_above_all_whiskers(slices):
    root, paths = read(plots.columns(slices, 0.15, "described"))
    assert (root.get("role"), root.get("aria-label")) == ("img", "described")
    heights = [max(y for _, y in line) - min(y for _, y in line) for line in paths["del"]]
    assert heights[1] == pytest.approx(2 * heights[0], rel=0.01)
    assert texts(root, "value") == ["10.0", "20.0"]
    highest = min(y for line in paths["reach"] for _, y in line)
    values = [each for each in root.iter("text") if each.get("class") == "value"]
    assert all(float(each.get("y")) < highest - 2 for each in values)
    assert texts(root, "label") == ["1\u2009+", "2\u2009+"]
    assert {"utt.", "s", "WER", "2"} <= set(texts(root, "tick"))


def test_an_interval_beyond_the_scale_ends_in_an_arrow(slices):
    _, paths = read(plots.columns(slices, 0.15, ""))
    inside, beyond = paths["reach"][3], paths["reach"][5]  # after the lines, each with two ends
    assert len(inside) == len(beyond) == 3
    assert inside[0][1] == inside[1][1] == inside[2][1]
    assert beyond[0][1] == beyond[2][1] > beyond[1][1]  # its tip is above
    rows = [(ErrorCounts(9, 1, 0, 0), interval(0.0, 0.9)), (ErrorCounts(9, 1, 0, 0), None)]
    root, paths = read(plots.rates(rows, 0.1))
    width = float(root.get("viewBox").split()[2])
    tip = paths["reach"][2]
    assert tip[1][0] == width > tip[0][0] == tip[2][0]


def test_rows_of_rates_are_of_equal_height_and_infinite_ones_are_empty():
    rows = [(ErrorCounts(1, 1, 0, 0), None), (ErrorCounts(0, 0, 0, 3), None)]
    root, paths = read(plots.rates(rows, 0.5))
    assert float(root.get("viewBox").split()[3]) == 64
    assert "ins" not in paths
    (line,) = paths["sub"]
    assert sum(y for _, y in line[:4]) / 4 == pytest.approx(16)
    assert read(plots.rates([(ErrorCounts(1, 0, 0, 0), None)], 0.0))[1].keys() == {"mark"}


def test_reliability_is_where_confidence_and_accuracy_meet():
    root, paths = read(plots.diagram(reliability([0.5] * 4 + [0.95], [True, False] * 2 + [True])))
    (low, high) = ([sum(c) / len(c) for c in zip(*dot[:-1], strict=True)] for dot in paths["dot"])
    assert low == pytest.approx([36 + 120, 18 + 120], abs=1)
    assert high == pytest.approx([36 + 0.95 * 240, 18], abs=1)
    assert "confidence" in texts(root, "tick")


def test_far_differences_share_the_outermost_columns():
    root, paths = read(plots.histogram({-9: 1, -4: 2, 0: 5, 1: 1}))
    assert texts(root, "label")[::2] == ["3", "0", "0", "0", "5", "1", "0", "0", "0"]
    assert texts(root, "label")[1] == "≤\u2009\u22124"
    tops = [min(y for _, y in line) for line in paths["better"] + paths["quantity"]]
    assert tops[0] > tops[-1]


def test_nothing_of_matplotlib_but_shapes_is_taken_over(slices):
    root, _ = read(plots.columns(slices, 0.1, "x"))
    assert {each.tag for each in root} == {"path", "text"}
    names = {name for each in root for name in each.attrib}
    assert names == {"class", "d", "x", "y", "text-anchor"}
    assert plots.columns(slices, 0.1, "x") == plots.columns(slices, 0.1, "x")
