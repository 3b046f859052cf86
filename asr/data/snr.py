"""How far the speech of a recording stands above its noise, told from the recording alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from asr.augment.noise import ACTIVE_DB, FRAME_S

QUIET_SHARE = 0.1  # of the frames; in speech, more than a tenth are pauses or closures of stops
MIN_FRAMES = 10  # below that a tenth is no frame at all
SPEECH_DB = 2.0  # [dB] above the noise; what is lower cannot be told from it


def estimate_snr(waveform: NDArray[np.float32], sample_rate: int) -> float | None:
    """Estimate the ratio of the speech's active power to the noise's mean power.

    Powers of frames of 20 ms: the noise is their tenth percentile; the speech is the mean of the
    frames at most 30 dB below the loudest and at least 2 dB above the noise, less the noise.
    Frames of digital silence (zeros) belong to no recording and are left out. Where nobody pauses
    for a tenth of the time, the quietest speech passes for noise and the estimate is too low; below
    10 dB quiet syllables drown, and it is up to 4 dB too high; noise that comes and goes with the
    speech is taken for speech.

    Args:
        waveform: `(num_samples,)`.
        sample_rate: [Hz].

    Returns:
        The ratio [dB]; None with less than 0.2 s of sound, or where nothing stands out of it.
    """
    frame = max(1, round(FRAME_S * sample_rate))
    frames = waveform[: len(waveform) // frame * frame].reshape(-1, frame)
    powers = np.square(frames, dtype=np.float64).mean(axis=1)
    powers = powers[powers > 0]
    if len(powers) < MIN_FRAMES:
        return None
    noise = float(np.quantile(powers, QUIET_SHARE))
    threshold = max(powers.max() * 10 ** (-ACTIVE_DB / 10), noise * 10 ** (SPEECH_DB / 10))
    speech = powers[powers >= threshold]
    if not len(speech):
        return None
    return round(10 * float(np.log10((speech.mean() - noise) / noise)), 2)
