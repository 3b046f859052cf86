"""The page: what it says, that it needs nothing, and that data cannot become markup."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from asr.metrics.error_rate import score_utterance
from asr.report import EvaluatedUtterance, Evaluation, ModelDescription
from asr.report.page import render_page
from asr.report.section import embed_json

VOID = {"br", "input", "meta"}


class Reader(HTMLParser):
    """Tags with the names of their attributes, the texts between, and whether tags match."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.structure, self.open, self.texts, self.raw, self.attributes = [], [], [], {}, []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.structure.append((tag, tuple(name for name, _ in attrs)))
        self.attributes.extend((tag, *pair) for pair in attrs)
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("script", "style"):
            self.raw[tag, dict(attrs).get("type")] = ""

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        self.structure.append((f"/{tag}", ()))

    def handle_comment(self, data):
        raise AssertionError(f"comment {data!r}")

    def handle_data(self, data):
        if self.open and self.open[-1] in ("script", "style"):
            self.raw[list(self.raw)[-1]] += data
        else:
            self.texts.append(data)

    @property
    def text(self):
        return "".join(self.texts)


@pytest.fixture
def plain(make_evaluation):
    return render_page(make_evaluation())


def test_says_what_was_counted(plain):
    text = Reader(plain).text
    assert "57.14\u202f%" in text
    assert "Against 7 reference words, 4 errors: " in text
    assert "33.3\u202f%" in text  # one of three utterances is entirely right
    assert "4 times as fast as speech" in text
    assert "1,234,567" in text
    assert "(none given)" in text
    assert "∞" in text


def test_needs_nothing_from_elsewhere(plain):
    reader = Reader(plain)
    policy = next(
        value for tag, name, value in reader.attributes if (tag, name) == ("meta", "content")
    )
    assert policy.startswith("default-src 'none';")
    without = plain.replace("http-equiv", "")
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


HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</script><!--<script>",
    "' onload='x",
    "a\u2028b\u2029c",
    "\x1b[31m\x00\u202e",
    "&lt;b&gt;",
    "]]>--><svg/onload=x>",
    "\ud800",
]


@pytest.mark.parametrize("payload", HOSTILE)
def test_data_never_becomes_markup(make_evaluation, plain, payload):
    word = "/".join(payload.split())
    hostile = render_page(make_evaluation(text=payload, word=word))
    assert Reader(hostile).structure == Reader(plain).structure
    assert hostile.encode("utf-8")
    assert not {"\x1b", "\x00", "\u202e", "\u2028", "\u2029"} & set(hostile)


@pytest.mark.parametrize("payload", HOSTILE)
def test_embedded_data_is_what_was_given(make_evaluation, payload):
    embedded = embed_json({payload: [payload]})
    assert not set("<>&\u2028\u2029\ud800") & set(embedded)
    assert json.loads(embedded) == {payload: [payload]}
    reader = Reader(render_page(make_evaluation(text=payload)))
    data = json.loads(reader.raw["script", "application/json"])
    assert len(data["utterances"]) == 3
    assert data["speakers"][1] == "(none given)"
    # the, cat, plain1, on, mats against the, plain2, on, big, mats
    steps = data["utterances"][0][-1]
    assert " ".join(step[0] for step in steps if step[0]) == "the cat plain1 on mats"
    assert " ".join(step[-1] for step in steps if step[-1]) == "the plain2 on big mats"


def test_without_errors_speakers_or_real_time_factor():
    right = EvaluatedUtterance("1", None, 0.0, "1.wav", score_utterance("1", "a", "a"))
    page = render_page(Evaluation("t", ModelDescription("m", 0), "f", None, (right,)))
    text = Reader(page).text
    assert "Against 1 reference word, no error." in text
    assert "Every utterance is entirely right." in text
    assert "Real-time factor" not in text
    assert not re.search(r"\b(nan|inf)\b", text)
