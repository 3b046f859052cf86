"""Synthetic noise: the spectrum of its name, the same from every process."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from numpy.typing import NDArray

from asr.augment import SyntheticNoise
from asr.augment.noise import coloured_cycle, hum

RATE = 16_000  # [Hz]


def spectrum(noise: NDArray[np.float32], resolution: int = 10) -> tuple[NDArray, NDArray]:
    """Frequencies [Hz] and mean power at each, of stretches of a tenth of a second."""
    size = RATE // resolution
    stretches = noise[: len(noise) // size * size].reshape(-1, size) * np.hanning(size)
    power = np.square(np.abs(np.fft.rfft(stretches))).mean(axis=0)
    return np.fft.rfftfreq(size, 1 / RATE), power


@pytest.mark.parametrize(("kind", "slope"), [("white", 0), ("pink", -10), ("brown", -20)])
def test_colours_fall_as_they_should(kind, slope):
    noise = SyntheticNoise([kind])(20 * RATE, RATE, np.random.default_rng(0))
    hertz, power = spectrum(noise)
    heard = (hertz >= 60) & (hertz <= 7_500)
    fitted, _ = np.polyfit(np.log10(hertz[heard]), 10 * np.log10(power[heard]), 1)
    assert fitted == pytest.approx(slope, abs=0.3)  # [dB a decade]


def test_nothing_lies_below_what_is_heard():
    noise = coloured_cycle(-20.0, 10 * RATE, RATE, np.random.default_rng(0))
    power = np.square(np.abs(np.fft.rfft(noise.astype(np.float64))))
    assert power[: 10 * 20].sum() < 1e-9 * power.sum()  # bins 0.1 Hz apart, up to 20 Hz


def test_a_cycle_has_no_seam():
    cycle = coloured_cycle(-20.0, 10 * RATE, RATE, np.random.default_rng(0))
    steps = np.abs(np.diff(cycle))
    assert abs(cycle[0] - cycle[-1]) < 5 * np.sqrt(np.mean(np.square(steps)))


@pytest.mark.parametrize("sample_rate", [1_000, 8_000, 16_000, 44_100])
def test_hum_is_the_mains_and_its_harmonics(sample_rate):
    found = set()
    for seed in range(20):
        cycle = hum(sample_rate, np.random.default_rng(seed))
        assert cycle.shape == (sample_rate,)
        assert cycle.dtype == np.float32
        power = np.square(np.abs(np.fft.rfft(cycle.astype(np.float64))))
        lines = np.flatnonzero(power > 1e-9 * power.max())
        mains = int(lines[0])
        found.add(mains)
        np.testing.assert_array_equal(lines, mains * np.arange(1, len(lines) + 1))
        assert len(lines) == min(20, (sample_rate - 1) // 2 // mains)
    assert found == {50, 60}


def test_kinds_are_drawn_evenly():
    source = SyntheticNoise(["white", "brown"])
    steps = []
    for seed in range(200):
        part = source(1_000, RATE, np.random.default_rng(seed))
        steps.append(np.var(np.diff(part)) / np.var(part))
    white = np.array(steps) > 1  # of white noise it is 2, of brown noise nearly 0
    assert abs(white.sum() - 100) < 29  # four deviations
    np.testing.assert_allclose(np.array(steps)[white], 2, atol=0.3)
    assert (np.array(steps)[~white] < 0.1).all()


def test_the_same_from_every_process_in_any_order():
    first = SyntheticNoise()
    second = pickle.loads(pickle.dumps(SyntheticNoise()))
    there = [first(500, RATE, np.random.default_rng(seed)) for seed in range(20)]
    back = [second(500, RATE, np.random.default_rng(seed)) for seed in reversed(range(20))]
    np.testing.assert_array_equal(there, back[::-1])
    assert len({part.tobytes() for part in there}) == 20
    one, other = (SyntheticNoise(["pink"], seed=seed) for seed in (0, 1))
    parts = [source(500, RATE, np.random.default_rng(0)) for source in (one, other)]
    assert not np.array_equal(*parts)


@pytest.mark.parametrize("kind", ["white", "hum"])
@pytest.mark.parametrize("num_samples", [0, 1, 70 * RATE])
def test_any_length(kind, num_samples):
    part = SyntheticNoise([kind])(num_samples, RATE, np.random.default_rng(0))
    assert part.shape == (num_samples,)
    assert np.isfinite(part).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kinds": []}, r"kinds \[\], expected a list of white, pink, brown, hum"),
        ({"kinds": ["white", "green"]}, r"kinds \['white', 'green'\], expected"),
        ({"kinds": "white"}, "kinds 'white', expected a list"),
        ({"seed": -1}, "seed -1, expected 0 or more"),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(ValueError, match=message):
        SyntheticNoise(**settings)
