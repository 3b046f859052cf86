"""Microphones and lines: what a waveform passes on its way is another filter each time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from asr.augment.bounds import checked_probability, checked_range

LOWEST_HZ, HIGHEST_HZ = 50.0, 24_000.0
SLOPE_DB = 24.0  # [dB an octave] outside the band: of four poles
DEEPEST_DB = -60.0  # no less is left of any frequency


class Channel:
    """Passes some utterances through a filter drawn anew: a band, and hills and valleys in it.

    What lies between a mouth and its samples differs more from microphone to microphone than one
    voice from another. The filter keeps the phase, so that sounds stay where they are in time.

    Args:
        colour_db: standard deviation of the gain from octave to octave [dB].
        low_hz: range of the frequency where the band begins, drawn evenly on a log scale [Hz].
        high_hz: range of the frequency where it ends [Hz]; beyond half the sample rate it does not.
        probability: share of the utterances that get one.

    Raises:
        ValueError: a range the wrong way round or out of bounds, a colour outside 0 to 20 dB, or a
            probability outside 0 to 1.
    """

    def __init__(
        self,
        colour_db: float,
        low_hz: Sequence[float],
        high_hz: Sequence[float],
        probability: float = 1.0,
    ) -> None:
        if not 0 <= colour_db <= 20:
            raise ValueError(f"colour_db {colour_db:g}, expected 0 to 20 dB")
        self.colour_db = colour_db
        self.low_hz = checked_range("low_hz", low_hz, 1.0, HIGHEST_HZ, "Hz")
        self.high_hz = checked_range("high_hz", high_hz, self.low_hz[1], HIGHEST_HZ, "Hz")
        self.probability = checked_probability(probability)

    def __call__(
        self, waveform: NDArray[np.float32], sample_rate: int, generator: np.random.Generator
    ) -> NDArray[np.float32]:
        """Vary one waveform `(num_samples,)` at `sample_rate` [Hz]; length and mean power stay."""
        if generator.random() >= self.probability or not len(waveform):
            return waveform
        low, high = (
            float(np.exp(generator.uniform(*np.log(pair)))) for pair in (self.low_hz, self.high_hz)
        )
        octaves = np.arange(np.log2(LOWEST_HZ), np.log2(HIGHEST_HZ) + 1)
        colours = generator.normal(0.0, self.colour_db, len(octaves))
        # As long again in zeros, or what is filtered out of the end would come in at the beginning.
        size = 1 << (2 * len(waveform) - 1).bit_length()
        places = np.log2(np.maximum(np.fft.rfftfreq(size, 1 / sample_rate), 1.0))
        gains_db = np.interp(places, octaves, colours)
        outside = np.maximum(np.log2(low) - places, places - np.log2(high))
        gains_db = np.maximum(gains_db - SLOPE_DB * np.maximum(outside, 0.0), DEEPEST_DB)
        spectrum = np.fft.rfft(waveform, size) * 10 ** (gains_db / 20)
        filtered = np.fft.irfft(spectrum, size)[: len(waveform)]
        power = np.square(filtered).mean()
        scale = np.sqrt(np.square(waveform, dtype=np.float64).mean() / power) if power else 0.0
        return (filtered * scale).astype(np.float32)
