"""The page of a comparison: what it says, that it needs nothing, that data stay text."""

import json
import re
from dataclasses import replace

import pytest

from asr.metrics.error_rate import score_utterance
from asr.report.compare_page import render_comparison
from asr.report.comparison import compare_evaluations
from tests.report.reading import PAYLOADS, Reader


@pytest.fixture
def make_page(make_evaluation):
    """A function of the names; A has 4 errors in 7 words, B has 1, C has the same as A."""

    def make(*names, pages=None):
        first = make_evaluation()
        good = tuple(
            replace(each, errors=score_utterance(each.id, each.errors.reference, heard))
            for each, heard in zip(
                first.utterances, ("the cat plain1 on", "all right", ""), strict=True
            )
        )
        better = replace(first, utterances=good, settings={"beam": 50})
        evaluations = (first, better, first)
        named = list(zip(names, evaluations[: len(names)], strict=True))
        return render_comparison(compare_evaluations(named), pages or [None] * len(names))

    return make


def test_says_by_how_much(make_page):
    text = Reader(make_page("old", "new")).text
    assert "new against old" in text
    assert "\u221242.86\u202fpoints" in text  # (1 - 4) / 7
    assert "\u221275.0\u202f% of it" in text
    assert "2 utterances better in B, 0 worse" in text
    assert "B is better, but the test is coarse with fewer than 50 segments." in text
    assert "57.14\u202f%" in text
    assert "14.29\u202f%" in text
    assert "beam" in text  # a setting that differs


def test_nothing_to_test_where_nothing_differs(make_page):
    text = Reader(make_page("a", "b", "c")).text
    assert "±0.00\u202fpoints" in text
    assert "Every utterance has as many errors in B as in A." in text
    assert "c against a" in text
    assert "Holm" in text


def test_links_lead_to_the_systems_own_pages(make_page):
    reader = Reader(make_page("old", "new", pages=["../old/report.html", None]))
    links = [value for _, name, value in reader.attributes if name == "href"]
    assert links.count("../old/report.html") == 1
    assert all(link.startswith(("#", "../old/")) for link in links)
    systems = json.loads(reader.raw["script", "application/json"])["systems"]
    assert systems == [{"name": "old", "page": "../old/report.html"}, {"name": "new", "page": None}]
    with pytest.raises(ValueError, match="pages: got 1, expected 2"):
        make_page("old", "new", pages=[None])


def test_needs_nothing_from_elsewhere(make_page):
    page = make_page("old", "new")
    without = page.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")
    assert re.search(r"http|//[a-z]|url\((?!#)|@import|@font-face|\bfetch\(", without) is None
    reader = Reader(page)
    ids = [value for _, name, value in reader.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    links = [value[1:] for _, name, value in reader.attributes if name == "href"]
    assert set(links) <= set(ids)


@pytest.mark.parametrize("payload", PAYLOADS)
def test_names_stay_text(make_page, payload):
    assert Reader(make_page("old", payload)).structure == Reader(make_page("old", "x")).structure
