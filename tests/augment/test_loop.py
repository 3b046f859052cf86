"""Stretches of what is too short: repeated, and not heard to be so."""

from __future__ import annotations

import numpy as np
import pytest

from asr.augment.noise import loop, seamless


@pytest.mark.parametrize(
    ("start", "num_samples", "expected"),
    [
        (0, 3, [0, 1, 2]),
        (1, 2, [1, 2]),
        (2, 5, [2, 0, 1, 2, 0]),
        (1, 0, []),
        (0, 7, [0, 1, 2, 0, 1, 2, 0]),
    ],
)
def test_a_loop_by_hand(start, num_samples, expected):
    assert loop(np.arange(3, dtype=np.float32), start, num_samples).tolist() == expected


def test_the_end_fades_into_the_beginning():
    # Overlap of 2 at angles 0 and 45 degrees: the last two samples, 5 and 6, go out by the cosine
    # while the first two, 1 and 2, come in by the sine.
    cycle = seamless(np.arange(1, 7, dtype=np.float32), 2)
    half = np.sqrt(0.5)
    np.testing.assert_allclose(cycle, [5, half * 2 + half * 6, 3, 4], rtol=1e-6)


def test_a_fade_keeps_the_power_of_noise():
    noise = np.random.default_rng(0).standard_normal((2_000, 400), dtype=np.float32)
    power = np.mean([np.square(seamless(row, 100)) for row in noise], axis=0)
    np.testing.assert_allclose(power, 1, atol=0.15)  # four and a half deviations of 2,000 draws


@pytest.mark.parametrize("num_samples", [1, 2, 3, 5])
def test_what_is_shorter_than_its_fade(num_samples):
    recording = np.ones(num_samples, dtype=np.float32)
    cycle = seamless(recording, 100)
    assert len(cycle) == num_samples - num_samples // 2
    assert np.isfinite(cycle).all()
    np.testing.assert_array_equal(recording, 1)  # not written to
