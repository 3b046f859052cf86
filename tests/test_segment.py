"""Segments: speech-like sound between pauses, found whatever its level, and nothing elsewhere."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d, minimum_filter1d

from asr.segment import (
    CUT_S,
    LONGEST_S,
    MARGIN_S,
    PAUSE_S,
    SegmentFinder,
    Span,
    _extremes,
    find_segments,
    frame_levels,
)

RATE = 16_000  # [Hz]


def voice(seconds: float, seed: int = 0, dbfs: float = -20.0) -> NDArray[np.float32]:
    """Noise whose loudness goes up and down five times a second, as syllables do."""
    draws = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    loudness = 0.05 + np.abs(np.sin(np.pi * 5 * time))
    return (10 ** (dbfs / 20) * loudness * draws.standard_normal(len(time))).astype(np.float32)


def noise(seconds: float, dbfs: float, seed: int = 1) -> NDArray[np.float32]:
    draws = np.random.default_rng(seed)
    return (10 ** (dbfs / 20) * draws.standard_normal(round(seconds * RATE))).astype(np.float32)


def joined(pause_s: float, floor_dbfs: float, dbfs: float = -20.0) -> NDArray[np.float32]:
    """Three stretches of speech, with noise of a level below, between and around them."""
    pause = np.zeros(round(pause_s * RATE), np.float32)
    parts = [
        pause,
        voice(2.0, 0, dbfs),
        pause,
        voice(1.0, 1, dbfs),
        pause,
        voice(3.0, 2, dbfs),
        pause,
    ]
    waveform = np.concatenate(parts)
    return waveform + noise(len(waveform) / RATE, floor_dbfs)


def seconds_of(spans: list[Span]) -> list[float]:
    return [edge / RATE for span in spans for edge in (span.start, span.end)]


@pytest.mark.parametrize("pause_s", [0.5, 1.0, 5.0, 20.0])
@pytest.mark.parametrize("floor_dbfs", [-120.0, -80.0, -60.0, -50.0])
def test_speech_is_cut_in_its_pauses(pause_s: float, floor_dbfs: float) -> None:
    spans = find_segments(joined(pause_s, floor_dbfs), RATE)
    assert len(spans) == 3
    starts = np.array([pause_s, 2 * pause_s + 2.0, 3 * pause_s + 3.0])
    ends = starts + np.array([2.0, 1.0, 3.0])
    margin = min(MARGIN_S, pause_s / 2)
    assert seconds_of(spans)[::2] == pytest.approx(starts - margin, abs=0.08)
    assert seconds_of(spans)[1::2] == pytest.approx(ends + margin, abs=0.08)


def test_what_a_pause_is_may_be_chosen() -> None:
    waveform = joined(0.5, -60.0)
    assert len(find_segments(waveform, RATE)) == 3
    assert seconds_of(find_segments(waveform, RATE, pause_s=0.6)) == [0.0, len(waveform) / RATE]
    assert len(find_segments(joined(0.7, -60.0), RATE, pause_s=0.6)) == 3
    longer = np.concatenate([waveform, waveform])  # of more than an utterance; a second within
    assert len(find_segments(longer, RATE)) == 6
    assert len(find_segments(longer, RATE, pause_s=0.6)) == 2


def test_a_pause_within_a_sentence_is_no_cut() -> None:
    spans = find_segments(joined(PAUSE_S - 0.1, -60.0), RATE)
    assert len(spans) == 1
    whole = joined(0.0, -60.0)
    assert seconds_of(find_segments(whole, RATE)) == pytest.approx([0, len(whole) / RATE], abs=0.1)


@pytest.mark.parametrize(("gain", "offset"), [(0.01, 0.0), (4.0, 0.0), (1.0, 0.2), (0.1, -0.1)])
def test_gain_and_offset_move_no_cut(gain: float, offset: float) -> None:
    waveform = joined(1.0, -60.0)
    changed = (gain * waveform + offset).astype(np.float32)
    found, expected = (seconds_of(find_segments(each, RATE)) for each in (changed, waveform))
    assert found == pytest.approx(expected, abs=0.011)


def test_a_voice_far_away_is_found_beside_one_that_is_near() -> None:
    near, far = joined(1.0, -70.0, dbfs=-10.0), joined(1.0, -70.0, dbfs=-40.0)
    assert len(find_segments(np.concatenate([near, far]), RATE)) == 6


SOUNDS = {
    "digital silence": np.zeros(60 * RATE, np.float32),
    "an offset": np.full(60 * RATE, 0.25, np.float32),
    "white noise": noise(60, -20),
    "brown noise": (0.01 * np.cumsum(noise(60, -20))).astype(np.float32),
    "quiet noise": noise(60, -70),
    "hum": (0.3 * np.sin(2 * np.pi * 50 * np.arange(60 * RATE) / RATE)).astype(np.float32),
    "noise that begins": np.concatenate([noise(30, -70), noise(30, -30)]),
    "nothing": np.zeros(0, np.float32),
}


@pytest.mark.parametrize("name", SOUNDS)
def test_what_is_steady_has_no_speech(name: str) -> None:
    spans = find_segments(SOUNDS[name], RATE)
    # Where a noise begins, a second of it may be anything.
    assert sum(span.length for span in spans) <= (RATE * 10 if name == "noise that begins" else 0)


def test_clicks_are_no_speech() -> None:
    waveform = noise(20, -60)
    waveform[RATE :: 4 * RATE] = 0.9
    assert find_segments(waveform, RATE) == []


@pytest.mark.parametrize("seconds", [0.1, 0.3, 1.0, 2.5])
def test_a_vowel_alone_is_speech(seconds: float) -> None:
    time = np.arange(round(seconds * RATE)) / RATE
    vowel = sum(np.sin(2 * np.pi * 120 * k * time) / k for k in range(1, 20)).astype(np.float32)
    assert seconds_of(find_segments(0.1 * vowel, RATE)) == pytest.approx([0, seconds], abs=0.011)


@pytest.mark.parametrize("rate", [8_000, 11_025, 44_100])
def test_spans_lie_in_order_within_the_recording(rate: int) -> None:
    draws = np.random.default_rng(5)
    loudness = np.repeat(draws.uniform(-80, -10, 200), rate // 7)
    waveform = (10 ** (loudness / 20) * draws.standard_normal(len(loudness))).astype(np.float32)
    spans = find_segments(waveform, rate)
    assert len(spans) > 3
    edges = [edge for span in spans for edge in (span.start, span.end)]
    assert edges == sorted(edges)
    assert edges[0] >= 0
    assert edges[-1] <= len(waveform)
    assert all(span.length > 0 for span in spans)


def test_levels_are_those_of_the_band_whatever_the_offset() -> None:
    time = np.arange(3 * RATE) / RATE
    for hertz, amplitude in ((1_000, 0.5), (3_000, 0.01)):
        sine = (amplitude * np.sin(2 * np.pi * hertz * time) + 0.3).astype(np.float32)
        levels = frame_levels(sine, RATE)
        assert (
            len(levels) == 298
        )  # none for the first frame and the last, which surround the others
        expected = 20 * np.log10(amplitude / np.sqrt(2))
        assert levels[2:-2] == pytest.approx(expected, abs=0.1)
    assert frame_levels(np.sin(2 * np.pi * 7_000 * time).astype(np.float32), RATE)[5] < -60


@pytest.mark.parametrize("seconds", [0.004, 0.3, 4.0, 9.9, 10.1, 12.0, 70.0])
@pytest.mark.parametrize("rate", [8_000, 11_025])
def test_segments_do_not_depend_on_the_blocks(rate: int, seconds: float) -> None:
    draws = np.random.default_rng(round(rate * seconds))
    loudness = np.repeat(draws.uniform(-90, -10, 300), rate // 4)[: round(seconds * rate)]
    waveform = (10 ** (loudness / 20) * draws.standard_normal(len(loudness))).astype(np.float32)
    waveform[len(waveform) // 3 : len(waveform) // 2] = 0
    expected = find_segments(waveform, rate)
    for largest in (1_000, 30_000, 500_000):
        finder = SegmentFinder(rate)
        found: list[Span] = []
        place = 0
        while place < len(waveform):
            block = waveform[place : place + int(draws.integers(1, largest))]
            place += len(block)
            earliest = finder.earliest
            spans = finder.feed(block)
            assert all(earliest <= span.start for span in spans)
            found += spans
        earliest = finder.earliest
        spans = finder.finish()
        assert all(earliest <= span.start for span in spans)
        assert [*found, *spans] == expected
    assert expected or seconds < 0.1


def test_segments_are_known_soon_and_what_is_before_them_need_not_be_kept() -> None:
    finder = SegmentFinder(RATE)
    waveform = joined(1.0, -60.0)
    silence = np.zeros(25 * RATE, np.float32)
    assert finder.feed(np.concatenate([waveform, silence])) == find_segments(
        np.concatenate([waveform, silence]), RATE
    )
    assert finder.earliest > len(waveform)


def test_what_has_no_pause_is_cut_where_it_is_quietest() -> None:
    waveform = voice(2 * LONGEST_S + 50)
    dips = [LONGEST_S - CUT_S / 2, 2 * LONGEST_S - CUT_S]  # shorter than a pause
    for dip in dips:
        waveform[round(dip * RATE) : round((dip + 0.2) * RATE)] *= 0.01
    spans = find_segments(waveform, RATE)
    assert [span.end for span in spans[:-1]] == [span.start for span in spans[1:]]
    assert (spans[0].start, spans[-1].end) == (0, len(waveform))
    assert [span.end / RATE for span in spans[:-1]] == pytest.approx(
        [dip + 0.1 for dip in dips], abs=0.1
    )


def test_an_hour_takes_no_memory_beside_itself() -> None:
    waveform = np.tile(joined(1.0, -60.0), 120)[: 20 * 60 * RATE]
    tracemalloc.start()
    spans = find_segments(waveform, RATE)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(spans) > 100
    assert peak < 0.5 * waveform.nbytes


@pytest.mark.parametrize("size", [1, 3, 7, 1601])
def test_extremes_are_those_of_scipy(size: int) -> None:
    for count in (0, 1, 2, 5, 1600, 1601, 1602, 5000):
        levels = np.random.default_rng(count).standard_normal(count).astype(np.float32)
        for of, filtered in ((np.maximum, maximum_filter1d), (np.minimum, minimum_filter1d)):
            assert np.array_equal(
                _extremes(levels, size, of), filtered(levels, size, mode="nearest")
            )
