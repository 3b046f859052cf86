"""Channels: what a filter takes from a band, what it leaves, and that nothing moves in time."""

from __future__ import annotations

import numpy as np
import pytest

from asr.augment import Channel, WaveformAugment

RATE = 16_000  # [Hz]
TELEPHONE = {"low_hz": [300.0, 300.0], "high_hz": [3400.0, 3400.0]}


def noise(num_samples=RATE):
    return np.random.default_rng(0).normal(0, 0.1, num_samples).astype(np.float32)


def level_db(waveform, low_hz, high_hz):
    spectrum = np.abs(np.fft.rfft(waveform)) ** 2
    places = np.fft.rfftfreq(len(waveform), 1 / RATE)
    return 10 * np.log10(spectrum[(places >= low_hz) & (places < high_hz)].mean())


def test_a_band_is_left_and_an_octave_beyond_it_24_db_less():
    clean = noise(8 * RATE)
    heard = Channel(0.0, **TELEPHONE)(clean, RATE, np.random.default_rng(0))
    within = level_db(heard, 400, 3300) - level_db(clean, 400, 3300)
    assert level_db(heard, 6780, 6820) - level_db(clean, 6780, 6820) - within == pytest.approx(
        -24, abs=0.5
    )
    assert level_db(heard, 149, 151) - level_db(clean, 149, 151) - within == pytest.approx(
        -24, abs=1.0
    )
    assert np.square(heard).mean() == pytest.approx(np.square(clean).mean(), rel=1e-4)


def test_an_octave_is_coloured_as_drawn():
    channel, generator = Channel(6.0, [1.0, 1.0], [24_000.0, 24_000.0]), np.random.default_rng(1)
    clean, gains = noise(), []
    for _ in range(200):
        heard = channel(clean, RATE, generator)
        # At 50 Hz times powers of two the gain is what was drawn; the level as a whole stays.
        gains.append(
            [level_db(heard, f - 20, f + 20) - level_db(clean, f - 20, f + 20) for f in (800, 6400)]
        )
    assert np.std(np.diff(gains)) == pytest.approx(6 * np.sqrt(2), rel=0.15)


@pytest.mark.parametrize("place", [0, 700, 1999])
def test_a_click_stays_where_it_is(place):
    click = np.zeros(2000, np.float32)
    click[place] = 1.0
    heard = Channel(4.0, **TELEPHONE)(click, RATE, np.random.default_rng(2))
    assert np.argmax(np.abs(heard)) == place
    assert np.abs(heard[np.abs(np.arange(2000) - place) > 200]).max() < 0.05 * np.abs(heard).max()


@pytest.mark.parametrize("num_samples", [0, 1, 1601])
def test_length_and_type_stay_and_silence_is_silence(num_samples):
    channel = Channel(4.0, **TELEPHONE)
    heard = channel(noise(num_samples), RATE, np.random.default_rng(0))
    assert (heard.shape, heard.dtype) == ((num_samples,), np.float32)
    assert not channel(np.zeros(num_samples, np.float32), RATE, np.random.default_rng(0)).any()


def test_some_utterances_get_one():
    channel, generator = Channel(4.0, **TELEPHONE, probability=0.3), np.random.default_rng(0)
    clean = noise(100)
    changed = [not np.array_equal(channel(clean, RATE, generator), clean) for _ in range(300)]
    assert np.mean(changed) == pytest.approx(0.3, abs=0.08)
    augment = WaveformAugment(channel=Channel(4.0, **TELEPHONE))
    assert not np.array_equal(augment(clean, RATE, generator), clean)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"colour_db": -1}, "colour_db -1, expected 0 to 20 dB"),
        ({"low_hz": [0, 10]}, r"low_hz \[0, 10\], expected"),
        ({"low_hz": [300, 400], "high_hz": [350, 800]}, r"high_hz \[350, 800\], expected"),
        ({"probability": 2}, "probability 2, expected 0 to 1"),
    ],
)
def test_settings_out_of_bounds_are_told(settings, message):
    with pytest.raises(ValueError, match=message):
        Channel(**{"colour_db": 4.0, **TELEPHONE, **settings})
