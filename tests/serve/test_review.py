"""What somebody says of recordings is in the manifest at once, and a training learns from it."""

from __future__ import annotations

import io
import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from asr.cli.processes import SAME_PROGRAM
from asr.data.manifest import Utterance, read_manifest
from asr.serve.learning import Learning, Lesson
from asr.serve.refusal import Refusal
from asr.serve.review import Item, Review, Verdict
from asr.transcript import Segment
from asr.word import Word
from tests.chromium import launched
from tests.cli.conftest import RATE, tones
from tests.serve.running import Answer, Running, started, wait_for

TEXTS = ("ab", "c a", "abc", "b c", "cab", "ac")


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """A folder of six recordings."""
    folder = tmp_path / "my 'own' recordings"
    folder.mkdir()
    for number, text in enumerate(TEXTS):
        soundfile.write(folder / f"{number}.wav", tones(text), RATE)
    return folder


def heard(path: Path, *confidences: float) -> Item:
    words = tuple(Word("a", k, k + 0.5, each) for k, each in enumerate(confidences))
    segments = (Segment(0.0, 9.0, words),) if words else ()
    return Item(Utterance(path, "", None, path.name), segments, 1.0)


def test_the_least_sure_comes_first(recordings: Path, tmp_path: Path) -> None:
    files = sorted(recordings.iterdir())
    items = [heard(files[0], 0.9, 0.8), heard(files[1], 0.99, 0.2), heard(files[2])]
    review = Review(items, tmp_path / "out.jsonl", RATE)
    assert [row["name"] for row in review.rows()] == ["2.wav", "1.wav", "0.wav"]


def test_a_verdict_is_in_the_manifest_at_once(recordings: Path, tmp_path: Path) -> None:
    files = sorted(recordings.iterdir())
    output = tmp_path / "out.jsonl"
    review = Review([heard(each, 0.1 * k) for k, each in enumerate(files[:4])], output, RATE)
    assert review.settle(0, Verdict(status="accepted", text=" ab\n")) == "accepted"
    (row,) = read_manifest(output)
    assert (row.text, row.extra["review"]) == ("ab", "accepted")
    assert row.audio_filepath.samefile(files[0])
    assert review.settle(1, Verdict(status="corrected", text="c a")) == "corrected"
    assert review.settle(2, Verdict(status="skipped", text="x")) == "skipped"
    assert review.settle(3, Verdict(status="accepted", text="  ")) == "skipped"
    assert [row.text for row in read_manifest(output)] == ["ab", "c a"]
    review.settle(0, Verdict(status="skipped", text=""))  # somebody thinks again
    assert [row.text for row in read_manifest(output)] == ["c a"]
    with pytest.raises(Refusal, match="recording 7, expected 0 to 3"):
        review.settle(7, Verdict(status="accepted", text="a"))


