"""A stretch of any length from a recording that is too short for it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def loop(cycle: NDArray[np.float32], start: int, num_samples: int) -> NDArray[np.float32]:
    """A stretch of a waveform that is repeated without end.

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
    """A recording made a cycle: its end fades out while its beginning fades in.

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
