"""Samples in memory: scaled by their type, turned by their shape, or refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from asr.audio import load_audio
from asr.audio_array import AudioArray

RATE = 8_000  # [Hz]


def read(samples: object, rate: int = RATE, **options: int) -> np.ndarray:
    return load_audio(AudioArray(samples, rate), RATE, **options)


@pytest.mark.parametrize(
    ("dtype", "values", "expected"),
    [
        (np.int16, [-(2**15), 0, 2**14], [-1, 0, 0.5]),
        (np.int32, [-(2**31), 0, 2**30], [-1, 0, 0.5]),
        (np.int8, [-128, 0, 64], [-1, 0, 0.5]),
        (np.uint8, [0, 128, 192], [-1, 0, 0.5]),
        (np.float32, [-1, 0, 0.5], [-1, 0, 0.5]),
        (np.float64, [-1, 0, 0.5], [-1, 0, 0.5]),
        (np.float16, [-1, 0, 0.5], [-1, 0, 0.5]),
    ],
)
def test_samples_are_scaled_by_their_type(
    dtype: type, values: list[float], expected: list[float]
) -> None:
    found = read(np.array(values, dtype))
    assert found.dtype == np.float32
    assert found.tolist() == expected
    if dtype != np.float16:
        assert read(torch.tensor(np.array(values, dtype))).tolist() == expected


def test_channels_are_found_by_the_shape() -> None:
    stereo = np.random.default_rng(0).uniform(-1, 1, (2, 1000)).astype(np.float32)
    mean = stereo.mean(axis=0)
    for samples in (stereo, stereo.T, torch.from_numpy(stereo)):
        np.testing.assert_allclose(read(samples), mean, atol=1e-7)
        assert read(samples, channel=1).tolist() == stereo[1].tolist()
    assert read(stereo[:1]).tolist() == stereo[0].tolist()


@pytest.mark.parametrize("shape", [(2, 2), (20, 1000), (2, 3, 100), ()])
def test_shapes_that_do_not_tell_what_is_time(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected \(samples,\), \(channels, samples\) or \("):
        AudioArray(np.zeros(shape), RATE)


@pytest.mark.parametrize("dtype", [np.int64, np.uint16, np.bool_, np.complex64, object])
def test_types_that_have_no_scale(dtype: type) -> None:
    with pytest.raises(ValueError, match=f"type {np.dtype(dtype)}, expected float32, float64, int"):
        AudioArray(np.zeros(100, dtype), RATE)


def test_what_is_refused_in_files_is_refused_in_arrays() -> None:
    for bad in (np.nan, np.inf, 1e300):
        with pytest.raises(ValueError, match=r"^<array of 100 samples>: NaN or Inf"):
            read(np.full(100, bad))
    with pytest.raises(ValueError, match="sample rate 10 Hz, expected 1000 to"):
        read(np.zeros(100), 10)
    with pytest.raises(ValueError, match="channel 2, expected 0 to 1"):
        read(np.zeros((2, 100)), channel=2)


def test_another_rate_and_a_part() -> None:
    samples = np.random.default_rng(1).uniform(-1, 1, 1_200_000).astype(np.float32)  # some blocks
    assert len(read(samples, 2 * RATE)) == 600_000
    part = load_audio(AudioArray(samples, RATE), RATE, offset=100.0, duration=2.0)
    assert part.tolist() == samples[100 * RATE : 102 * RATE].tolist()
    assert len(read(np.zeros(0), 2 * RATE)) == 0
