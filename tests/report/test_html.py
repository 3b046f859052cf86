"""Pages: what they say, that they need nothing, and that data cannot become markup."""

import base64
import hashlib
import json
import math
import re
from dataclasses import replace
from itertools import pairwise

import jinja2
import numpy as np
import pytest

from asr.metrics.error_rate import score_utterance
from asr.report.clips import Clips, CtcPath, make_clip
from asr.report.comparison import compare_evaluations
from asr.report.evaluation import EvaluatedUtterance, Evaluation, ModelDescription
from asr.report.html import embed_json, environment, render_comparison, render_evaluation
from asr.word import Character, Word
from tests.report.reading import PAYLOADS, Reader


def test_templates_escape_and_show_what_acts_and_miss_nothing():
    template = environment().from_string('<p class="{{ x }}">{{ x }}{{ y }}{{ 3 }}</p>')
    made = template.render(x="\"><i>'&\x1b", y=environment().from_string("{{ x }}").render(x="<"))
    shown = "&#34;&gt;&lt;i&gt;&#39;&amp;␛"
    assert made == f'<p class="{shown}">{shown}&amp;lt;3</p>'
    with pytest.raises(jinja2.UndefinedError, match="'z' is undefined"):
        environment().from_string("{{ z }}").render()


@pytest.fixture
def plain(make_evaluation):
    return render_evaluation(make_evaluation())


def test_says_what_was_counted(plain):
    text = Reader(plain).text
    assert "57.14\u202f%" in text
    assert "Against 7 reference words, 4 errors: " in text
    assert "33.3\u202f%" in text  # one of three utterances is entirely right
    assert "4 times as fast as speech" in text
    assert "resampled by utterance (3)" in text  # one speaker and an unknown one
    assert "1,234,567" in text
    assert "(none given)" in text
    assert "∞" in text


def test_needs_nothing_from_elsewhere(plain):
    reader = Reader(plain)
    policy = next(
        value for tag, name, value in reader.attributes if (tag, name) == ("meta", "content")
    )
    assert policy.startswith("default-src 'none';")
    # The name of SVG is an address that nothing asks for.
    without = plain.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")
    assert re.search(r"http|//[a-z]|url\((?!#)|@import|@font-face|\bfetch\(", without) is None
    links = [value for _, name, value in reader.attributes if name in ("href", "src", "action")]
    assert links
    assert all(link.startswith("#") for link in links)
    ids = [value for _, name, value in reader.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in links} <= set(ids)
    assert not any(name == "style" or name.startswith("on") for _, name, _ in reader.attributes)


def test_policy_allows_this_style_and_script_only(plain):
    reader = Reader(plain)
    policy = next(
        value for tag, name, value in reader.attributes if (tag, name) == ("meta", "content")
    )
    assert "img-src data:; media-src data:;" in policy
    for kind in ("style", "script"):
        digest = hashlib.sha256(reader.raw[kind, None].encode()).digest()
        assert f"{kind}-src 'sha256-{base64.b64encode(digest).decode()}';" in policy
    assert "unsafe" not in policy
    script = reader.raw["script", None]
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", script)


