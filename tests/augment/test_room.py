"""Reverberation: a convolution that moves nothing in time and keeps length and level."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from numpy.typing import NDArray

from asr.augment import Reverberation
from asr.augment.room import convolve, reverberate

BLOCK = 2**15  # samples; a length about which convolutions by blocks change their sizes
RATE = 16_000  # [Hz]


def noise(num_samples: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(num_samples, dtype=np.float32)


def echo(sample_rate: int, generator: np.random.Generator) -> NDArray[np.float32]:
    """The direct sound, and an echo of a drawn level after 10 ms."""
    response = np.zeros(sample_rate // 100 + 1, dtype=np.float32)
    response[0], response[-1] = 1, generator.uniform()
    return response


@pytest.mark.parametrize(
    ("num_samples", "num_taps"),
    [
        (1, 1), (1, 9), (9, 1), (10, 3), (3, 10), (500, 499), (500, 501),
        (BLOCK - 1, 2), (BLOCK, 1), (BLOCK, 2), (BLOCK + 1, 2), (70_000, 3_000), (70_000, 20_000),
        (50_000, 40_000),
    ],
)  # fmt: skip
def test_convolution_is_numpys(num_samples, num_taps):
    waveform, response = noise(num_samples), noise(num_taps, 1)
    size = 1 << (num_samples + num_taps).bit_length()
    spectrum = np.fft.rfft(waveform.astype(np.float64), size)
    expected = np.fft.irfft(spectrum * np.fft.rfft(response.astype(np.float64), size))
    if num_samples < 1_000:  # so that the one who checks is checked
        plain = np.convolve(waveform, response)[:num_samples]
        np.testing.assert_allclose(expected[:num_samples], plain, atol=1e-4)
    heard = convolve(waveform, response)
    assert heard.dtype == np.float32
    np.testing.assert_allclose(
        heard, expected[:num_samples], atol=1e-6 * np.abs(expected).max(), rtol=0
    )


def test_sound_stays_where_it_is():
    click = np.zeros(8_000, dtype=np.float32)
    click[3_000] = 0.5
    heard = reverberate(click, echo(RATE, np.random.default_rng(0)))
    assert np.abs(heard).argmax() == 3_000
    assert np.abs(heard[:3_000]).max() < 1e-6
    level = np.random.default_rng(0).uniform()
    assert heard[3_160] / heard[3_000] == pytest.approx(level, rel=1e-4)


@pytest.mark.parametrize("amplitude", [1e-6, 0.1, 1e4])
@pytest.mark.parametrize("num_samples", [1, 159, 40_000])
def test_length_and_mean_power_stay(num_samples, amplitude):
    waveform = np.float32(amplitude) * noise(num_samples)
    response = noise(5_000, 1)
    heard = reverberate(waveform, response)
    assert heard.shape == waveform.shape
    assert heard.dtype == np.float32
    power = np.mean(np.square(waveform, dtype=np.float64))
    assert np.mean(np.square(heard, dtype=np.float64)) == pytest.approx(power, rel=1e-5)


@pytest.mark.parametrize("num_samples", [0, 1, 40_000])
def test_silence_stays_silent(num_samples):
    silence = np.zeros(num_samples, dtype=np.float32)
    heard = Reverberation(echo)(silence, RATE, np.random.default_rng(0))
    np.testing.assert_array_equal(heard, silence)


@pytest.mark.parametrize("amplitude", [1e-40, 1e-20, 2.0**31])
def test_extreme_levels_stay_finite(amplitude):
    waveform = (amplitude * noise(40_000)).astype(np.float32)
    assert np.isfinite(reverberate(waveform, noise(5_000, 1))).all()


def test_the_asked_share_gets_a_room_of_its_own():
    room = Reverberation(echo, probability=0.75)
    waveform = noise(400)
    varied = [room(waveform, RATE, np.random.default_rng(seed)) for seed in range(400)]
    inside = [one for one in varied if one is not waveform]
    assert abs(len(inside) - 300) < 35  # four deviations
    assert len({one.tobytes() for one in inside}) == len(inside)
    there = pickle.loads(pickle.dumps(room))
    for seed in range(10):
        again = there(waveform, RATE, np.random.default_rng(seed))
        np.testing.assert_array_equal(again, varied[seed])
    np.testing.assert_array_equal(waveform, noise(400))  # not written to


def test_a_probability_that_makes_no_sense():
    with pytest.raises(ValueError, match=r"probability -0.1, expected 0 to 1"):
        Reverberation(echo, probability=-0.1)
