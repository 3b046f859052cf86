"""Recorded impulse responses: the direct sound first, at the asked rate, and errors by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr.augment import Reverberation
from asr.augment.room import RoomFiles

RATE = 8_000  # [Hz]


def write(path: Path, samples: np.ndarray, rate: int = RATE) -> None:
    soundfile.write(path, samples, rate, subtype="FLOAT")


def recorded(rate: int = RATE) -> np.ndarray:
    """0.1 s of near silence, the direct sound, and a smaller echo of the other sign 50 ms later."""
    samples = np.full(rate, 1e-5)
    samples[rate // 10] = -0.2
    samples[rate // 10 + rate // 20] = 0.05
    return samples


def test_what_comes_before_the_direct_sound_is_cut_off(tmp_path: Path) -> None:
    write(tmp_path / "hall.wav", recorded())
    response = RoomFiles(tmp_path)(RATE, np.random.default_rng(0))
    assert response.dtype == np.float32
    assert len(response) == RATE - RATE // 10
    assert response[0] == -1
    assert response[RATE // 20] == pytest.approx(0.25)
    assert np.abs(np.delete(response, [0, RATE // 20])).max() == pytest.approx(5e-5)


def test_speech_stays_where_it_is(tmp_path: Path) -> None:
    write(tmp_path / "hall.wav", recorded(48_000), 48_000)
    click = np.zeros(RATE, dtype=np.float32)
    click[1_000] = 1
    heard = Reverberation(RoomFiles(tmp_path))(click, RATE, np.random.default_rng(0))
    assert np.abs(heard).argmax() == 1_000
    assert np.abs(heard[1_200:]).argmax() == 200  # the echo, 50 ms later


def test_a_long_tail_is_cut_off(tmp_path: Path) -> None:
    write(tmp_path / "hall.wav", recorded())
    response = RoomFiles(tmp_path, longest_s=0.3)(RATE, np.random.default_rng(0))
    assert len(response) == 0.3 * RATE


def test_files_are_drawn_evenly(tmp_path: Path) -> None:
    for length in (10, 20, 30):
        write(tmp_path / f"{length}.wav", np.linspace(1, 0, length))
    rooms = RoomFiles(tmp_path)
    lengths = [len(rooms(RATE, np.random.default_rng(seed))) for seed in range(300)]
    values, counts = np.unique(lengths, return_counts=True)
    np.testing.assert_array_equal(values, [10, 20, 30])
    assert (np.abs(counts - 100) < 33).all()  # four deviations


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.ones((100, 2)), r"2 channel\(s\), expected an impulse response: one channel"),
        (np.ones(31 * RATE), r"31 s in 1 channel\(s\), expected .* at most 30 s"),
    ],
)
def test_what_is_no_impulse_response(tmp_path: Path, samples: np.ndarray, message: str) -> None:
    write(tmp_path / "room.wav", samples)
    with pytest.raises(ValueError, match=rf"room\.wav: .*{message}"):
        RoomFiles(tmp_path)


def test_silence_is_no_impulse_response(tmp_path: Path) -> None:
    write(tmp_path / "quiet.wav", np.zeros(100))
    with pytest.raises(ValueError, match=r"quiet\.wav: silence, expected an impulse response"):
        RoomFiles(tmp_path)(RATE, np.random.default_rng(0))


@pytest.mark.parametrize("longest_s", [0.0, -1.0, 11.0, float("nan")])
def test_a_length_that_makes_no_sense(tmp_path: Path, longest_s: float) -> None:
    write(tmp_path / "hall.wav", recorded())
    with pytest.raises(ValueError, match=r"longest_s .* expected more than 0, at most 10"):
        RoomFiles(tmp_path, longest_s)
