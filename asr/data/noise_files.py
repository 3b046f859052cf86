"""Noise from a folder of recordings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asr.audio import load_audio
from asr.augment.loop import loop, seamless
from asr.data.audio_folder import Recording, list_recordings

FADE_S = 0.01  # [s] over which a recording that is too short goes into its own beginning
SPARE_S = 0.01  # [s] read beyond what is needed, for the rounding of other sample rates


class NoiseFiles:
    """Stretches of recordings, of which nothing stays in memory.

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
        part = _read(recording, place, num_samples / sample_rate + SPARE_S, sample_rate)
        if len(part) >= num_samples:
            return part[:num_samples]
        cycle = seamless(part, round(FADE_S * sample_rate))
        return loop(cycle, int(place * len(cycle)), num_samples)


def _read(
    recording: Recording, place: float, duration: float, sample_rate: int
) -> NDArray[np.float32]:
    """So many seconds from a place between 0 and 1, or all of a recording that is shorter."""
    spare = recording.info.duration - duration
    if spare <= 0:
        return load_audio(recording.path, sample_rate)
    return load_audio(recording.path, sample_rate, offset=place * spare, duration=duration)
