"""Speed, tempo, room, noise and gain: as asked, in this order, reproducible from the generator."""

from __future__ import annotations

import librosa
import numpy as np
import pytest
from numpy.typing import NDArray

from asr.augment import Noise, Reverberation, SimulatedRooms, SyntheticNoise, WaveformAugment
from asr.augment.waveform import change_speed, change_tempo

RATE = 16_000


def sine(hertz: float, seconds: float = 1.0) -> NDArray[np.float32]:
    position = np.arange(round(seconds * RATE)) / RATE
    return (0.1 * np.sin(2 * np.pi * hertz * position)).astype(np.float32)


def pitch(waveform: NDArray[np.float32]) -> float:
    """Frequency of the strongest component, to the next bin [Hz]."""
    spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform))))
    return float(spectrum.argmax() * RATE / len(waveform))


def vary(augment: WaveformAugment, seed: int, waveform: NDArray | None = None) -> NDArray:
    waveform = sine(440) if waveform is None else waveform
    return augment(waveform, RATE, np.random.default_rng(seed))


@pytest.mark.parametrize("speed", [0.5, 0.9, 1.1, 2.0])
def test_speed_changes_length_and_pitch_by_the_factor(speed):
    changed = change_speed(sine(440), speed, RATE)
    assert abs(len(changed) - RATE / speed) <= 1
    assert pitch(changed) == pytest.approx(440 * speed, abs=RATE / len(changed))
    assert np.abs(changed[1_000:-1_000]).max() == pytest.approx(0.1, rel=1e-3)  # not the loudness
    assert changed.dtype == np.float32
    np.testing.assert_array_equal(vary(WaveformAugment(speeds=[speed]), 0), changed)


@pytest.mark.parametrize("tempo", [0.75, 1.5])
def test_tempo_changes_length_and_leaves_the_pitch_as_librosa_does(tempo):
    noisy = sine(440) + np.random.default_rng(0).normal(0, 0.01, RATE).astype(np.float32)
    changed = change_tempo(noisy, tempo, RATE)
    expected = librosa.effects.time_stretch(noisy, rate=tempo, n_fft=512, hop_length=128)
    np.testing.assert_allclose(changed, expected, atol=1e-3)
    assert len(changed) == round(RATE / tempo)
    assert pitch(changed) == pytest.approx(440, abs=RATE / len(changed))
    assert changed.dtype == np.float32
    augment = WaveformAugment(speeds=[0.8], tempos=[tempo])
    assert augment.fastest == augment.slowest == pytest.approx(0.8 * tempo)
    slower = change_tempo(change_speed(sine(440), 0.8, RATE), tempo, RATE)
    np.testing.assert_array_equal(vary(WaveformAugment([0.8], tempos=[tempo] * 2), 0), slower)
    assert len(change_tempo(np.ones(100, np.float32), tempo, RATE)) == 100  # no window of it


@pytest.mark.parametrize("num_samples", [0, 1, 2, 10])
@pytest.mark.parametrize("speed", [0.5, 0.9, 1.1, 2.0])
def test_shortest_waveforms(num_samples, speed):
    changed = change_speed(np.ones(num_samples, dtype=np.float32), speed, RATE)
    assert abs(len(changed) - num_samples / speed) <= 1
    assert np.isfinite(changed).all()


def test_gain_is_even_over_its_range_and_changes_nothing_else():
    augment = WaveformAugment(gain_db=[-6.0, 3.0])
    waveform = sine(440, 0.05)
    loud = np.abs(waveform) > 0.01
    gains = []
    for seed in range(300):
        factor = vary(augment, seed, waveform)[loud] / waveform[loud]
        np.testing.assert_allclose(factor, factor[0], rtol=1e-5)
        gains.append(20 * np.log10(factor[0]))
    assert min(gains) >= -6.0 - 1e-4
    assert max(gains) <= 3.0 + 1e-4
    # Each third of the range gets a third of the draws, give or take four deviations (of 8).
    counts, _ = np.histogram(gains, bins=3, range=(-6.001, 3.001))
    assert (np.abs(counts - 100) < 33).all()


EVERYTHING = {
    "speeds": [0.9, 1.0, 1.1],
    "room": Reverberation(SimulatedRooms(rooms=3), 0.7),
    "noise": Noise(SyntheticNoise(), [0.0, 20.0], 0.7),
    "gain_db": [-6.0, 3.0],
}


