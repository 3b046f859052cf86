"""Pages in a real browser: lists, players and colours work, nothing is fetched, no data runs."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from asr.metrics.error_rate import score_utterance
from asr.report.clips import Clips, CtcPath, make_clip
from asr.report.comparison import compare_evaluations
from asr.report.evaluation import EvaluatedUtterance, Evaluation, ModelDescription
from asr.report.html import render_comparison, render_evaluation
from asr.word import Character
from tests.chromium import launched
from tests.report.reading import PAYLOADS

pytestmark = pytest.mark.browser

WIDTHS = (360, 768, 1440)  # [CSS px]


@pytest.fixture(scope="module")
def chromium():
    with launched("--autoplay-policy=no-user-gesture-required") as browser:
        yield browser


@pytest.fixture
def opened(chromium, tmp_path):
    """A function that opens a page's source from a file, and fails on errors and requests."""
    contexts, complaints = [], []

    def open_page(source, name="report.html", address="", **options):
        path = tmp_path / name
        path.write_text(source, encoding="utf-8", newline="\n")
        context = chromium.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: note_request(request.url))
        page.goto(path.as_uri() + address)
        return page

    def note_request(url):
        if not url.startswith(("file:", "data:")):
            complaints.append(url)

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def make_evaluation(texts, **changes):
    """An utterance of one second each pair of texts; the last is of another speaker."""
    utterances = [
        EvaluatedUtterance(
            f"u{place}", "s2" if place == len(texts) - 1 else "s1", 1.0, f"{place}.wav",
            score_utterance(f"u{place}", *text),
        )
        for place, text in enumerate(texts)
    ]  # fmt: skip
    evaluation = Evaluation("t", ModelDescription("m", 1), "f", None, tuple(utterances))
    return replace(evaluation, **changes)


@pytest.fixture
def evaluation():
    """Sixty: word 0 to 59, every third one with a substitution, number 4 with a deletion."""
    texts = [
        (f"word{place} other", f"word{place} {'odd' if place % 3 == 0 else 'other'}")
        for place in range(60)
    ]
    texts[4] = ("word4 other", "word4")
    return make_evaluation(texts)


def make_clips(evaluation, ids):
    sample_rate, seconds = 16_000, 2.0
    phase = 2 * np.pi * 330 * np.arange(int(sample_rate * seconds)) / sample_rate
    log_mel = np.add.outer(np.arange(200.0), np.arange(80.0)).astype(np.float32)
    characters = tuple(
        Character(letter, 0.2 * k, 0.2 * k + 0.1, -0.1) for k, letter in enumerate("word0 odd")
    )
    paths = [CtcPath("reference", (), "too short"), CtcPath("hypothesis", characters)]
    made = (
        make_clip(id, 0.1 * np.sin(phase).astype(np.float32), sample_rate, log_mel, 0.01, paths)
        for id in ids
    )
    return Clips({clip.id: clip for clip in made})


def until(page, expression, limit_s=10):
    """Waits for what holds in the page; playwright's own way of waiting needs eval in the page."""
    end = time.monotonic() + limit_s
    while not page.evaluate(expression):
        assert time.monotonic() < end, expression
        page.wait_for_timeout(20)


def shown(page):
    return page.locator("table.list tbody th bdi").all_inner_texts()


def test_list_sorts_and_filters(opened, evaluation):
    page = opened(render_evaluation(evaluation))
    wrong = sorted([*range(0, 60, 3), 4])
    right = [place for place in range(60) if place not in wrong]
    assert shown(page) == [f"u{place}" for place in (wrong + right)[:50]]
    assert page.inner_text("#range") == "1 to 50 of 60 utterances"
    page.click("#next")
    assert shown(page) == [f"u{place}" for place in (wrong + right)[50:]]
    page.click("[data-key=id]")
    assert shown(page)[:3] == ["u0", "u1", "u2"]
    assert page.get_attribute("th[aria-sort]", "aria-sort") == "ascending"
    page.click("[data-key=id]")
    assert shown(page)[:3] == ["u59", "u58", "u57"]
    page.fill("#search", "Word7 Other")
    assert shown(page) == ["u7"]
    page.fill("#search", "")
    page.select_option("#speaker", label="s2")
    assert shown(page) == ["u59"]
    page.select_option("#speaker", "")
    for kind, count in (("wrong", 21), ("right", 39), ("sub", 20), ("del", 1), ("ins", 0)):
        page.select_option("#kind", kind)
        told = page.inner_text("#range")
        assert told.endswith(f"of {count} utterances") or count < 2, kind
        assert len(shown(page)) == count
    page.click("#clear")
    page.fill("#low", "50")
    assert len(shown(page)) == 21
    page.fill("#high", "49")
    assert page.inner_text("#range") == "No utterance matches"


