"""Samples that are in memory already, in the form in which other libraries hold them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_ARRAY_CHANNELS = 8  # what has more on both axes does not tell which of them is time
BLOCK_SAMPLES = 1 << 19  # converted at a time
FULL_SCALES = {"i2": 2.0**15, "i4": 2.0**31, "i1": 2.0**7}  # of whole numbers, around 0


class AudioArray:
    """An array of samples, to be read as a file is (`audio_file.AudioFile`).

    Args:
        samples: `(num_samples,)`, `(channels, num_samples)` or `(num_samples, channels)`, an array
            of NumPy or a tensor of torch. Floats are nominally within -1 to 1; int16, int32, int8
            and uint8 are scaled to that.
        sample_rate: [Hz].
        name: for messages.

    Attributes:
        name: for messages.
        sample_rate: [Hz].
        num_channels: 1 for mono.
        num_samples: samples a channel.

    Raises:
        ValueError: other numbers, or axes that do not tell which of them is time.
    """

    num_samples: int | None

    def __init__(self, samples: Any, sample_rate: int, name: str = "") -> None:
        if hasattr(samples, "detach"):  # a tensor: asking so imports no torch
            samples = samples.detach().cpu().numpy()
        shape = "x".join(map(str, samples.shape))
        self.name = name or f"<array of {shape} samples>"
        self.sample_rate = sample_rate
        if samples.ndim == 1:
            samples = samples[:, None]
        elif samples.ndim == 2 and (
            (samples.shape[0] <= MAX_ARRAY_CHANNELS) != (samples.shape[1] <= MAX_ARRAY_CHANNELS)
        ):
            samples = samples.T if samples.shape[0] <= MAX_ARRAY_CHANNELS else samples
        else:
            raise ValueError(
                f"{self.name}: expected (samples,), (channels, samples) or (samples, channels) "
                f"with up to {MAX_ARRAY_CHANNELS} channels"
            )
        kind = f"{samples.dtype.kind}{samples.dtype.itemsize}"
        if samples.dtype.kind != "f" and kind != "u1" and kind not in FULL_SCALES:
            raise ValueError(
                f"{self.name}: numbers of type {samples.dtype}, expected float32, float64, int16, "
                "int32, int8 or uint8"
            )
        self._samples, self._scale = samples, FULL_SCALES.get(kind)
        self.num_samples, self.num_channels = samples.shape

    def blocks(self, start: int = 0, count: int | None = None) -> Iterator[NDArray[np.float32]]:
        """Give samples from one on as float32 `(n, num_channels)`: all, or so many."""
        end = len(self._samples) if count is None else min(start + count, len(self._samples))
        for place in range(start, end, BLOCK_SAMPLES):
            part = self._samples[place : min(place + BLOCK_SAMPLES, end)]
            if part.dtype == np.uint8:
                part = (part.astype(np.float32) - 128) / 128
            elif self._scale is not None:
                part = part * np.float32(1 / self._scale)
            with np.errstate(over="ignore"):  # becomes Inf, which is refused
                yield part.astype(np.float32, copy=False)

    def promised_beyond_end(self) -> int:
        """Count no sample: an array has what it says."""
        return 0

    def is_cut_ogg(self) -> bool:
        """Tell that it is no Ogg file."""
        return False
