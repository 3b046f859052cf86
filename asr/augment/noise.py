"""Noise added to a waveform at a drawn distance below the speech."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from asr.augment.bounds import checked_db, checked_probability

FRAME_S = 0.02  # [s] of which a speech pause has several
ACTIVE_DB = 30.0  # [dB] below the loudest frame there is no speech left


class NoiseSource(Protocol):
    """Where noise comes from, at any level: `Noise` scales it."""

    def __call__(
        self, num_samples: int, sample_rate: int, generator: np.random.Generator
    ) -> NDArray[np.float32]:
        """Draw a stretch to read, `(num_samples,)` float32 at `sample_rate` [Hz]."""
        ...


class Noise:
    """Add noise to some utterances.

    Args:
        source: of the noise.
        snr_db: range (lowest, highest) of the ratio of the utterance's active power to the noise's
            mean power, drawn evenly [dB].
        probability: share of the utterances that get noise.

    Raises:
        ValueError: a range the wrong way round or absurd, a probability outside 0 to 1.
    """

    def __init__(
        self, source: NoiseSource, snr_db: Sequence[float], probability: float = 1.0
    ) -> None:
        self.source = source
        self.snr_db = checked_db("snr_db", snr_db)
        self.probability = checked_probability(probability)

    def __call__(
        self, waveform: NDArray[np.float32], sample_rate: int, generator: np.random.Generator
    ) -> NDArray[np.float32]:
        """Vary one waveform `(num_samples,)` at `sample_rate` [Hz]; its length stays."""
        if generator.random() >= self.probability or not len(waveform):
            return waveform
        snr_db = generator.uniform(*self.snr_db)
        noise = self.source(len(waveform), sample_rate, generator)
        return add_noise(waveform, noise, snr_db, sample_rate)


def add_noise(
    waveform: NDArray[np.float32], noise: NDArray[np.float32], snr_db: float, sample_rate: int
) -> NDArray[np.float32]:
    """Add noise, scaled so that its mean power is `snr_db` below the waveform's active power.

    A waveform or a noise without power stays or adds nothing: there is no ratio to reach.

    Args:
        waveform: `(num_samples,)`.
        noise: `(num_samples,)`.
        snr_db: [dB].
        sample_rate: [Hz].

    Returns:
        `(num_samples,)` float32.
    """
    noise_power = mean_power(noise)
    if not noise_power:
        return waveform
    level = np.sqrt(active_power(waveform, sample_rate) / noise_power) * 10 ** (-snr_db / 20)
    return waveform + np.float32(level) * noise


def active_power(waveform: NDArray[np.float32], sample_rate: int) -> float:
    """Mean power of the frames where somebody speaks: those at most 30 dB below the loudest.

    Pauses count for nothing, so that the same voice gets the same noise however long they are. A
    waveform without pauses has its mean power. ITU-T P.56 measures the same more finely.

    Args:
        waveform: `(num_samples,)`.
        sample_rate: [Hz].

    Returns:
        Mean square of the samples; 0 for a waveform of zeros or of no samples.
    """
    if not len(waveform):
        return 0.0
    frame = max(1, round(FRAME_S * sample_rate))
    starts = np.arange(0, len(waveform), frame)
    energies = np.add.reduceat(np.square(waveform), starts).astype(np.float64)
    lengths = np.diff(starts, append=len(waveform))
    powers = energies / lengths
    active = powers >= powers.max() * 10 ** (-ACTIVE_DB / 10)
    return float(energies[active].sum() / lengths[active].sum())


def mean_power(waveform: NDArray[np.float32]) -> float:
    """Mean square of a waveform's samples; 0 for none."""
    # Not by a dot product: that may round in another way on another number of threads.
    return float(np.square(waveform).mean(dtype=np.float64)) if len(waveform) else 0.0
