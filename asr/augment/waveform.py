"""Variations of a waveform: speed, noise and gain."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

MAX_GAIN_DB = 100.0  # [dB] more than the range of 16-bit samples


class WaveformAugment:
    """Play an utterance faster or slower, louder or softer, in silence or in noise.

    Speed changes tempo and pitch together by resampling (Ko et al., "Audio augmentation for speech
    recognition", Interspeech 2015).

    Args:
        speeds: factors, one drawn an utterance; 1.1 is 10 % faster and so 10 % shorter.
        gain_db: range (lowest, highest) of a gain drawn evenly [dB].
        snr_db: range (lowest, highest) of the ratio of the utterance's power to that of white noise
            added to it, drawn evenly [dB]; None adds none.

    Raises:
        ValueError: a speed outside 0.5 to 2, or a range the wrong way round or absurd.
    """

    def __init__(
        self,
        speeds: Sequence[float] = (1.0,),
        gain_db: Sequence[float] = (0.0, 0.0),
        snr_db: Sequence[float] | None = None,
    ) -> None:
        if not speeds or not all(0.5 <= speed <= 2.0 for speed in speeds):
            raise ValueError(f"speeds {list(speeds)}, expected factors from 0.5 to 2")
        self.speeds = tuple(speeds)
        self.gain_db = _range("gain_db", gain_db)
        self.snr_db = None if snr_db is None else _range("snr_db", snr_db)

    @property
    def fastest(self) -> float:
        """The largest speed factor: it leaves the fewest frames."""
        return max(self.speeds)

    @property
    def slowest(self) -> float:
        """The smallest speed factor: it makes the longest waveforms."""
        return min(self.speeds)

    def __call__(
        self, waveform: NDArray[np.float32], sample_rate: int, generator: np.random.Generator
    ) -> NDArray[np.float32]:
        """Vary one waveform.

        Args:
            waveform: `(num_samples,)` float32.
            sample_rate: [Hz].
            generator: source of the draws; the same state gives the same result.

        Returns:
            `(about num_samples / speed,)` float32.
        """
        speed = self.speeds[generator.integers(len(self.speeds))]
        gain = generator.uniform(*self.gain_db)
        if speed != 1.0:
            waveform = change_speed(waveform, speed, sample_rate)
        if self.snr_db is not None:
            waveform = add_noise(waveform, generator.uniform(*self.snr_db), generator)
        return (waveform * np.float32(10 ** (gain / 20))).astype(np.float32, copy=False)


def _range(name: str, pair: Sequence[float]) -> tuple[float, float]:
    if len(pair) != 2 or not -MAX_GAIN_DB <= pair[0] <= pair[1] <= MAX_GAIN_DB:
        raise ValueError(
            f"{name} {list(pair)}, "
            f"expected [lowest, highest] within -{MAX_GAIN_DB:g} to {MAX_GAIN_DB:g} dB"
        )
    return pair[0], pair[1]


def add_noise(
    waveform: NDArray[np.float32], snr_db: float, generator: np.random.Generator
) -> NDArray[np.float32]:
    """Add white noise, `snr_db` below the waveform's mean power."""
    if not len(waveform):
        return waveform
    level = np.sqrt(np.mean(np.square(waveform)) / 10 ** (snr_db / 10))
    return waveform + np.float32(level) * generator.standard_normal(len(waveform), np.float32)


def change_speed(
    waveform: NDArray[np.float32], speed: float, sample_rate: int
) -> NDArray[np.float32]:
    """Resample so that the waveform, played at the same rate, runs `speed` times as fast."""
    import soxr

    return np.asarray(soxr.resample(waveform, sample_rate * speed, sample_rate, "HQ"), np.float32)
