"""The engine: texts depend on nothing computed beside them, and nobody waits for a long one."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from asr.serve.engine import Engine
from asr.serve.metrics import Metrics
from asr.transcriber import Transcriber
from tests.cli.conftest import RATE, TEXTS, tones


@pytest.fixture(scope="module")
def transcriber(tone_model: Path) -> Transcriber:
    return Transcriber.load(tone_model)


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine(Metrics())
    yield engine
    engine.close()


def spoken(*texts: str) -> np.ndarray:
    """Texts with pauses between."""
    pause = np.zeros(RATE, np.float32)
    return np.concatenate([np.concatenate([tones(text), pause]) for text in texts])


def test_transcripts_are_those_of_each_alone(engine: Engine, transcriber: Transcriber) -> None:
    recordings = [spoken(*TEXTS[number:], *TEXTS[:number]) for number in range(len(TEXTS))]
    recordings += [tones(text) for text in TEXTS] + [np.zeros(0, np.float32), tones("a" * 30)]
    release = threading.Event()
    engine.run(release.wait)  # so that all are there when the first is taken
    futures = [engine.transcribe(transcriber, each, "file") for each in recordings]
    assert engine.waiting_s == pytest.approx(sum(map(len, recordings)) / RATE)
    release.set()
    for samples, future in zip(recordings, futures, strict=True):
        alone = transcriber.transcribe(samples)
        found = future.result(60)
        assert found.text == alone.text
        assert found.duration == alone.duration
        assert [s.text for s in found.segments] == [s.text for s in alone.segments]
        assert [(w.start, w.end) for w in found.words] == [(w.start, w.end) for w in alone.words]
    assert engine.waiting_s == 0


def test_a_short_recording_does_not_wait_for_a_long_one(
    engine: Engine, transcriber: Transcriber
) -> None:
    long = engine.transcribe(transcriber, spoken(*(TEXTS * 60)), "long")
    short = engine.transcribe(transcriber, tones("abc"), "short")
    assert short.result(60).text == "abc"
    assert not long.done()
    assert len(long.result(120).segments) == 60 * len(TEXTS)


def test_live_streams_go_first_and_starve_nobody(engine: Engine, transcriber: Transcriber) -> None:
    is_over = threading.Event()

    def again() -> None:  # a stream whose next samples are always there
        time.sleep(0.001)
        if not is_over.is_set():
            engine.run(again)

    engine.run(again)
    assert engine.transcribe(transcriber, tones("abc"), "file").result(30).text == "abc"
    is_over.set()


def test_what_is_cancelled_leaves(engine: Engine, transcriber: Transcriber) -> None:
    release = threading.Event()
    engine.run(release.wait)
    left = engine.transcribe(transcriber, spoken(*TEXTS), "file")
    kept = engine.transcribe(transcriber, tones("abc"), "file")
    assert left.cancel()
    release.set()
    assert kept.result(30).text == "abc"
    until = time.monotonic() + 10
    while engine.waiting_s and time.monotonic() < until:
        time.sleep(0.01)
    assert engine.waiting_s == 0


def test_a_fault_is_told_to_those_it_concerns_alone(
    engine: Engine, transcriber: Transcriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(transcriber, "decoder", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            engine.transcribe(transcriber, tones("abc"), "file").result(30)
    assert engine.transcribe(transcriber, tones("abc"), "file").result(30).text == "abc"
    with pytest.raises(ValueError, match="NaN or Inf"):
        engine.transcribe(transcriber, np.full(RATE, np.nan, np.float32), "file").result(30)
    with pytest.raises(RuntimeError, match="of a stream"):
        engine.run(lambda: (_ for _ in ()).throw(RuntimeError("of a stream"))).result(30)