def test_accessible(plain):
    reader = Reader(plain)
    levels = [int(tag[1]) for tag, _ in reader.structure if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert all("scope" in names for tag, names in reader.structure if tag == "th")
    tables = [tag for tag, _ in reader.structure if tag in ("table", "caption")]
    assert tables == ["table", "caption"] * (len(tables) // 2)


@pytest.mark.parametrize("payload", PAYLOADS)
def test_data_never_becomes_markup(make_evaluation, plain, payload):
    word = "/".join(payload.split())
    hostile = render_evaluation(make_evaluation(text=payload, word=word))
    assert Reader(hostile).structure == Reader(plain).structure
    assert hostile.encode("utf-8")
    assert not {"\x1b", "\x00", "\u202e", "\u2028", "\u2029"} & set(hostile)


@pytest.mark.parametrize("payload", PAYLOADS)
def test_embedded_data_is_what_was_given(make_evaluation, payload):
    embedded = embed_json({payload: [payload]})
    assert not set("<>&\u2028\u2029\ud800") & set(embedded)
    assert json.loads(embedded) == {payload: [payload]}
    reader = Reader(render_evaluation(make_evaluation(text=payload)))
    data = json.loads(reader.raw["script", "application/json"])
    assert len(data["utterances"]) == 3
    assert data["speakers"][1] == "(none given)"
    # the, cat, plain1, on, mats against the, plain2, on, big, mats
    steps = data["utterances"][0][-1]
    assert " ".join(step[0] for step in steps if step[0]) == "the cat plain1 on mats"
    assert " ".join(step[-1] for step in steps if step[-1]) == "the plain2 on big mats"


def test_slices_and_confidence(make_evaluation):
    made = make_evaluation()
    utterances = tuple(
        replace(
            each,
            fields={"room": "hall"} if place == 0 else {},
            snr_db=10.0 * place,
            words=tuple(Word(word, 0.0, 1.0, 0.75) for word in each.errors.hypothesis.split()),
        )
        for place, each in enumerate(made.utterances)
    )
    evaluation = replace(
        made, utterances=utterances, slice_by=("room", "snr"), text_rules=("lower case", "NFKC")
    )
    reader = Reader(render_evaluation(evaluation))
    assert "By field room" in reader.text
    assert "By signal-to-noise ratio" in reader.text
    assert "hall" in reader.text
    assert "went through the same rules: lower case; NFKC." in reader.text
    # Right are the, mats, all, right; wrong are plain2, on, big (one further on) and plain3.
    assert "0.7 to 0.880.75050.0\u202f%" in reader.text  # 8 words, their mean, half of them right
    assert "Expected calibration error 0.250, 8 words." in reader.text
    data = json.loads(reader.raw["script", "application/json"])
    assert data["fields"] == [{"name": "room", "values": ["hall"]}]
    assert [row[4:6] for row in data["utterances"]] == [[0.0, [0]], [10.0, [None]], [20.0, [None]]]


def test_where_it_fails(plain):
    text = Reader(plain).text
    assert "75\u202f% of the word errors are substitutions." in text
    assert "33.3\u202f% of the utterances hold half of the errors: 1 utterance." in text
    assert "most frequent confusion." not in text  # each came once


def test_what_is_confused_more_than_once_is_told(make_evaluation):
    twice = score_utterance("1", "four and four", "for and for")
    utterance = EvaluatedUtterance("1", None, 1.0, "", twice)
    text = Reader(render_evaluation(replace(make_evaluation(), utterances=(utterance,)))).text
    assert "2 times the word four was taken for for, the most frequent confusion." in text


def test_clips_are_told_and_embedded(make_evaluation):
    evaluation = make_evaluation()
    path = CtcPath("hypothesis", (Character("<", 0.1, 0.2, math.log(0.5)),))
    clip = make_clip(
        evaluation.utterances[0].id, np.zeros(800, np.float32), 16_000,
        np.zeros((5, 8), np.float32), 0.01, [path],
    )  # fmt: skip
    reader = Reader(render_evaluation(evaluation, Clips({clip.id: clip}, 2)))
    assert re.search(
        r"sound and pictures of 1, 0\.00\u202fMB, 2 more left out for the bound", reader.text
    )
    data = json.loads(reader.raw["script", "application/json"])
    assert list(data["clips"]) == ["0"]
    assert data["clips"]["0"]["paths"][0]["characters"] == [["<", 0.1, 0.2, 0.5]]
    assert ("div", "data-clip", "0") in reader.attributes


def test_without_errors_speakers_or_real_time_factor():
    right = EvaluatedUtterance("1", None, 0.0, "1.wav", score_utterance("1", "a", "a"))
    page = render_evaluation(Evaluation("t", ModelDescription("m", 0), "f", None, (right,)))
    text = Reader(page).text
    assert "Against 1 reference word, no error." in text
    assert "Every utterance is entirely right." in text
    assert "Real-time factor" not in text
    assert not re.search(r"\b(nan|inf)\b", text)


# --- a comparison --------------------------------------------------------------------------------


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


def test_comparison_says_by_how_much(make_page):
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


def test_comparison_needs_nothing_from_elsewhere(make_page):
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
