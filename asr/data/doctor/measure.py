"""Audio of one utterance, measured: rate, length, level, clipping, silence, and a hash of it."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asr.audio import load_audio, probe
from asr.data.manifest import Utterance

FULL_SCALE = 0.999  # samples from here up count as clipped; 16-bit audio reaches 0.99997
FRAME_S = 0.01  # [s] in which silence is looked for
EDGE_DB = 40.0  # [dB] below the loudest frame begins the silence at the ends
LOWEST_DB = -120.0  # [dBFS] of digital silence: 16-bit audio ends near -90


@dataclass(frozen=True)
class Signal:
    """What the samples of an utterance say.

    Attributes:
        level_db: root of the mean square [dB of full scale].
        peak: largest absolute sample, 1 is full scale.
        clipped_share: share of samples at full scale.
        leading_s: silence before the first sound [s].
        trailing_s: silence after the last sound [s].
        digest: of the decoded samples; equal for equal audio in whatever lossless format.
    """

    level_db: float
    peak: float
    clipped_share: float
    leading_s: float
    trailing_s: float
    digest: str


@dataclass(frozen=True)
class Audio:
    """Audio of an utterance.

    Attributes:
        sample_rate: of the file [Hz].
        file_s: length of the file [s], by its header.
        duration_s: of the utterance [s]: what the file really has of it.
        signal: None where the samples were not looked at.
    """

    sample_rate: int
    file_s: float
    duration_s: float
    signal: Signal | None


def measure_audio(utterance: Utterance, decode_up_to_s: float) -> Audio:
    """Measure an utterance at its file's own rate, channels averaged.

    Args:
        utterance: which part of which file.
        decode_up_to_s: look at the header only where the utterance is longer [s]; 0 for all.

    Raises:
        ValueError: damaged, cut short, not audio, NaN or Inf samples, or nothing at the offset.
        OSError: missing or unreadable.
    """
    info = probe(utterance.audio_filepath)
    left_s = info.duration - utterance.offset
    if left_s <= 0:
        raise ValueError(
            f"{utterance.audio_filepath}: offset {utterance.offset:g} s, "
            f"expected less than the file's {info.duration:g} s"
        )
    duration_s = left_s if utterance.duration is None else min(utterance.duration, left_s)
    if duration_s > decode_up_to_s:
        return Audio(info.sample_rate, info.duration, duration_s, None)
    waveform = load_audio(
        utterance.audio_filepath,
        info.sample_rate,
        offset=utterance.offset,
        duration=utterance.duration,
    )
    duration_s = len(waveform) / info.sample_rate
    return Audio(
        info.sample_rate, info.duration, duration_s, measure_signal(waveform, info.sample_rate)
    )


def measure_signal(waveform: NDArray[np.float32], sample_rate: int) -> Signal:
    """Measure a waveform.

    Args:
        waveform: `(num_samples,)` float32, at least one sample.
        sample_rate: [Hz].
    """
    magnitude = np.abs(waveform)
    power = np.square(waveform, dtype=np.float64)
    leading_s, trailing_s = _silent_ends(power, sample_rate)
    digest = hashlib.blake2b(waveform.tobytes(), digest_size=16, person=b"%d" % sample_rate)
    return Signal(
        level_db=decibels(float(power.mean())),
        peak=float(magnitude.max()),
        clipped_share=float(np.mean(magnitude >= FULL_SCALE)),
        leading_s=leading_s,
        trailing_s=trailing_s,
        digest=digest.hexdigest(),
    )


def decibels(power: float) -> float:
    """A power against that of full scale, 1 [dB]; LOWEST_DB for silence."""
    return max(10 * math.log10(power), LOWEST_DB) if power > 0 else LOWEST_DB


def _silent_ends(power: NDArray[np.float64], sample_rate: int) -> tuple[float, float]:
    """Silence at both ends [s] of squared samples `(num_samples,)`; all of it where all is silent.

    Frames so far below the loudest one that only the room is left in them.
    """
    hop = max(round(FRAME_S * sample_rate), 1)
    frames = np.add.reduceat(power, np.arange(0, len(power), hop)) / hop  # (num_frames,)
    loud = np.flatnonzero(frames > frames.max() * 10 ** (-EDGE_DB / 10))
    if not len(loud):
        return len(power) / sample_rate, len(power) / sample_rate
    return loud[0] * hop / sample_rate, (len(frames) - 1 - loud[-1]) * hop / sample_rate
