"""What is measured of audio and what is usual: levels, silence, ranges, by hand-made cases."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr.data.checks import LOWEST_DB, check_file, measure_audio, measure_signal, usual_range
from asr.data.manifest import Utterance

RATE = 8000  # [Hz]


def sine(seconds: float, amplitude: float = 0.5) -> np.ndarray:
    """Whole periods of 500 Hz."""
    return amplitude * np.sin(2 * np.pi * 500 * np.arange(round(seconds * RATE)) / RATE)


@pytest.mark.parametrize("amplitude", [1.0, 0.5, 0.001])
def test_the_level_of_a_sine_is_its_amplitude_over_the_root_of_two(amplitude: float) -> None:
    signal = measure_signal(sine(1.0, amplitude).astype(np.float32), RATE)
    assert signal.level_db == pytest.approx(20 * math.log10(amplitude / math.sqrt(2)), abs=1e-4)
    assert signal.peak == pytest.approx(amplitude)


def test_silence_has_the_lowest_level_and_is_silent_at_both_ends() -> None:
    signal = measure_signal(np.zeros(4000, np.float32), RATE)
    assert (signal.level_db, signal.peak, signal.clipped_share) == (LOWEST_DB, 0.0, 0.0)
    assert (signal.leading_s, signal.trailing_s) == (0.5, 0.5)


def test_clipping_counts_samples_of_either_sign_at_full_scale() -> None:
    waveform = np.full(1000, 0.998, np.float32)
    waveform[:3], waveform[3:5] = 1.0, -1.0
    assert measure_signal(waveform, RATE).clipped_share == 0.005


@pytest.mark.parametrize(("leading", "trailing"), [(0, 0), (0.5, 0), (0, 0.25), (1.0, 2.0)])
@pytest.mark.parametrize("hum", [0.0, 0.5 * 10 ** (-41 / 20)])  # 41 dB below the speech
def test_silence_at_the_ends(leading: float, trailing: float, hum: float) -> None:
    parts = [sine(leading, hum), sine(0.4), sine(0.3, hum), sine(0.2), sine(trailing, hum)]
    signal = measure_signal(np.concatenate(parts).astype(np.float32), RATE)
    assert signal.leading_s == pytest.approx(leading)
    assert signal.trailing_s == pytest.approx(trailing)


def test_one_sample_is_audio() -> None:
    signal = measure_signal(np.full(1, 0.1, np.float32), RATE)
    assert (signal.level_db, signal.leading_s) == (pytest.approx(-20.0), 0.0)


def test_equal_samples_have_one_digest_in_any_lossless_file(tmp_path: Path) -> None:
    samples = np.round(2**15 * sine(0.5)).astype(np.int16)
    digests = set()
    for name in ("a.wav", "a.flac", "b.wav"):
        soundfile.write(tmp_path / name, samples, RATE)
        audio = measure_audio(Utterance(tmp_path / name, "a", None, name), 40.0)
        assert audio.signal is not None
        digests.add(audio.signal.digest)
    assert len(digests) == 1
    samples[99] += 1
    other = measure_signal((samples / 2**15).astype(np.float32), RATE)
    assert other.digest not in digests
    faster = measure_signal((samples / 2**15).astype(np.float32), 2 * RATE)
    assert faster.digest != other.digest


def test_a_part_of_a_file_is_measured_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.concatenate([sine(1.0, 0.9), sine(1.0, 0.1)]), RATE, subtype="FLOAT")
    audio = measure_audio(Utterance(path, "a", 0.5, "a", offset=1.25), 40.0)
    assert (audio.duration_s, audio.file_s, audio.sample_rate) == (0.5, 2.0, RATE)
    assert audio.signal is not None
    assert audio.signal.peak == pytest.approx(0.1)
    rest = measure_audio(Utterance(path, "a", None, "a", offset=1.25), 0.7)
    assert (rest.duration_s, rest.signal) == (0.75, None)  # too long to be decoded


def test_the_usual_range_is_that_of_a_normal_distribution_of_logarithms() -> None:
    values = np.exp(np.random.default_rng(0).normal(1.0, 0.5, 20_000))
    usual = usual_range(values.tolist(), factor=1.0)
    assert usual is not None
    # 5 standard deviations on either side of the mean of the logarithms.
    assert np.log(usual) == pytest.approx([1.0 - 2.5, 1.0 + 2.5], abs=0.05)
    polluted = [*values.tolist(), *[1e6] * 1000]
    moved = usual_range(polluted, factor=1.0)
    assert np.log(moved) == pytest.approx(np.log(usual), abs=0.25)


def test_the_usual_range_of_equal_values_is_the_factor() -> None:
    assert usual_range([2.0] * 20, factor=3.0) == pytest.approx((2 / 3, 6.0))
    assert usual_range([2.0] * 19, factor=3.0) is None


def test_a_name_in_another_unicode_form_is_told(tmp_path: Path) -> None:
    (tmp_path / "a\u0308.wav").touch()  # as macOS writes it
    apart = Utterance(tmp_path / "\u00e4.wav", "x", None, "1")
    found = check_file(apart)
    assert found is not None
    assert found.reason.endswith("audio; one of that name in another Unicode form is there")
    gone = check_file(Utterance(tmp_path / "\u00f6.wav", "x", None, "1"))
    assert gone is not None
    assert gone.reason.endswith("no such file, expected audio")
