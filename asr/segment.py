"""Where speech is in a recording, by its level over the noise, and cuts in the pauses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FRAME_S = 0.01  # [s] between levels
WINDOW_FRAMES = 3  # of a level: 30 ms, two periods of the lowest voice
STEADY_FRAMES = 10  # over which the loudest is averaged: a click is no voice
BAND_HZ = (150.0, 5_000.0)  # above rumble and most hum, below what many a recording lacks
FRAMES_AT_ONCE = 1 << 10  # so that an hour takes no memory beside itself
FLOOR_S = 8.0  # [s] on either side, over which floor and loudest are looked for
LOWEST_DB = -100.0  # [dB] of full scale, of digital silence
RANGE_DB = 8.0  # [dB] between floor and loudest: steadier than this is no speech
STEADY_S = 3.0  # [s] that a steady sound must last to be no speech: a vowel alone does not
RISE = 0.3  # of the way from floor to loudest, above which is speech
RISE_DB = 5.0  # [dB] that it is at least
DEPTH_DB = 45.0  # [dB] below the loudest there is no speech, however quiet the room
CLICK_S = 0.05  # [s] a sound that is shorter, with pauses around it, is no speech
PAUSE_S = 0.3  # [s] a shorter pause stays within a segment
LONG_PAUSE_S = 0.45  # [s] without so long a pause, also at its ends, a recording
UTTERANCE_S = 10.0  # [s] that is no longer is an utterance, and stays as it is
MARGIN_S = 0.1  # [s] kept around speech: soft beginnings and ends


@dataclass(frozen=True)
class Span:
    """A stretch of a recording with speech in it.

    Attributes:
        start: first sample.
        end: behind the last sample.
    """

    start: int
    end: int

    @property
    def length(self) -> int:
        """Samples."""
        return self.end - self.start


def find_segments(waveform: NDArray[np.float32], sample_rate: int) -> list[Span]:
    """Find the stretches of a recording that have speech, cut in pauses of at least PAUSE_S.

    A frame has speech where its level is some way from the floor of the noise around it to the
    loudest that is around it. Both follow the recording, so a gain, a noise that begins or a voice
    that comes nearer change little. What is steady for longer than STEADY_S has none. A short
    recording without long pauses is an utterance, of the kind that models learn from: it stays
    whole.

    Args:
        waveform: `(num_samples,)`.
        sample_rate: [Hz].

    Returns:
        In order; they do not overlap and have MARGIN_S around their speech where the
        recording and its other segments leave room.
    """
    hop = round(FRAME_S * sample_rate)
    regions = _regions(_is_speech(frame_levels(waveform, sample_rate)))
    edges = [0, *(edge for region in regions for edge in region), -(-len(waveform) // hop)]
    pauses = [after - before for before, after in zip(edges[::2], edges[1::2], strict=True)]
    is_short = len(waveform) <= UTTERANCE_S * sample_rate
    if regions and is_short and max(pauses) * FRAME_S < LONG_PAUSE_S:
        return [Span(0, len(waveform))]
    margin, pause = round(MARGIN_S * sample_rate), round(PAUSE_S * sample_rate)
    spans = []
    for number, (first, last) in enumerate(regions):
        start, end = first * hop - margin, last * hop + margin
        if number:  # half a pause belongs to each side
            start = max(start, (regions[number - 1][1] + first) * hop // 2)
        elif first * hop < pause:
            start = 0
        if number + 1 < len(regions):
            end = min(end, (last + regions[number + 1][0]) * hop // 2)
        elif last * hop > len(waveform) - pause:
            end = len(waveform)
        spans.append(Span(start, end))
    return spans


def frame_levels(waveform: NDArray[np.float32], sample_rate: int) -> NDArray[np.float32]:
    """Measure the level of each frame in the band where voices are, without offset and rumble.

    Args:
        waveform: `(num_samples,)`.
        sample_rate: [Hz].

    Returns:
        `(num_frames,)` [dB] of full scale, at least LOWEST_DB; frame t is centred on
        `(t + 0.5) * FRAME_S`.
    """
    hop = round(FRAME_S * sample_rate)
    size = WINDOW_FRAMES * hop
    window = np.hanning(size + 1)[:-1].astype(np.float32)
    hertz = np.fft.rfftfreq(size, 1 / sample_rate)
    in_band = np.flatnonzero((hertz >= BAND_HZ[0]) & (hertz <= BAND_HZ[1]))
    band = slice(in_band[0], in_band[-1] + 1)
    # By Parseval's theorem: both halves of the spectrum, over the window's power.
    scale = 2 / (size * float(np.square(window).sum()))
    num_frames = -(-len(waveform) // hop)
    margin = (size - hop) // 2
    levels = np.full(num_frames, LOWEST_DB, np.float32)
    for first in range(0, num_frames, FRAMES_AT_ONCE):
        last = min(first + FRAMES_AT_ONCE, num_frames)
        start, end = first * hop - margin, last * hop + margin
        part = waveform[max(start, 0) : end]
        # The ends are mirrored: zeros would make a step of an offset.
        missing = max(-start, 0), max(end - max(start, 0) - len(part), 0)
        part = np.pad(part, missing, mode="symmetric")
        frames = np.lib.stride_tricks.sliding_window_view(part, size)[::hop]
        spectrum = np.fft.rfft((frames - frames.mean(axis=1, keepdims=True)) * window)[:, band]
        power = scale * (np.square(spectrum.real) + np.square(spectrum.imag)).sum(axis=1)
        levels[first:last] = 10 * np.log10(np.maximum(power, 10 ** (LOWEST_DB / 10)))
    return levels


def _is_speech(levels: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Whether each frame has speech, from its level."""
    # Imported here: a tenth of a second, which a Transcriber with a detector of its own needs not.
    from scipy.ndimage import maximum_filter1d, minimum_filter1d, uniform_filter1d

    size = 2 * round(FLOOR_S / FRAME_S) + 1
    floor = minimum_filter1d(levels, size, mode="nearest")
    loudest = maximum_filter1d(
        uniform_filter1d(levels, STEADY_FRAMES, mode="nearest"), size, mode="nearest"
    )
    spread = loudest - floor
    threshold = np.maximum(floor + np.maximum(RISE * spread, RISE_DB), loudest - DEPTH_DB)
    is_speech: NDArray[np.bool_] = levels > threshold
    for first, last in _runs(spread < RANGE_DB):
        is_short = (last - first) * FRAME_S < STEADY_S
        is_speech[first:last] = is_short and levels[first:last].max() > LOWEST_DB
    return is_speech


def _regions(is_speech: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Runs of speech, first frame and behind the last, with short pauses inside them."""
    regions: list[tuple[int, int]] = []
    for first, last in _runs(is_speech):
        if regions and (first - regions[-1][1]) * FRAME_S < PAUSE_S:
            regions[-1] = regions[-1][0], last
        else:
            regions.append((first, last))
    return [(first, last) for first, last in regions if (last - first) * FRAME_S >= CLICK_S]


def _runs(flags: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """First index of each run of True, and behind its last."""
    edges = np.flatnonzero(np.diff(flags.astype(np.int8), prepend=0, append=0))
    return [(int(first), int(last)) for first, last in edges.reshape(-1, 2)]
