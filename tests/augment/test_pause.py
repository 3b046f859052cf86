"""Pauses: as long, as often and as loud as asked, and drawn from the generator alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from asr.augment import Pauses, WaveformAugment
from asr.augment.noise import active_power, mean_power
from asr.augment.pause import music, room_tone

RATE = 8_000


def voice(seconds: float = 1.0) -> NDArray[np.float32]:
    """Tones with gaps of soft hiss."""
    draws = np.random.default_rng(0)
    position = np.arange(round(seconds * RATE)) / RATE
    sounds = np.sin(2 * np.pi * 300 * position) * (position % 0.4 < 0.25)
    return (0.1 * sounds + 0.001 * draws.standard_normal(len(position))).astype(np.float32)


def test_a_waveform_stays_whole_between_pauses_of_the_asked_length():
    pauses, own = Pauses(around=1.0, longest_s=0.5), voice(0.3)
    for seed in range(50):
        padded = pauses.pad(own, RATE, np.random.default_rng(seed))
        assert padded.dtype == np.float32
        assert len(own) + 0.2 * RATE <= len(padded) + 2
        assert len(padded) <= len(own) + 1.0 * RATE + 2
        start = int(np.flatnonzero(padded == own[0])[0])
        starts = np.flatnonzero(padded == own[0])
        assert any(np.array_equal(padded[s : s + len(own)], own) for s in starts), start


def test_as_many_short_pauses_as_long_ones():
    pauses, own = Pauses(around=1.0, longest_s=1.6), voice(0.2)
    draws = np.random.default_rng(0)
    lengths = np.array([len(pauses.pause(own, RATE, draws)) / RATE for _ in range(400)])
    for lower in (0.1, 0.2, 0.4, 0.8):  # an octave each: four deviations of 8.7 about 100
        assert 65 < ((lengths >= lower) & (lengths < 2 * lower)).sum() < 135


def test_the_share_that_gets_pauses_is_the_asked_one():
    pauses, own = Pauses(around=0.3), voice(0.1)
    draws = np.random.default_rng(0)
    lengths = [len(pauses.pad(own, RATE, draws)) for _ in range(2000)]
    assert 0.45 < np.mean([length == len(own) for length in lengths]) < 0.53  # 0.7 twice is 0.49
    assert all(len(Pauses().pad(own, RATE, np.random.default_rng(s))) == len(own) for s in range(5))


def test_noise_and_music_are_below_the_voice_and_silence_is_zero():
    pauses, own = Pauses(around=1.0), voice()
    level = 10 * np.log10(active_power(own, RATE))
    draws = np.random.default_rng(0)
    levels = []
    for _ in range(200):
        pause = pauses.pause(own, RATE, draws)
        power = mean_power(pause)
        levels.append(10 * np.log10(power) - level if power else -np.inf)
    assert max(levels) <= -10 + 1e-3
    assert min(level for level in levels if np.isfinite(level)) >= -70 - 1e-3
    assert 0.15 < np.mean(np.isneginf(levels)) < 0.35  # one of four sounds


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_the_share_of_joins_without_a_pause_is_the_asked_one(share: float):
    pauses, own = Pauses(joined=1.0, fluent=share), voice(0.1)
    lengths = [len(pauses.join([own, own], RATE, np.random.default_rng(s))) for s in range(500)]
    assert np.mean([length == 2 * len(own) for length in lengths]) == pytest.approx(share, abs=0.07)


def test_room_tone_has_the_level_and_the_colour_of_the_quietest_frames():
    draws = np.random.default_rng(1)
    low = np.convolve(draws.standard_normal(4 * RATE), np.ones(8) / 8, "same")  # nothing at 1 kHz
    waveform = (0.01 * low).astype(np.float32)
    waveform[: 2 * RATE] += voice(2.0)
    tone = room_tone(waveform, RATE, RATE, draws)
    quiet = waveform[2 * RATE :]
    assert 10 * np.log10(mean_power(tone) / mean_power(quiet)) == pytest.approx(0, abs=3)

    def share_above_1_khz(sound: NDArray[np.float32]) -> float:
        power = np.square(np.abs(np.fft.rfft(sound[:RATE])))
        return float(power[len(power) // 4 :].sum() / power.sum())

    assert share_above_1_khz(tone) == pytest.approx(share_above_1_khz(quiet), abs=0.05)
    assert not room_tone(np.zeros(RATE, np.float32), 100, RATE, draws).any()
    assert not room_tone(waveform[:10], 100, RATE, draws).any()


@pytest.mark.parametrize("num_samples", [0, 1, 2, 3, 1_001])
def test_every_sound_has_the_asked_length(num_samples):
    pauses = Pauses(empty=1.0)
    for seed in range(12):
        draws = np.random.default_rng(seed)
        for sound in (
            pauses.nothing(num_samples, RATE, draws),
            room_tone(voice(), num_samples, RATE, draws),
            music(num_samples, RATE, draws),
        ):
            assert sound.shape == (num_samples,)
            assert sound.dtype == np.float32
            assert np.isfinite(sound).all()


def test_music_has_partials_and_no_frequency_beyond_half_the_rate():
    sound = music(RATE, RATE, np.random.default_rng(0))
    power = np.square(np.abs(np.fft.rfft(sound * np.hanning(RATE))))
    strongest = np.sort(power)[::-1]
    assert strongest[:200].sum() > 0.9 * power.sum()  # of 4001 bins: tones, no noise


def test_an_empty_waveform_gets_pauses_without_noise():
    padded = Pauses(around=1.0).pad(np.zeros(0, np.float32), RATE, np.random.default_rng(0))
    assert not padded.any()


def test_pauses_come_before_noise_and_gain():
    order: list[str] = []

    def noise(waveform: NDArray[np.float32], *_: Any) -> NDArray[np.float32]:
        order.append(f"noise over {len(waveform) / RATE:.1f} s")
        return waveform

    augment = WaveformAugment(pauses=Pauses(around=1.0), noise=noise)  # type: ignore[arg-type]
    varied = augment(voice(1.0), RATE, np.random.default_rng(0))
    assert order == [f"noise over {len(varied) / RATE:.1f} s"]
    assert len(varied) > RATE


@pytest.mark.parametrize(
    ("settings", "longest_s"), [({}, 0.0), ({"around": 0.1}, 4.0), ({"joined": 0.1}, 2.0)]
)
def test_the_longest_pauses_are_those_that_may_be_drawn(settings, longest_s):
    assert WaveformAugment(pauses=Pauses(**settings)).longest_pauses_s == longest_s


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"around": 1.5}, "probability 1.5, expected 0 to 1"),
        ({"joined": 0.6, "empty": 0.6}, "probability 1.2, expected 0 to 1"),
        ({"longest_s": 0.01}, "longest_s 0.01, expected 0.1 to 60 s"),
        ({"longest_s": float("nan")}, "longest_s nan, expected 0.1 to 60 s"),
        ({"fluent": -0.1}, "probability -0.1, expected 0 to 1"),
        ({"joined_s": 0.0}, "joined_s 0, expected more than 0"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        Pauses(**settings)
