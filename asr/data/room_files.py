"""Rooms from a folder of recorded impulse responses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asr.audio import load_audio
from asr.data.audio_folder import list_recordings

MAX_RECORDING_S = 30.0  # [s] what is longer is no impulse response


class RoomFiles:
    """Recorded impulse responses, each drawn as often as any other.

    The loudest sample of a recording is taken for the direct sound, and what comes before it is
    cut off, so that speech stays where it is in time.

    Args:
        folder: of recordings of at most 30 s with one channel, in any format and at any rate.
        longest_s: what comes later after the direct sound is cut off [s].

    Raises:
        ValueError: a folder that is missing or has no audio, a file that is no audio, is
            too long or has several channels, whose average would be no room; no length to keep.
        OSError: a file that may not be read.
    """

    def __init__(self, folder: Path | str, longest_s: float = 2.0) -> None:
        if not 0 < longest_s <= 10:
            raise ValueError(f"longest_s {longest_s:g}, expected more than 0, at most 10")
        self.recordings = list_recordings(folder)
        self.longest_s = longest_s
        for recording in self.recordings:
            info = recording.info
            if info.num_channels != 1 or info.duration > MAX_RECORDING_S:
                raise ValueError(
                    f"{recording.path}: {info.duration:g} s in {info.num_channels} channel(s), "
                    f"expected an impulse response: one channel, at most {MAX_RECORDING_S:g} s"
                )

    def __call__(self, sample_rate: int, generator: np.random.Generator) -> NDArray[np.float32]:
        """Draw one response, `(num_taps,)` float32 at `sample_rate` [Hz], direct sound first.

        Raises:
            ValueError: a recording of silence, or damaged beyond its header.
            OSError: a recording that has gone.
        """
        path = self.recordings[generator.integers(len(self.recordings))].path
        recorded = load_audio(path, sample_rate)
        size = np.abs(recorded)
        direct = int(size.argmax())
        if not size[direct]:
            raise ValueError(f"{path}: silence, expected an impulse response")
        # Divided, so that no level, however low, is lost on the way through a transform.
        response: NDArray[np.float32] = recorded[direct:] / size[direct]
        return response[: max(1, round(self.longest_s * sample_rate))]
