"""The page in a real browser: speak, drop, correct, download; with keys, and without a mouse."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from asr.transcriber import Transcriber
from tests.chromium import launched
from tests.cli.conftest import RATE, tones
from tests.serve.running import Running, running

pytestmark = pytest.mark.browser

WIDTHS = (360, 768, 1440)  # [CSS px]
KEY = "a-key-of-the-page/with+signs"
Open = Callable[..., Any]


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording that says `c a`, a pause, `b`, with silence around it."""
    path = tmp_path_factory.mktemp("said") / "two parts.wav"
    pause = np.zeros(int(1.5 * RATE), np.float32)
    soundfile.write(path, np.concatenate([pause, tones("c a"), pause, tones("b"), pause]), RATE)
    return path


@pytest.fixture(scope="module")
def browser(said: Path) -> Iterator[Any]:
    """One whose microphone hears the recording, once."""
    with launched(
        "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={said}%noloop",
        "--autoplay-policy=no-user-gesture-required",
    ) as found:  # fmt: skip
        yield found


@pytest.fixture
def opened(browser: Any) -> Iterator[Open]:
    """A function that opens the page of a server, and fails on errors and foreign requests."""
    contexts, complaints = [], []

    def open_page(server: Running, **options: Any) -> Any:
        context = browser.new_context(permissions=["microphone"], **options)
        contexts.append(context)
        page = context.new_page()
        own = f"127.0.0.1:{server.port}/"
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complain(message.text))
        page.on("request", lambda request: note(request.url, own))
        page.goto(f"http://{own}")
        page.wait_for_selector("#model:not(:empty)")
        return page

    def complain(text: str) -> None:
        if not text.startswith("Failed to load resource"):  # what the server refused
            complaints.append(text)

    def note(url: str, own: str) -> None:
        if own not in url and not url.startswith(("blob:", "data:")):
            complaints.append(url)

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def until(page: Any, script: str) -> None:
    """Wait until a script says true; the page's policy lets nothing in it wait."""
    for _ in range(300):
        if page.evaluate(script):
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"{script}: {page.inner_text('body')}")


def words(page: Any, article: str = "article") -> list[str]:
    """The text of each segment of the newest recording."""
    return [
        " ".join(each.all_inner_texts())
        for each in (
            segment.locator(".word") for segment in page.locator(f"{article} .segment").all()
        )
    ]


def dropped(page: Any, path: Path) -> Any:
    """Drop a file on the page, and wait for its words."""
    content = list(path.read_bytes())
    transfer = page.evaluate_handle(
        """([content, name]) => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([new Uint8Array(content)], name, {type: "audio/wav"}));
          return transfer;
        }""",
        [content, path.name],
    )
    page.dispatch_event("body", "dragenter", {"dataTransfer": transfer})
    assert page.is_visible("#drop")
    page.dispatch_event("body", "drop", {"dataTransfer": transfer})
    assert page.is_hidden("#drop")
    page.wait_for_selector("article .downloads:not([hidden])")
    return page.locator("article").first


def downloaded(page: Any, article: Any, button: str) -> tuple[str, str]:
    with page.expect_download() as waited:
        article.get_by_role("button", name=button, exact=True).click()
    return waited.value.suggested_filename, Path(waited.value.path()).read_text()


def test_what_is_spoken_is_read(opened: Open, server: Running, tone_model: Path) -> None:
    """The page reads what the program makes of the very samples that it takes along."""
    page = opened(server)
    page.click("#speak")
    page.wait_for_selector("#speak[aria-pressed=true]")
    until(page, "document.querySelectorAll('.segment:not(.coming)').length >= 2")
    assert page.is_visible(".player.live canvas")
    page.click("#speak")
    page.wait_for_selector("article .downloads:not([hidden])")
    article = page.locator("article").first
    name, _ = downloaded(page, article, "SRT")
    assert name.startswith("spoken ")
    assert name.endswith(".srt")
    with page.expect_download() as waited:
        article.get_by_role("button", name="WAV").click()
    samples, rate = soundfile.read(waited.value.path(), dtype="int16")
    assert len(samples) / rate > 3
    stream = Transcriber.load(tone_model, "cpu").stream(rate)
    found = [each.text for each in (*stream.push(samples), *stream.finish())]
    assert words(page) == found
    assert found[-2:] == ["c a", "b"]