def test_links_filter(opened, evaluation):
    page = opened(render_evaluation(replace(evaluation, slice_by=("speaker",))))
    page.click("#confusions a[data-reference=other][data-hypothesis=odd]")
    assert len(shown(page)) == 20
    assert page.inner_text("#pair") == "other → odd ✕"
    page.click("#pair")
    assert page.is_hidden("#pair")
    page.click("#slices a[data-speaker=s2]")
    assert shown(page) == ["u59"]


def test_keyboard_alone(opened, evaluation):
    page = opened(render_evaluation(evaluation, make_clips(evaluation, ["u0"])))
    page.keyboard.press("/")
    page.keyboard.type("word1")
    assert shown(page)[:2] == ["u12", "u15"]
    page.focus("button.open >> nth=0")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.innerText").strip() == "u15"
    page.keyboard.press("Enter")
    assert page.get_attribute("button.open:focus", "aria-expanded") == "true"
    alignment = page.inner_text("#detail-15 .alignment").split()
    assert alignment == ["word15", "word15", "other", "odd", "S", "ubstituted"]
    page.keyboard.press("Enter")
    assert page.locator("#detail-15").count() == 0
    page.focus("#worst [role=slider] >> nth=0")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    assert page.get_attribute("[role=slider]", "aria-valuenow") == "0.30"
    page.keyboard.press("Home")
    assert page.get_attribute("[role=slider]", "aria-valuetext") == "0.00 seconds"


def test_player_plays_and_seeks(opened, evaluation):
    page = opened(render_evaluation(evaluation, make_clips(evaluation, ["u0", "u3"])))
    player = page.locator("#worst .player").first
    stage = player.locator(".stage")
    player.locator(".play").click()
    until(page, "document.querySelector('[role=slider]').ariaValueNow > 0.2")
    assert player.locator(".play").inner_text() == "❚❚ Pause"
    moved = player.locator(".head").evaluate("each => new DOMMatrix(each.style.transform).e")
    assert moved > 0
    player.locator(".play").click()
    assert player.locator(".play").inner_text() == "▶ Play"
    box = stage.bounding_box()
    stage.click(position={"x": box["width"] / 2, "y": 40})
    assert float(stage.get_attribute("aria-valuenow")) == pytest.approx(1.0, abs=0.02)
    assert "no path of the reference: too short" in stage.inner_text()
    letters = stage.locator(".path text").all_text_contents()
    assert "".join(letters) == "word0·odd"
    assert stage.locator(".path text.sub").count() == 3
    # The picture's loudest corner differs from its quietest, and colours change with the theme.
    pixels = "each => [...each.getContext('2d').getImageData(0, 79, 1, 1).data]"
    light = stage.locator("canvas").evaluate(pixels)
    page.click("#theme")
    assert stage.locator("canvas").evaluate(pixels) != light


def test_one_player_at_a_time_and_none_that_left(opened, evaluation):
    page = opened(render_evaluation(evaluation, make_clips(evaluation, ["u0", "u3"])))
    first, second = (page.locator("#worst .player .play").nth(place) for place in (0, 1))
    first.click()
    until(page, "document.querySelector('[role=slider]').ariaValueNow > 0.1")
    second.click()
    until(page, "document.querySelectorAll('.play')[1].innerText.includes('Pause')")
    assert first.inner_text() == "▶ Play"
    page.check("#audible")
    assert shown(page) == ["u0", "u3"]
    page.click("button.open >> nth=0")
    page.click(".detail .play")
    until(page, "[...players].filter((each) => !each.audio.paused).length === 1")
    page.fill("#search", "nothing of that")
    until(page, "players.size === 2 && [...players].every((each) => each.audio.paused)")


def test_theme_follows_the_system_and_the_switch(opened, evaluation):
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = opened(render_evaluation(evaluation), color_scheme="dark")
    light = opened(render_evaluation(evaluation), color_scheme="light")
    assert dark.evaluate(ground) != light.evaluate(ground)
    assert light.inner_text("#theme") == "Dark colours"
    light.click("#theme")
    assert light.evaluate(ground) == dark.evaluate(ground)
    assert light.inner_text("#theme") == "Light colours"
    light.emulate_media(media="print")
    assert light.evaluate(ground) == "rgb(252, 252, 250)"
    assert light.is_hidden("#utterances")


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_sticks_out(opened, evaluation, width):
    page = opened(
        render_evaluation(replace(evaluation, slice_by=("speaker", "duration")),
                    make_clips(evaluation, ["u0"])),
        viewport={"width": width, "height": 800},
    )  # fmt: skip
    page.click("button.open >> nth=0")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_named_utterance_is_opened(opened, evaluation):
    page = opened(render_evaluation(evaluation), address="#utt=u58")
    assert page.get_attribute("button.open:focus", "aria-expanded") == "true"
    assert page.is_visible("#detail-58")
    page.evaluate("location.hash = '#utt=u2'")
    page.wait_for_selector("#detail-2")