def test_speed_comes_first_then_room_noise_and_gain():
    generator = np.random.default_rng(3)
    speed = EVERYTHING["speeds"][generator.integers(3)]
    expected = change_speed(sine(440), speed, RATE)
    expected = EVERYTHING["room"](expected, RATE, generator)
    expected = EVERYTHING["noise"](expected, RATE, generator)
    expected = expected * np.float32(10 ** (generator.uniform(-6.0, 3.0) / 20))
    np.testing.assert_array_equal(vary(WaveformAugment(**EVERYTHING), 3), expected)


def test_without_room_and_noise_speed_and_gain_are_drawn_as_ever():
    # The first draws of numpy's generator for the seed 0, which earlier trainings have seen too.
    generator = np.random.default_rng(0)
    speed, gain = [0.9, 1.0, 1.1][generator.integers(3)], generator.uniform(-6.0, 3.0)
    varied = vary(WaveformAugment(speeds=[0.9, 1.0, 1.1], gain_db=[-6.0, 3.0]), 0)
    np.testing.assert_allclose(varied, change_speed(sine(440), speed, RATE) * 10 ** (gain / 20))


@pytest.mark.parametrize("num_samples", [0, 1, 100, 50_000])
@pytest.mark.parametrize("level", [0.0, 0.1])
def test_everything_together_is_finite_and_as_long_as_speed_makes_it(num_samples, level):
    augment = WaveformAugment(**EVERYTHING)
    waveform = np.full(num_samples, level, dtype=np.float32)
    for seed in range(20):
        varied = vary(augment, seed, waveform)
        assert varied.dtype == np.float32
        assert np.isfinite(varied).all()
        assert min(abs(len(varied) - num_samples / speed) for speed in (0.9, 1.0, 1.1)) <= 1
        assert level or not varied.any()


def test_speeds_are_drawn_evenly():
    augment = WaveformAugment(speeds=[0.9, 1.0, 1.1])
    assert augment.fastest == 1.1
    waveform = sine(440, 0.05)
    lengths = [len(vary(augment, seed, waveform)) for seed in range(300)]
    values, counts = np.unique(lengths, return_counts=True)
    np.testing.assert_allclose(values, 800 / np.array([1.1, 1.0, 0.9]), atol=1)
    assert (np.abs(counts - 100) < 33).all()


def test_same_state_same_result_other_seed_another():
    augment = WaveformAugment(**EVERYTHING)
    first = [vary(augment, seed) for seed in range(10)]
    for seed in reversed(range(10)):
        np.testing.assert_array_equal(vary(augment, seed), first[seed])
    assert len({(len(waveform), waveform[100]) for waveform in first}) == 10
    # Further draws of one generator differ as well.
    generator = np.random.default_rng(0)
    np.testing.assert_array_equal(augment(sine(440), RATE, generator), first[0])
    again = augment(sine(440), RATE, generator)
    assert not np.array_equal(again, first[0])


@pytest.mark.parametrize("augment", [WaveformAugment(**EVERYTHING), WaveformAugment()])
def test_input_is_not_written_to(augment):
    waveform = sine(440)
    varied = vary(augment, 0, waveform)
    varied += 1.0
    np.testing.assert_array_equal(waveform, sine(440))


def test_defaults_change_nothing():
    varied = vary(WaveformAugment(), 0)
    np.testing.assert_array_equal(varied, sine(440))
    assert varied.dtype == np.float32


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"speeds": []}, r"speeds \[\], expected factors from 0.5 to 2"),
        ({"speeds": [1.0, 0.4]}, r"speeds \[1.0, 0.4\], expected factors"),
        ({"speeds": [2.1]}, r"speeds \[2.1\]"),
        ({"speeds": [float("nan")]}, r"speeds \[nan\]"),
        ({"tempos": [1.0, 2.5]}, r"tempos \[1.0, 2.5\], expected factors"),
        ({"gain_db": [3.0, -3.0]}, r"gain_db \[3.0, -3.0\], expected \[lowest, highest\]"),
        ({"gain_db": [3.0]}, r"gain_db \[3.0\]"),
        ({"gain_db": [float("nan"), 0.0]}, r"gain_db \[nan, 0.0\]"),
        ({"gain_db": [float("-inf"), 0.0]}, "within -100 to 100 dB"),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(ValueError, match=message):
        WaveformAugment(**settings)
