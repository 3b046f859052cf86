"""Noise from files: the right stretch at the right rate, looped where it is short."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr.augment import Noise, Reverberation, SimulatedRooms, WaveformAugment
from asr.augment.noise import NoiseFiles
from asr.data.dataset import batch_loader
from asr.data.manifest import Utterance
from tests.data.loading import requests_of

RATE = 8_000  # [Hz]


def write(path: Path, samples: np.ndarray, rate: int = RATE) -> None:
    soundfile.write(path, samples, rate, subtype="FLOAT")


def draw(source: NoiseFiles, num_samples: int, seed: int = 0) -> np.ndarray:
    part = source(num_samples, RATE, np.random.default_rng(seed))
    assert part.shape == (num_samples,)
    assert part.dtype == np.float32
    return part


def test_a_stretch_is_what_lies_in_the_file(tmp_path: Path) -> None:
    write(tmp_path / "ramp.wav", np.arange(10 * RATE) / (10 * RATE))
    source = NoiseFiles(tmp_path)
    starts = []
    for seed in range(300):
        positions = np.rint(draw(source, 800, seed).astype(np.float64) * 10 * RATE)
        np.testing.assert_array_equal(np.diff(positions), 1)
        starts.append(positions[0])
    # Evenly over the places where it fits, give or take four deviations.
    counts, _ = np.histogram(starts, bins=3, range=(0, 10 * RATE - 800))
    assert counts.sum() == 300
    assert (np.abs(counts - 100) < 33).all()


def test_files_are_drawn_evenly_however_long(tmp_path: Path) -> None:
    for index, seconds in enumerate((1, 4, 16)):
        write(tmp_path / f"{index}.wav", np.full(seconds * RATE, index / 4))
    source = NoiseFiles(tmp_path)
    drawn = [float(draw(source, 100, seed)[0]) for seed in range(300)]
    values, counts = np.unique(drawn, return_counts=True)
    np.testing.assert_array_equal(values, [0.0, 0.25, 0.5])
    assert (np.abs(counts - 100) < 33).all()


@pytest.mark.parametrize("num_samples", [901, 1_000, 2_000, 20_001])
def test_a_short_recording_is_repeated_without_a_click(tmp_path: Path, num_samples: int) -> None:
    # A falling tone that jumps at its end from 0 to 1: the loop must not jump.
    write(tmp_path / "short.wav", np.linspace(1, 0, 900))
    source = NoiseFiles(tmp_path)
    for seed in range(5):
        part = draw(source, num_samples, seed)
        assert np.abs(np.diff(part)).max() < 0.05
        cycle = 900 - RATE // 100
        np.testing.assert_array_equal(part[cycle:], part[:-cycle][: len(part[cycle:])])


@pytest.mark.parametrize(("rate", "channels"), [(44_100, 1), (16_000, 2), (RATE, 3)])
def test_other_rates_and_channels_become_the_asked_ones(
    tmp_path: Path, rate: int, channels: int
) -> None:
    position = np.arange(3 * rate) / rate
    tone = 0.5 * np.sin(2 * np.pi * 1_000 * position)
    write(tmp_path / "tone.wav", np.tile(tone[:, None], channels), rate)
    part = draw(NoiseFiles(tmp_path), 2 * RATE)
    spectrum = np.abs(np.fft.rfft(part * np.hanning(len(part))))
    assert spectrum.argmax() * RATE / len(part) == pytest.approx(1_000, abs=1)
    assert np.square(part).mean() == pytest.approx(0.5**2 / 2, rel=0.01)


@pytest.mark.parametrize("rate", [RATE, 44_100])
@pytest.mark.parametrize("num_samples", [0, 1, 3_999, 4_000, 4_001])
def test_lengths_near_that_of_the_recording(tmp_path: Path, rate: int, num_samples: int) -> None:
    write(tmp_path / "half_a_second.wav", np.ones(rate // 2), rate)
    for seed in range(3):
        assert np.isfinite(draw(NoiseFiles(tmp_path), num_samples, seed)).all()


def test_a_recording_of_one_sample(tmp_path: Path) -> None:
    write(tmp_path / "tiny.wav", np.full(1, 0.25))
    np.testing.assert_array_equal(draw(NoiseFiles(tmp_path), 100), 0.25)


def test_what_breaks_later_is_named(tmp_path: Path) -> None:
    path = tmp_path / "fan.wav"
    write(path, np.ones(RATE))
    source = NoiseFiles(tmp_path)
    path.write_bytes(path.read_bytes()[:5_000])
    with pytest.raises(ValueError, match=r"fan\.wav: cut short"):
        draw(source, 7_000)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"fan\.wav"):
        draw(source, 100)


def test_workers_draw_what_one_process_draws(tmp_path: Path) -> None:
    noise = np.random.default_rng(1)
    (tmp_path / "noises").mkdir()
    for index in range(3):
        write(tmp_path / "noises" / f"{index}.wav", noise.uniform(-1, 1, RATE // 2))
    utterances = []
    for index in range(8):
        path = tmp_path / f"{index}.wav"
        write(path, noise.uniform(-0.1, 0.1, RATE // 4))
        utterances.append(Utterance(path, "a", 0.25, f"u{index}"))
    augment = WaveformAugment(
        speeds=[0.9, 1.1],
        room=Reverberation(SimulatedRooms(rooms=3), 0.8),
        noise=Noise(NoiseFiles(tmp_path / "noises"), [0.0, 10.0], 0.8),
    )
    augment = pickle.loads(pickle.dumps(augment))
    requests = requests_of(utterances, [[1]] * 8, 2, [(0, 5, 2), (7, 1), (3, 4, 6)])
    alone, several = (
        list(batch_loader(RATE, 3, augment, num_workers=n).load(requests)) for n in (0, 2)
    )
    for one, other in zip(alone, several, strict=True):
        np.testing.assert_array_equal(one.waveforms, other.waveforms)