def test_comparison(opened, evaluation):
    better = [
        replace(each, errors=score_utterance(each.id, *[each.errors.reference] * 2))
        if place in (3, 6)
        else each
        for place, each in enumerate(evaluation.utterances)
    ]
    worse = score_utterance("u1", evaluation.utterances[1].errors.reference, "")
    better[1] = replace(better[1], errors=worse)
    other = replace(evaluation, utterances=tuple(better))
    comparison = compare_evaluations([("old", evaluation), ("new", other)])
    opened(render_evaluation(other), name="new report.html")
    page = opened(render_comparison(comparison, [None, "new%20report.html"]), name="compare.html")
    assert shown(page)[:2] == ["u3", "u6"]  # what got better comes first
    page.click("[data-key=difference]")
    assert shown(page)[0] == "u1"
    page.select_option("#choice", "better")
    assert shown(page) == ["u3", "u6"]
    page.click("button.open >> nth=0")
    alignments = page.locator("#detail-3 .alignment").all_inner_texts()
    assert [text.split()[-1] for text in alignments] == ["ubstituted", "other"]
    page.click("#detail-3 a")
    assert page.is_visible("#detail-3 .path")
    assert page.url.endswith("/new%20report.html#utt=u3")


def test_no_payload_acts(opened, tmp_path):
    """Without the policy, which would stop scripts by itself, and with every detail open."""
    texts = [("a b", f"a {'/'.join(payload.split())}") for payload in PAYLOADS]
    evaluation = make_evaluation(texts)
    source = render_evaluation(evaluation).replace("Content-Security-Policy", "no-policy")
    page = opened(source)
    dialogs = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    before = page.evaluate("document.querySelectorAll('script, style, img, iframe, a').length")
    for button in page.locator("button.open").all():
        button.click()
    assert page.locator("tr.detail").count() == len(PAYLOADS)
    after = page.evaluate("document.querySelectorAll('script, style, img, iframe, a').length")
    assert (dialogs, after - before) == ([], 0)


def test_only_its_own_script_runs(chromium, tmp_path, evaluation):
    foreign = "<script>document.title = 'attacked'</script><img src=x onerror=\"title='attacked'\">"
    path = tmp_path / "report.html"
    path.write_text(render_evaluation(evaluation).replace("</body>", f"{foreign}</body>"), "utf-8")
    page = chromium.new_page()
    page.goto(path.as_uri())
    assert page.title() == "17.50\u202f% WER, t"
    assert page.is_visible("#browser")  # its own did run
    page.close()


def test_ten_thousand_utterances(opened, capsys):
    generator = np.random.default_rng(5)
    words = [f"word{place}" for place in range(500)]
    texts = []
    for _ in range(200):
        said = generator.choice(words, 18)
        heard = np.where(generator.random(18) < 0.1, "odd", said)
        texts.append((" ".join(said), " ".join(heard)))
    few = make_evaluation(texts)
    many = tuple(
        replace(each, id=f"{lap}-{each.id}", errors=replace(each.errors, id=f"{lap}-{each.id}"))
        for lap in range(50)
        for each in few.utterances
    )
    source = render_evaluation(replace(few, utterances=many))
    start = time.perf_counter()
    page = opened(source)
    page.wait_for_selector("#browser")
    spent = {"open": time.perf_counter() - start}
    actions = {
        "search": "part('search').value = 'word7'; list.select()",
        "clear": "part('clear').click()",
        "sort by id": "document.querySelector('[data-key=id]').click()",
        "sort by text": "document.querySelector('[data-key=text]').click()",
        "sort by WER": "document.querySelector('[data-key=rate]').click()",
        "next page": "part('next').click()",
        "open one": "document.querySelector('button.open').click()",
    }
    for name, action in actions.items():
        # Until the browser has laid out what the action changed.
        measured = f"(() => {{ const start = performance.now(); {action}; " \
            "document.body.offsetHeight; return performance.now() - start; })()"  # fmt: skip
        spent[name] = page.evaluate(measured) / 1000
    with capsys.disabled():
        told = ", ".join(f"{name} {1000 * seconds:.0f} ms" for name, seconds in spent.items())
        print(f"\n10,000 utterances, {len(source.encode()) / 1e6:.1f} MB: {told}")
    assert page.inner_text("#range") == "51 to 100 of 10,000 utterances"
    assert page.locator("tbody tr.utterance").count() == 50