def test_a_file_is_dropped_corrected_and_taken_along(
    opened: Open, server: Running, said: Path
) -> None:
    page = opened(server)
    article = dropped(page, said)
    assert words(page) == ["c a", "b"]
    page.locator(".word", has_text="a").click()
    assert article.locator(".about").inner_text().startswith("a · ")
    until(page, "document.querySelector('article').recording.audio.currentTime > 1.5")
    page.keyboard.press("Enter")
    page.keyboard.type("zwei Worte")
    page.keyboard.press("Enter")  # on to the next
    assert words(page) == ["c zwei Worte", "b"]
    assert page.evaluate("document.activeElement.textContent") == "b"
    page.keyboard.press("Delete")
    assert words(page) == ["c zwei Worte"]
    page.keyboard.press("Control+z")
    assert words(page) == ["c zwei Worte", "b"]
    name, text = downloaded(page, article, "SRT")
    assert name == "two parts.srt"
    assert "c zwei Worte" in text
    name, text = downloaded(page, article, "VTT")
    assert text.startswith("WEBVTT")
    name, text = downloaded(page, article, "JSON")
    found = json.loads(text)
    assert found["text"] == "c zwei Worte b"
    assert [each["word"] for each in found["words"]] == ["c", "zwei", "Worte", "b"]
    starts = [each["start"] for each in found["words"]]
    assert starts == sorted(starts)
    name, text = downloaded(page, article, "Manifest")
    assert name == "two parts.jsonl"
    rows = [json.loads(line) for line in text.splitlines()]
    assert [row["text"] for row in rows] == ["c zwei Worte", "b"]
    assert {row["audio_filepath"] for row in rows} == {"two parts.wav"}
    assert rows[0]["offset"] + rows[0]["duration"] <= rows[1]["offset"]


def test_keys_alone_go_everywhere(opened: Open, server: Running, said: Path) -> None:
    page = opened(server)
    dropped(page, said)
    page.locator(".word").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("F2")
    page.keyboard.type("x")
    page.keyboard.press("Escape")
    assert words(page) == ["c a", "b"]
    page.keyboard.press("End")
    assert page.evaluate("document.activeElement.textContent") == "b"
    page.keyboard.press("Home")
    page.keyboard.press(" ")
    page.wait_for_selector(".play.playing")
    page.keyboard.press(" ")
    page.wait_for_selector(".play:not(.playing)")
    names = page.eval_on_selector_all(
        "button, input, [role=button]",
        """all => all.filter(each => each.checkVisibility())
          .filter(each => !(each.ariaLabel || each.textContent.trim() || each.labels?.length))
          .map(each => each.outerHTML)""",
    )
    assert names == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_and_can_be_read(opened: Open, server: Running, said: Path, scheme: str) -> None:
    page = opened(server, color_scheme=scheme)
    dropped(page, said)
    page.locator(".word").first.click()
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(20, 22, 25)") == (scheme == "dark")


def test_what_is_no_audio_is_told(opened: Open, server: Running, tmp_path: Path) -> None:
    page = opened(server)
    page.set_input_files("#files", {"name": "a.wav", "mimeType": "audio/wav", "buffer": b"none"})
    page.wait_for_selector("article .state.trouble")
    assert "expected" in page.inner_text("article .state")
    page.click("article .close")
    assert page.locator("article").count() == 0


def test_a_key_is_asked_for(browser: Any, tone_model: Path, tmp_path: Path, said: Path) -> None:
    with running(tone_model, tmp_path / "log.txt", key=KEY) as guarded:
        context = browser.new_context(permissions=["microphone"])
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{guarded.port}/")
        page.wait_for_selector("#ask[open]")
        for key in ("a-key-that-is-no-key", KEY):
            page.fill("#key", key)
            page.press("#key", "Enter")
        page.wait_for_selector("#model:not(:empty)")
        dropped(page, said)
        assert words(page) == ["c a", "b"]
        page.click("#speak")
        until(page, "document.querySelectorAll('.segment').length > 2")
        page.click("#speak")
        until(page, "document.querySelectorAll('.downloads:not([hidden])').length === 2")
        assert words(page, "article:first-child")[0]
        context.close()
    assert KEY not in (tmp_path / "log.txt").read_text()
