"""The estimated signal-to-noise ratio, on mixtures whose ratio is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from asr.audio import load_audio
from asr.augment.noise import add_noise
from asr.data.snr import estimate_snr

RATE = 16000  # [Hz]


def syllables(generator: np.random.Generator, count: int = 12) -> NDArray[np.float32]:
    """Noise in bursts of 0.1 to 0.3 s at levels 15 dB apart, with pauses of 0.05 to 0.15 s."""
    parts = [np.zeros(RATE // 10)]
    for _ in range(count):
        length = int(generator.uniform(0.1, 0.3) * RATE)
        level = 10 ** (generator.uniform(-15, 0) / 20)
        parts.append(level * np.hanning(length) * generator.standard_normal(length))
        parts.append(np.zeros(int(generator.uniform(0.05, 0.15) * RATE)))
    return np.concatenate(parts).astype(np.float32)


@pytest.mark.parametrize("snr_db", [0, 5, 10, 15, 20, 25, 30])
def test_a_known_mixture_is_told(snr_db: float) -> None:
    errors = []
    for seed in range(20):
        generator = np.random.default_rng(seed)
        speech = syllables(generator)
        noise = generator.standard_normal(len(speech)).astype(np.float32)
        found = estimate_snr(add_noise(speech, noise, snr_db, RATE), RATE)
        assert found is not None
        errors.append(found - snr_db)
    # Below 10 dB the quiet syllables drown, and those that are left are louder than the mean.
    assert abs(np.mean(errors)) < (1.5 if snr_db >= 10 else 4)
    assert np.std(errors) < 2


def test_real_speech_with_more_noise_has_a_lower_ratio(speech_data: Path) -> None:
    files = sorted((speech_data / "librispeech_dev_clean_part").rglob("*.mp3"))[:5]
    assert files
    for file in files:
        speech = load_audio(file, RATE)
        noise = np.random.default_rng(0).standard_normal(len(speech)).astype(np.float32)
        ratios = [estimate_snr(add_noise(speech, noise, db, RATE), RATE) for db in (0, 10, 20)]
        assert all(ratio is not None for ratio in ratios)
        assert ratios == sorted(ratios, key=lambda ratio: ratio or 0)
        assert ratios[0] == pytest.approx(0, abs=5)
        assert ratios[1] == pytest.approx(10, abs=5)


def test_level_and_digital_silence_change_nothing() -> None:
    generator = np.random.default_rng(3)
    speech = syllables(generator)
    mixed = add_noise(speech, generator.standard_normal(len(speech)).astype(np.float32), 10, RATE)
    mixed = mixed[: len(mixed) // 320 * 320]
    plain = estimate_snr(mixed, RATE)
    padded = np.concatenate([np.zeros(RATE, np.float32), mixed, np.zeros(320 * 99, np.float32)])
    assert estimate_snr(padded, RATE) == plain
    assert estimate_snr(np.float32(0.125) * mixed, RATE) == plain


@pytest.mark.parametrize(
    "waveform",
    [
        pytest.param(np.zeros(0, np.float32), id="empty"),
        pytest.param(np.zeros(RATE, np.float32), id="silence"),
        pytest.param(np.ones(RATE // 10, np.float32), id="short"),
        pytest.param(np.ones(RATE, np.float32), id="nothing stands out"),
    ],
)
def test_none_where_there_is_no_telling(waveform: NDArray[np.float32]) -> None:
    assert estimate_snr(waveform, RATE) is None
