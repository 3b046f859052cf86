"""Noise added to a waveform at a drawn distance below the speech: recorded, or drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from asr.audio import list_recordings, load_audio
from asr.augment.bounds import checked_db, checked_probability

FRAME_S = 0.02  # [s] of which a speech pause has several
ACTIVE_DB = 30.0  # [dB] below the loudest frame there is no speech left
CYCLE_S = 60  # [s] of each colour, drawn once: an utterance begins anywhere in it
SLOPES = {"white": 0.0, "pink": -10.0, "brown": -20.0}  # [dB a decade] of the power spectrum
LOWEST_HZ = 20.0  # [Hz] nothing below: brown noise would have nearly all its power there
MAINS_HZ = (50, 60)  # [Hz] in most of the world, and in America
NUM_HARMONICS = 20
KINDS = (*SLOPES, "hum")
FADE_S = 0.01  # [s] over which a recording that is too short goes into its own beginning
SPARE_S = 0.01  # [s] read beyond what is needed, for the rounding of other sample rates


class NoiseSource(Protocol):
    """Where noise comes from, at any level: `Noise` scales it."""

    def __call__(
        self, num_samples: int, sample_rate: int, generator: np.random.Generator
    ) -> NDArray[np.float32]:
        """Draw a stretch to read, `(num_samples,)` float32 at `sample_rate` [Hz]."""
        ...


class Noise:
    """Adds noise to some utterances.

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
    """Measure the power of the frames where somebody speaks: at most 30 dB below the loudest.

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
    """Measure the mean square of a waveform's samples; 0 for none."""
    # Not by a dot product: that may round in another way on another number of threads.
    return float(np.square(waveform).mean(dtype=np.float64)) if len(waveform) else 0.0


class SyntheticNoise:
    """Draws one of several kinds of noise, each as often as any other.

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
        key = kind, sample_rate
        if kind == "hum":
            cycle = hum(sample_rate, generator)
        elif key in self._cycles:
            cycle = self._cycles[key]
        else:
            own = np.random.default_rng([self.seed, KINDS.index(kind)])
            cycle = coloured_cycle(SLOPES[kind], CYCLE_S * sample_rate, sample_rate, own)
            self._cycles[key] = cycle
        return loop(cycle, int(generator.integers(len(cycle))), num_samples)


def coloured_cycle(
    slope: float, num_samples: int, sample_rate: int, generator: np.random.Generator
) -> NDArray[np.float32]:
    """Draw Gaussian noise whose power spectrum is a straight line above 20 Hz, as a spectrum.

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
    """Draw a second of mains hum: harmonics that fall off, each of its own level and phase.

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
    below = order * mains_hz < sample_rate / 2
    spectrum[order[below] * mains_hz] = (level * np.exp(1j * phase))[below]
    return np.fft.irfft(spectrum, sample_rate).astype(np.float32, copy=False)


class NoiseFiles:
    """Draws stretches of recordings, of which nothing stays in memory.

    A file is drawn, each as often as any other, then a place in it. A recording that is shorter
    than the utterance is repeated, its end faded into its beginning.

    Args:
        folder: of recordings in any format and at any rate; WAV at the model's rate costs least.

    Raises:
        ValueError: a folder that is missing or has no audio, a file that is no audio.
        OSError: a file that may not be read.
    """

    def __init__(self, folder: Path | str) -> None:
        self.recordings = list_recordings(folder)

    def __call__(
        self, num_samples: int, sample_rate: int, generator: np.random.Generator
    ) -> NDArray[np.float32]:
        """Draw one stretch.

        Args:
            num_samples: of the stretch.
            sample_rate: [Hz].
            generator: source of the draws.

        Returns:
            `(num_samples,)` float32.

        Raises:
            ValueError: a recording that is damaged beyond its header; the message names it.
            OSError: a recording that has gone.
        """
        recording = self.recordings[generator.integers(len(self.recordings))]
        place = generator.random()
        duration = num_samples / sample_rate + SPARE_S
        spare = recording.info.duration - duration
        if spare <= 0:
            part = load_audio(recording.path, sample_rate)
        else:
            part = load_audio(recording.path, sample_rate, offset=place * spare, duration=duration)
        if len(part) >= num_samples:
            return part[:num_samples]
        cycle = seamless(part, round(FADE_S * sample_rate))
        return loop(cycle, int(place * len(cycle)), num_samples)


def loop(cycle: NDArray[np.float32], start: int, num_samples: int) -> NDArray[np.float32]:
    """Cut a stretch out of a waveform that is repeated without end.

    Args:
        cycle: `(n,)`, what is repeated; at least one sample.
        start: where in the cycle the stretch begins [samples].
        num_samples: of the stretch.

    Returns:
        `(num_samples,)`; a view of the cycle where it lies within it.
    """
    end = start + num_samples
    return (cycle if end <= len(cycle) else np.resize(cycle, end))[start:end]


def seamless(recording: NDArray[np.float32], overlap: int) -> NDArray[np.float32]:
    """Make a recording a cycle: its end fades out while its beginning fades in.

    The fades keep the power of what is not correlated, as noise is.

    Args:
        recording: `(num_samples,)`.
        overlap: length of the fades [samples]; at most half of the recording is taken.

    Returns:
        `(num_samples - overlap,)` float32, to be given to `loop`.
    """
    overlap = min(overlap, len(recording) // 2)
    cycle = recording[: len(recording) - overlap].copy()
    angle = np.linspace(0, np.pi / 2, overlap, endpoint=False, dtype=np.float32)
    cycle[:overlap] *= np.sin(angle)
    cycle[:overlap] += np.cos(angle) * recording[len(recording) - overlap :]
    return cycle
