"""Added noise: the asked distance below the speech, whatever the level, and never NaN."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from numpy.typing import NDArray

from asr.augment import Noise
from asr.augment.noise import active_power, add_noise, mean_power

RATE = 16_000  # [Hz]


def sine(seconds: float = 1.0, amplitude: float = 0.1) -> NDArray[np.float32]:
    position = np.arange(round(seconds * RATE)) / RATE
    return (amplitude * np.sin(2 * np.pi * 440 * position)).astype(np.float32)


def hiss(num_samples: int, sample_rate: int, generator: np.random.Generator) -> NDArray[np.float32]:
    """White noise of a level of its own."""
    return 7 * generator.standard_normal(num_samples, dtype=np.float32)


def nothing(
    num_samples: int, sample_rate: int, generator: np.random.Generator
) -> NDArray[np.float32]:
    return np.zeros(num_samples, dtype=np.float32)


def snr_of(clean: NDArray, noisy: NDArray) -> float:
    """Mean power over the power of what was added [dB]."""
    added = noisy.astype(np.float64) - clean
    return float(10 * np.log10(np.mean(np.square(clean, dtype=np.float64)) / np.mean(added**2)))


@pytest.mark.parametrize("snr_db", [-20.0, 0.0, 7.5, 40.0])
@pytest.mark.parametrize("amplitude", [1e-4, 0.1, 3e4])
def test_a_steady_tone_gets_the_asked_ratio(snr_db, amplitude):
    clean = sine(1.0, amplitude)
    noisy = Noise(hiss, [snr_db, snr_db])(clean, RATE, np.random.default_rng(0))
    assert snr_of(clean, noisy) == pytest.approx(snr_db, abs=0.01)
    assert noisy.dtype == np.float32
    assert noisy.shape == clean.shape


def test_pauses_change_nothing_of_the_level():
    noise = hiss(4 * RATE, RATE, np.random.default_rng(0))
    quiet = 0.001 * noise[: 2 * RATE] / 7  # 37 dB below the tone
    speech = np.concatenate([quiet, sine(1.0), quiet[:RATE]])
    added = add_noise(speech, noise, 10.0, RATE) - speech
    assert 10 * np.log10(mean_power(sine(1.0)) / mean_power(added)) == pytest.approx(10, abs=0.1)
    # By the mean power of all four seconds it would be 6 dB less.
    assert 10 * np.log10(mean_power(sine(1.0)) / mean_power(speech)) == pytest.approx(6, abs=0.1)


def test_active_power_by_hand():
    # 1,000 Hz: frames of 20 samples. Powers 4, 0.005 and 0.003 (30 dB below 4 is 0.004), and in
    # the last 10 samples 1. Active: (20 * 4 + 20 * 0.005 + 10 * 1) / 50.
    powers = np.repeat([4.0, 0.005, 0.003, 1.0], [20, 20, 20, 10])
    waveform = np.sqrt(powers).astype(np.float32)
    waveform[::2] *= -1
    assert active_power(waveform, 1_000) == pytest.approx(90.1 / 50, rel=1e-5)


@pytest.mark.parametrize("num_samples", [1, 2, 319, 320, 321])
def test_shortest_waveforms(num_samples):
    clean = np.full(num_samples, 0.5, dtype=np.float32)
    assert active_power(clean, RATE) == pytest.approx(0.25)
    noisy = Noise(hiss, [3.0, 3.0])(clean, RATE, np.random.default_rng(0))
    assert snr_of(clean, noisy) == pytest.approx(3.0, abs=0.01)


@pytest.mark.parametrize("num_samples", [0, 1, 5_000])
@pytest.mark.parametrize("source", [hiss, nothing])
def test_silence_stays_silent(num_samples, source):
    silence = np.zeros(num_samples, dtype=np.float32)
    noisy = Noise(source, [0.0, 0.0])(silence, RATE, np.random.default_rng(0))
    np.testing.assert_array_equal(noisy, silence)


def test_noise_without_power_adds_nothing():
    noisy = Noise(nothing, [0.0, 0.0])(sine(), RATE, np.random.default_rng(0))
    np.testing.assert_array_equal(noisy, sine())


@pytest.mark.parametrize("amplitude", [1e-40, 1e-20, 2.0**31])
@pytest.mark.parametrize("snr_db", [-100.0, 100.0])
def test_extreme_levels_stay_finite(amplitude, snr_db):
    clean = sine(0.1, amplitude)
    noise = (amplitude * hiss(len(clean), RATE, np.random.default_rng(0))).astype(np.float32)
    for one, other in ((clean, noise), (sine(0.1), noise), (clean, sine(0.1))):
        assert np.isfinite(add_noise(one, other, snr_db, RATE)).all()


def test_ratios_are_drawn_evenly_for_the_asked_share():
    noise = Noise(hiss, [0.0, 30.0], probability=0.75)
    clean = sine(0.05)
    noisy = [noise(clean, RATE, np.random.default_rng(seed)) for seed in range(400)]
    ratios = [snr_of(clean, one) for one in noisy if one is not clean]
    # 300 of 400 and 100 in each third, give or take four deviations (of 8.7 and 8.2).
    assert abs(len(ratios) - 300) < 35
    counts, _ = np.histogram(ratios, bins=3, range=(-0.01, 30.01))
    assert (np.abs(counts - len(ratios) / 3) < 33).all()
    assert counts.sum() == len(ratios)


def test_the_waveform_is_not_written_to():
    clean = sine()
    Noise(hiss, [0.0, 0.0])(clean, RATE, np.random.default_rng(0))
    np.testing.assert_array_equal(clean, sine())


def test_it_can_be_sent_to_another_process():
    noise = Noise(hiss, [0.0, 20.0], 0.9)
    there = pickle.loads(pickle.dumps(noise))
    for seed in range(5):
        one, other = (n(sine(), RATE, np.random.default_rng(seed)) for n in (noise, there))
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"snr_db": [30.0, 0.0]}, r"snr_db \[30.0, 0.0\], expected \[lowest, highest\]"),
        ({"snr_db": [0.0, 101.0]}, "within -100 to 100 dB"),
        ({"snr_db": 10.0}, r"snr_db 10.0, expected \[lowest, highest\]"),
        ({"snr_db": ["5", "9"]}, r"snr_db \['5', '9'\], expected"),
        ({"snr_db": [0.0, float("nan")]}, r"snr_db \[0.0, nan\]"),
        ({"snr_db": [0.0, 1.0], "probability": 1.5}, "probability 1.5, expected 0 to 1"),
        ({"snr_db": [0.0, 1.0], "probability": float("nan")}, "probability nan"),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(ValueError, match=message):
        Noise(hiss, **settings)
