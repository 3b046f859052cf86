"""Variations of a waveform: speed and gain."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

MAX_GAIN_DB = 100.0  # [dB] more than the range of 16-bit samples


class WaveformAugment:
    """Play an utterance faster or slower, louder or softer.

    Speed changes tempo and pitch together by resampling (Ko et al., "Audio augmentation for speech
    recognition", Interspeech 2015).

    Args:
        speeds: factors, one drawn an utterance; 1.1 is 10 % faster and so 10 % shorter.
        gain_db: range (lowest, highest) of a gain drawn evenly [dB].

    Raises:
        ValueError: a speed outside 0.5 to 2, or a range the wrong way round or absurd.
    """

    def __init__(
        self, speeds: Sequence[float] = (1.0,), gain_db: Sequence[float] = (0.0, 0.0)
    ) -> None:
        if not speeds or not all(0.5 <= speed <= 2.0 for speed in speeds):
            raise ValueError(f"speeds {list(speeds)}, expected factors from 0.5 to 2")
        if len(gain_db) != 2 or not -MAX_GAIN_DB <= gain_db[0] <= gain_db[1] <= MAX_GAIN_DB:
            raise ValueError(
                f"gain_db {list(gain_db)}, "
                f"expected [lowest, highest] within -{MAX_GAIN_DB:g} to {MAX_GAIN_DB:g} dB"
            )
        self.speeds = tuple(speeds)
        self.gain_db = (gain_db[0], gain_db[1])

    @property
    def fastest(self) -> float:
        """The largest speed factor: it leaves the fewest frames."""
        return max(self.speeds)

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
        gain = generator.uniform(self.gain_db[0], self.gain_db[1])
        if speed != 1.0:
            waveform = change_speed(waveform, speed, sample_rate)
        return (waveform * np.float32(10 ** (gain / 20))).astype(np.float32, copy=False)


def change_speed(
    waveform: NDArray[np.float32], speed: float, sample_rate: int
) -> NDArray[np.float32]:
    """Resample so that the waveform, played at the same rate, runs `speed` times as fast."""
    import soxr

    return np.asarray(soxr.resample(waveform, sample_rate * speed, sample_rate, "HQ"), np.float32)
