"""Reverberation: a waveform as it sounds at a microphone in a room."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from asr.augment.bounds import checked_probability
from asr.augment.noise import mean_power

BLOCK = 2**15  # samples of a Fourier transform: longer ones leave the cache


class RoomSource(Protocol):
    """Where impulse responses come from."""

    def __call__(self, sample_rate: int, generator: np.random.Generator) -> NDArray[np.float32]:
        """Draw a response to read, `(num_taps,)` float32 at `sample_rate` [Hz], direct first."""
        ...


class Reverberation:
    """Put some utterances into a room.

    Args:
        source: of the rooms' impulse responses.
        probability: share of the utterances that get a room.

    Raises:
        ValueError: a probability outside 0 to 1.
    """

    def __init__(self, source: RoomSource, probability: float = 1.0) -> None:
        self.source = source
        self.probability = checked_probability(probability)

    def __call__(
        self, waveform: NDArray[np.float32], sample_rate: int, generator: np.random.Generator
    ) -> NDArray[np.float32]:
        """Vary one waveform `(num_samples,)` at `sample_rate` [Hz]; length and power stay."""
        if generator.random() >= self.probability or not len(waveform):
            return waveform
        return reverberate(waveform, self.source(sample_rate, generator))


def reverberate(
    waveform: NDArray[np.float32], response: NDArray[np.float32]
) -> NDArray[np.float32]:
    """A waveform in a room, no later and no louder than before.

    Args:
        waveform: `(num_samples,)`, at least one sample.
        response: `(num_taps,)`, of which the first is the direct sound.

    Returns:
        `(num_samples,)` float32, scaled to the waveform's mean power; what rings on is cut off.
    """
    heard = convolve(waveform, response)
    power = mean_power(heard)
    if not power:
        return heard
    heard *= np.float32(np.sqrt(mean_power(waveform) / power))
    return heard


def convolve(waveform: NDArray[np.float32], response: NDArray[np.float32]) -> NDArray[np.float32]:
    """The causal convolution, cut to the waveform's length, by Fourier transforms of blocks.

    Overlap-add: each block is convolved by itself, and its tail is added to the next block.

    Args:
        waveform: `(num_samples,)`, at least one sample.
        response: `(num_taps,)`, at least one tap.

    Returns:
        `(num_samples,)` float32.
    """
    num_samples = len(waveform)
    response = response[:num_samples]
    overlap = len(response) - 1
    num_blocks = -(-num_samples // max(BLOCK - overlap, 3 * overlap))
    size = _fast_size(-(-num_samples // num_blocks) + overlap)
    hop = size - overlap  # no less than the overlap where there are several blocks
    padded = np.zeros(num_blocks * hop, dtype=np.float32)
    padded[:num_samples] = waveform
    spectra = np.fft.rfft(padded.reshape(num_blocks, hop), size)
    spectra *= np.fft.rfft(response, size)
    blocks = np.fft.irfft(spectra, size)
    if overlap:
        blocks[1:, :overlap] += blocks[:-1, hop:]
    heard = blocks[:, :hop].reshape(-1)[:num_samples]
    return np.ascontiguousarray(heard, dtype=np.float32)


def _fast_size(least: int) -> int:
    """The smallest size from `least` up that is a power of two times 1, 3, 5, 9 or 15."""
    return min(odd << (-(-least // odd) - 1).bit_length() for odd in (1, 3, 5, 9, 15))
