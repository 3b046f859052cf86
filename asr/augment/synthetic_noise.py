"""Noise that needs no recordings: white, pink and brown noise, and the hum of the mains."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from asr.augment.loop import loop

CYCLE_S = 60  # [s] of each colour, drawn once: an utterance begins anywhere in it
SLOPES = {"white": 0.0, "pink": -10.0, "brown": -20.0}  # [dB a decade] of the power spectrum
LOWEST_HZ = 20.0  # [Hz] nothing below: brown noise would have nearly all its power there
MAINS_HZ = (50, 60)  # [Hz] in most of the world, and in America
NUM_HARMONICS = 20
KINDS = (*SLOPES, "hum")


class SyntheticNoise:
    """One of several kinds of noise, drawn evenly.

    A colour is a cycle of 60 s, made once in every process from the kind and `seed` alone, so that
    each process has the same; an utterance gets a stretch from anywhere in it. Hum is drawn anew
    each time.

    Args:
        kinds: of white, pink (-10 dB a decade), brown (-20 dB a decade) and hum (the mains at 50
            or 60 Hz with its harmonics).
        seed: of the cycles.

    Raises:
        ValueError: no kind, an unknown one, or a negative seed.
    """

    def __init__(self, kinds: Sequence[str] = KINDS, seed: int = 0) -> None:
        if not kinds or isinstance(kinds, str) or not set(kinds) <= set(KINDS):
            raise ValueError(f"kinds {kinds!r}, expected a list of {', '.join(KINDS)}")
        if seed < 0:
            raise ValueError(f"seed {seed}, expected 0 or more")
        self.kinds = tuple(kinds)
        self.seed = seed
        self._cycles: dict[tuple[str, int], NDArray[np.float32]] = {}

    def __call__(
        self, num_samples: int, sample_rate: int, generator: np.random.Generator
    ) -> NDArray[np.float32]:
        """Draw one stretch, `(num_samples,)` float32 at `sample_rate` [Hz]."""
        kind = self.kinds[generator.integers(len(self.kinds))]
        cycle = hum(sample_rate, generator) if kind == "hum" else self._cycle(kind, sample_rate)
        return loop(cycle, int(generator.integers(len(cycle))), num_samples)

    def _cycle(self, kind: str, sample_rate: int) -> NDArray[np.float32]:
        key = kind, sample_rate
        if key not in self._cycles:
            generator = np.random.default_rng([self.seed, KINDS.index(kind)])
            num_samples = CYCLE_S * sample_rate
            self._cycles[key] = coloured_cycle(SLOPES[kind], num_samples, sample_rate, generator)
        return self._cycles[key]


def coloured_cycle(
    slope: float, num_samples: int, sample_rate: int, generator: np.random.Generator
) -> NDArray[np.float32]:
    """Gaussian noise whose power spectrum is a straight line above 20 Hz, drawn as a spectrum.

    Args:
        slope: of the power over the logarithm of the frequency [dB a decade].
        num_samples: of the cycle, which has no seam.
        sample_rate: [Hz].
        generator: source of the draws.

    Returns:
        `(num_samples,)` float32, at no particular level.
    """
    hertz = np.fft.rfftfreq(num_samples, 1 / sample_rate)
    audible = hertz >= LOWEST_HZ
    draws = generator.standard_normal((len(hertz), 2), dtype=np.float32).view(np.complex64)[:, 0]
    amplitude = np.zeros(len(hertz), dtype=np.float32)
    amplitude[audible] = (hertz[audible] / LOWEST_HZ) ** (slope / 20)
    return np.fft.irfft(draws * amplitude, num_samples).astype(np.float32, copy=False)


def hum(sample_rate: int, generator: np.random.Generator) -> NDArray[np.float32]:
    """A second of mains hum: harmonics that fall off, each of a drawn level and phase.

    Args:
        sample_rate: [Hz].
        generator: source of the draws.

    Returns:
        `(sample_rate,)` float32, a cycle without a seam, at no particular level.
    """
    mains_hz = MAINS_HZ[generator.integers(len(MAINS_HZ))]
    order = np.arange(1, NUM_HARMONICS + 1)
    level = generator.uniform(0.1, 1.0, NUM_HARMONICS) / order
    phase = generator.uniform(0, 2 * np.pi, NUM_HARMONICS)
    spectrum = np.zeros(sample_rate // 2 + 1, dtype=np.complex64)  # bins 1 Hz apart
    heard = order * mains_hz < sample_rate / 2
    spectrum[order[heard] * mains_hz] = (level * np.exp(1j * phase))[heard]
    return np.fft.irfft(spectrum, sample_rate).astype(np.float32, copy=False)
