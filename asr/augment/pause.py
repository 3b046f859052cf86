"""Pauses around, between and in the place of utterances, with all that a pause may sound like."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from asr.augment.bounds import checked_probability
from asr.augment.noise import SyntheticNoise, active_power, mean_power

SHORTEST_S = 0.1  # [s] of a pause: the blank between two equal letters has room in it
LONGEST_S = 60.0  # [s] that a pause may last
TONE_S = 0.032  # [s] of a frame of room tone
QUIET = 0.1  # share of an utterance's frames, the quietest, that sound like its room
LEVELS_DB = (-70.0, -10.0)  # of a pause's noise, below the utterance's active power
ALONE_DBFS = (-80.0, -10.0)  # [dBFS] of a recording in which nobody speaks
NOTE_S = (0.1, 1.5)  # [s] of the notes of music
OVERTONES = 12
PITCHES_HZ = 110 * 2 ** (np.arange(48) / 12)  # four octaves
SOUNDS = ("silence", "room tone", "noise", "music")


class Pauses:
    """Teaches what is between sentences: pads utterances, joins them, and adds rows without speech.

    A pause is digital silence, the tone of the utterance's own room, coloured noise or hum, or
    notes as of music.

    Args:
        around: share of the utterances that get a pause before them, and, drawn apart, behind them.
        joined: share of the batches whose utterances are joined, with pauses between.
        empty: share of the batches that get a row in which nobody speaks; with `joined` at most 1.
        fluent: share of the joins that have no pause: one utterance runs into the next.
        longest_s: of a pause [s].
        joined_s: longest sum of utterances in one row [s].

    Raises:
        ValueError: a share outside 0 to 1, or a duration that makes no sense.
    """

    def __init__(
        self,
        around: float = 0.0,
        joined: float = 0.0,
        empty: float = 0.0,
        fluent: float = 0.0,
        longest_s: float = 2.0,
        joined_s: float = 20.0,
    ) -> None:
        for share in (around, joined, empty, joined + empty, fluent):
            checked_probability(share)
        if not SHORTEST_S <= longest_s <= LONGEST_S:
            raise ValueError(f"longest_s {longest_s:g}, expected {SHORTEST_S:g} to {LONGEST_S:g} s")
        if not joined_s > 0:
            raise ValueError(f"joined_s {joined_s:g}, expected more than 0")
        self.around, self.joined, self.empty = around, joined, empty
        self.fluent = fluent
        self.longest_s, self.joined_s = longest_s, joined_s
        self.noise = SyntheticNoise()

    def pad(
        self, waveform: NDArray[np.float32], sample_rate: int, generator: np.random.Generator
    ) -> NDArray[np.float32]:
        """Put a pause before and behind some waveforms `(num_samples,)` at `sample_rate` [Hz]."""
        if not self.around:
            return waveform
        before, behind = generator.random(2) < self.around
        parts = [waveform]
        if before:
            parts.insert(0, self.pause(waveform, sample_rate, generator))
        if behind:
            parts.append(self.pause(waveform, sample_rate, generator))
        return np.concatenate(parts) if len(parts) > 1 else waveform

    def rows(
        self,
        durations: Sequence[float],
        speakers: Sequence[str | None],
        generator: np.random.Generator,
    ) -> list[list[int]]:
        """Draw which utterances of a batch become one row, and whether there is one without any.

        Never both, so that a batch grows by little more than its pauses.

        Args:
            durations: of each [s].
            speakers: of each; half of the batches that are joined join those of one speaker first.
            generator: source of the draws.

        Returns:
            Positions, each in one row; the row without speech has none.
        """
        count, draw = len(durations), generator.random()
        alone = [[position] for position in range(count)]
        if draw >= self.joined:
            return [*alone, []] if draw < self.joined + self.empty else alone
        most = min(count, int(self.joined_s / max(*durations, SHORTEST_S)))
        if most < 2:
            return alone
        order = generator.permutation(count).tolist()
        if generator.random() < 0.5:
            order.sort(key=lambda position: speakers[position] or "")
        size = int(generator.integers(2, most + 1))
        return [order[start : start + size] for start in range(0, count, size)]

    def join(
        self,
        waveforms: Sequence[NDArray[np.float32]],
        sample_rate: int,
        generator: np.random.Generator,
    ) -> NDArray[np.float32]:
        """Join waveforms `(num_samples,)` at `sample_rate` [Hz], most with a pause between."""
        parts = [waveforms[0]]
        for before, after in itertools.pairwise(waveforms):
            if not self.fluent or generator.random() >= self.fluent:
                parts.append(self.pause(before, sample_rate, generator))
            parts.append(after)
        return np.concatenate(parts)

    def pause(
        self, waveform: NDArray[np.float32], sample_rate: int, generator: np.random.Generator
    ) -> NDArray[np.float32]:
        """Draw a pause `(num_samples,)` at `sample_rate` [Hz] beside a waveform."""
        # As many of 0.1 to 0.2 s as of 1 to 2 s.
        length = round(
            np.exp(generator.uniform(*np.log((SHORTEST_S, self.longest_s)))) * sample_rate
        )
        kind = SOUNDS[generator.integers(len(SOUNDS))]
        if kind == "room tone":
            return room_tone(waveform, length, sample_rate, generator)
        level = active_power(waveform, sample_rate) * 10 ** (generator.uniform(*LEVELS_DB) / 10)
        return self._sound(kind, level, length, sample_rate, generator)

    def nothing(
        self, num_samples: int, sample_rate: int, generator: np.random.Generator
    ) -> NDArray[np.float32]:
        """Draw a recording `(num_samples,)` at `sample_rate` [Hz] in which nobody speaks."""
        kind = ("silence", "noise", "music", "music")[generator.integers(4)]
        level = 10 ** (generator.uniform(*ALONE_DBFS) / 10)
        return self._sound(kind, level, num_samples, sample_rate, generator)

    def _sound(
        self, kind: str, power: float, num_samples: int, sample_rate: int,
        generator: np.random.Generator,
    ) -> NDArray[np.float32]:  # fmt: skip
        if kind == "silence" or not num_samples:
            return np.zeros(num_samples, np.float32)
        draw = self.noise if kind == "noise" else music
        return at_power(draw(num_samples, sample_rate, generator), power)


def room_tone(
    waveform: NDArray[np.float32],
    num_samples: int,
    sample_rate: int,
    generator: np.random.Generator,
) -> NDArray[np.float32]:
    """Draw noise with the spectrum of the quietest frames of a waveform.

    Args:
        waveform: `(any length,)`.
        num_samples: of the tone.
        sample_rate: [Hz].
        generator: source of the draws.

    Returns:
        `(num_samples,)` float32; zeros for a waveform shorter than a frame.
    """
    size = round(TONE_S * sample_rate)
    if len(waveform) < size or not num_samples:
        return np.zeros(num_samples, np.float32)
    frames = waveform[: len(waveform) // size * size].reshape(-1, size)
    powers = np.square(frames).mean(axis=1)
    count = max(1, round(QUIET * len(frames)))
    quiet = frames[np.argsort(powers, kind="stable")[:count]]
    window = np.hanning(size).astype(np.float32)
    density = np.square(np.abs(np.fft.rfft(quiet * window))).mean(axis=0)
    grid = np.linspace(0, len(density) - 1, num_samples // 2 + 1)
    amplitude = np.sqrt(np.interp(grid, np.arange(len(density)), density))
    draws = generator.standard_normal((len(grid), 2), dtype=np.float32).view(np.complex64)[:, 0]
    tone = np.fft.irfft(draws * amplitude, num_samples).astype(np.float32)
    return at_power(tone, mean_power(quiet.ravel()))


def at_power(sound: NDArray[np.float32], power: float) -> NDArray[np.float32]:
    """Scale a sound to a mean power; one without power stays."""
    return sound * np.float32(np.sqrt(power / (mean_power(sound) or 1.0)))


def music(
    num_samples: int, sample_rate: int, generator: np.random.Generator
) -> NDArray[np.float32]:
    """Draw chords of one to three notes with overtones, one after the other.

    Args:
        num_samples: of the music.
        sample_rate: [Hz].
        generator: source of the draws.

    Returns:
        `(num_samples,)` float32, at no particular level.
    """
    sound = np.zeros(num_samples, np.float32)
    start = 0
    while start < num_samples:
        length = min(round(generator.uniform(*NOTE_S) * sample_rate), num_samples - start)
        seconds = np.arange(length, dtype=np.float32) / sample_rate
        decay = np.exp(-seconds * generator.uniform(0, 6)).astype(np.float32)
        release = (length / sample_rate - seconds) / generator.uniform(0.01, 0.3)
        decay *= np.minimum(1, np.minimum(seconds / 0.01, release))
        fall = generator.uniform(1, 6)  # of the overtones: an organ to a whistle
        for pitch in generator.choice(PITCHES_HZ, generator.integers(1, 4)):
            orders = np.arange(1, min(int(sample_rate / 2 / pitch), OVERTONES) + 1)
            for order in orders.tolist():
                phase = 2 * np.pi * order * np.float32(pitch) * seconds
                sound[start : start + length] += decay * np.sin(phase) / order**fall
        start += length
    return sound
