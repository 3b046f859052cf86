"""Whether an exported model says what the original does: both hear the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from asr.onnx_model import OnnxModel
from asr.quantization import Storage
from asr.recognizer import Recognizer
from asr.speech_model import Waveform

# [nats] The greatest difference of a log-probability. In float32 it is that of sums in another
# order; weights of fewer bits are other weights: docs/results.md says what they cost.
TOLERANCES: Mapping[Storage, float] = {"float32": 0.002, "float16": 0.2, "int8": 3.0}
PARTS = (1.0, 0.6, 0.25)  # of the recording that are heard, side by side
CHUNK_S = 1.0  # [s] of the steps that a live model takes
MADE_S = 6.0  # [s] of the sound that is made where no recording is given


@dataclass(frozen=True)
class Agreement:
    """How far an exported model is from the original.

    Attributes:
        largest: difference of a log-probability [nats].
        num_changed: output frames whose likeliest label is another.
        num_frames: output frames in all.
    """

    largest: float
    num_changed: int
    num_frames: int


def compare(recognizer: Recognizer, model: OnnxModel, waveform: Waveform) -> Agreement:
    """Run both on parts of a recording: the original on each, the other on all in one batch.

    So it is seen too that padding has no effect. A live model takes steps.

    Args:
        recognizer: the original.
        model: exported.
        waveform: `(num_samples,)` at their sample rate.
    """
    parts = [waveform[: max(1, round(share * len(waveform)))] for share in PARTS]
    found, lengths = model.log_probs(parts, chunk_s=CHUNK_S if model.is_live else None)
    largest, num_changed, num_frames = 0.0, 0, 0
    for part, row, length in zip(parts, found, lengths, strict=True):
        (expected,), (count,) = recognizer.log_probs([part])
        if count != length:
            raise ValueError(f"{length} output frames of {len(part)} samples, expected {count}")
        if not np.isfinite(row[:length]).all():
            raise ValueError("log-probabilities that are no numbers, expected numbers")
        largest = max(largest, float(np.abs(row[:length] - expected).max(initial=0.0)))
        num_changed += int((row[:length].argmax(1) != expected.argmax(1)).sum())
        num_frames += int(length)
    return Agreement(largest, num_changed, num_frames)


def made_sound(sample_rate: int) -> Waveform:
    """Make MADE_S of something like speech: syllables of a gliding voice, in soft noise."""
    draws = np.random.default_rng(0)
    time = np.arange(round(MADE_S * sample_rate)) / sample_rate
    pitch = 120 + 40 * np.sin(2 * np.pi * 0.4 * time)  # [Hz]
    phase = 2 * np.pi * np.cumsum(pitch) / sample_rate
    voice = np.zeros_like(time)
    for harmonic in range(1, 1 + int(sample_rate / 2 // 160)):
        frequency = harmonic * pitch
        # Two formants that move, as vowels follow each other.
        gain = np.zeros_like(time)
        for centre in (500 + 200 * np.sin(2 * time), 1600 + 600 * np.sin(3.1 * time)):
            gain += np.exp(-(((frequency - centre) / 250) ** 2))
        voice += gain * np.sin(harmonic * phase)
    syllables = np.clip(np.sin(2 * np.pi * 2.3 * time) + 0.3, 0, None)
    sound = voice * syllables + 0.01 * draws.standard_normal(len(time))
    made: Waveform = (0.3 * sound / np.abs(sound).max()).astype(np.float32)
    return made