def test_a_verdict_that_cannot_be_saved_is_none(recordings: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    output.mkdir()
    review = Review([heard(recordings / "0.wav", 0.5)], output, RATE)
    with pytest.raises(OSError, match=r"out\.jsonl"):
        review.settle(0, Verdict(status="accepted", text="ab"))
    assert review.rows()[0]["status"] is None


def test_one_lesson_at_a_time_and_its_failure_is_told() -> None:
    plans = iter([Lesson([["models", "no-such-model"]], lambda: "learnt")])
    learning = Learning(lambda: next(plans), SAME_PROGRAM)
    learning.start()
    with pytest.raises(Refusal, match="a training is under way"):
        learning.start()
    wait_for(lambda: not learning.is_running)
    state = learning.state()
    assert state["told"].startswith("not learnt: ")
    assert "no-such-model" in state["told"]
    assert state["lines"][0] == "$ asr models no-such-model"


def test_what_came_of_a_lesson_is_told() -> None:
    learning = Learning(lambda: Lesson([["--version"]], lambda: "better"), SAME_PROGRAM)
    learning.start()
    wait_for(lambda: not learning.is_running)
    assert learning.state()["told"] == "better"

    def nothing() -> Lesson:
        raise ValueError("too little")

    with pytest.raises(Refusal, match="too little"):
        Learning(nothing, SAME_PROGRAM).start()


@pytest.fixture
def reviewing(recordings: Path, tone_model: Path, tmp_path: Path) -> Iterator[Running]:
    """`asr review` of the recordings."""
    words = ("review", str(recordings), "--model", str(tone_model), "--no-browser")
    with started(words, tmp_path / "log.txt") as server:
        yield server


def put(server: Running, number: int, **verdict: Any) -> Answer:
    body = json.dumps(verdict).encode()
    return server.ask("PUT", f"/v1/review/{number}", body, {"Content-Type": "application/json"})


def test_recordings_are_reviewed_over_http(reviewing: Running, recordings: Path) -> None:
    rows = reviewing.ask("GET", "/v1/review").json
    assert len(rows) == len(TEXTS)
    assert [row["confidence"] for row in rows] == sorted(row["confidence"] for row in rows)
    said = {f"{number}.wav": text for number, text in enumerate(TEXTS)}
    audio = reviewing.ask("GET", f"/v1/review/{rows[0]['id']}/audio")
    samples, rate = soundfile.read(io.BytesIO(audio.content))
    assert len(samples) / rate == pytest.approx(rows[0]["duration"], abs=0.01)
    assert reviewing.ask("POST", "/v1/review/train", b"{}").message == (
        "0 reviewed recordings, expected at least 4"
    )
    for row in rows[:2]:
        answer = put(reviewing, row["id"], status="corrected", text=said[row["name"]])
        assert answer.json == {"status": "corrected"}
    assert put(reviewing, 99, status="accepted", text="a").status == 404
    assert put(reviewing, 0, status="wrong", text="a").message.startswith("status: Input should")
    assert put(reviewing, 0, status="accepted", text="a", path="/etc").status == 400
    assert reviewing.stop(signal.SIGINT) in (0, 130)
    output = recordings.parent / f"{recordings.name}-reviewed.jsonl"
    assert {row.text for row in read_manifest(output)} == {said[row["name"]] for row in rows[:2]}


def test_parts_of_a_long_recording_are_asked_for_once(tone_model: Path, tmp_path: Path) -> None:
    pause = np.zeros(int(2 * RATE), np.float32)
    parts = [each for text in TEXTS * 3 for each in (tones(text), pause)]
    soundfile.write(tmp_path / "long.wav", np.concatenate(parts), RATE)
    words = ("review", "long.wav", "--model", str(tone_model), "--no-browser")
    with started(words, tmp_path / "log.txt") as server:
        rows = server.ask("GET", "/v1/review").json
        assert len(rows) > 6
        put(server, rows[0]["id"], status="accepted", text="ab")
    with started(words, tmp_path / "again.txt") as server:
        again = server.ask("GET", "/v1/review").json
    assert len(again) == len(rows)
    assert [row["status"] for row in again].count("accepted") == 1
    assert len(read_manifest(tmp_path / "long-reviewed.jsonl")) == 1


@pytest.mark.browser
def test_ten_recordings_in_a_better_model_out(reviewing: Running, recordings: Path) -> None:
    """By the keys alone: correct, keep, go back, skip, learn."""
    said = {f"{number}.wav": text for number, text in enumerate(TEXTS)}
    with launched() as browser:
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{reviewing.port}/")
        for number in range(len(TEXTS)):
            page.wait_for_selector("article .review:not([hidden])")
            assert page.inner_text("#progress") == f"{number} of 6 reviewed"
            name = page.inner_text("article h2")
            page.locator("article .word").first.focus()
            page.keyboard.press("Enter")
            page.keyboard.type(f"{said[name]} a")
            page.keyboard.press("Control+Enter")
            page.get_by_text(f"{number + 1} of 6 reviewed").wait_for()
        page.get_by_text("All are reviewed and saved.").wait_for()
        page.click("#learn")
        page.get_by_text(re.compile("The new model: ")).wait_for(timeout=240_000)
        told = page.inner_text("#learned")
    assert "On 2 of the recordings, from which it did not learn: WER" in told
    model = Path(told.partition("The new model: ")[2])
    assert (recordings.parent / model).is_file()
