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
PHRASE_PAUSE_S = 0.6  # [s] the same where a segment has to be a whole phrase
LONG_PAUSE_S = 0.45  # [s] without so long a pause, also at its ends, a recording
UTTERANCE_S = 10.0  # [s] that is no longer is an utterance, and stays as it is
MARGIN_S = 0.1  # [s] kept around speech: soft beginnings and ends
LONGEST_S = 300.0  # [s] of a segment without a pause, which is cut where it is quietest in
CUT_S = 60.0  # [s] its last so many: memory does not grow with it

# Frames on either side on which it depends whether a frame has speech.
SEEN_FRAMES = round(FLOOR_S / FRAME_S) + STEADY_FRAMES + round(STEADY_S / FRAME_S)


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


@dataclass(frozen=True)
class _Region:
    """A run of frames with speech, short pauses inside: first frame, and behind the last."""

    first: int
    last: int

    @property
    def seconds(self) -> float:
        return (self.last - self.first) * FRAME_S


def find_segments(
    waveform: NDArray[np.float32], sample_rate: int, pause_s: float = PAUSE_S
) -> list[Span]:
    """Find the stretches of a recording that have speech, cut in its pauses.

    A frame has speech where its level is some way from the floor of the noise around it to the
    loudest that is around it. Both follow the recording, so a gain, a noise that begins or a voice
    that comes nearer change little. What is steady for longer than STEADY_S has none. A short
    recording without long pauses is an utterance, of the kind that models learn from: it stays
    whole. What has no pause for more than LONGEST_S is cut where it is quietest.

    Args:
        waveform: `(num_samples,)`.
        sample_rate: [Hz].
        pause_s: that a pause has at least [s].

    Returns:
        In order; they do not overlap and have MARGIN_S around their speech where the
        recording and its other segments leave room.
    """
    finder = SegmentFinder(sample_rate, pause_s)
    return [*finder.feed(waveform), *finder.finish()]


class SegmentFinder:
    """Finds the segments of a recording that comes block by block, as `find_segments` does.

    The segments do not depend on the blocks: each is known some 20 s after its end.

    Args:
        sample_rate: [Hz].
        pause_s: that a pause has at least [s].

    Attributes:
        num_samples: that have come.
    """

    def __init__(self, sample_rate: int, pause_s: float = PAUSE_S) -> None:
        self.sample_rate = sample_rate
        self.pause_s = pause_s
        self.num_samples = 0
        self._hop = round(FRAME_S * sample_rate)
        self._samples = np.zeros(0, np.float32)  # from one hop before the next frame on
        self._num_frames = 0  # whose level is measured
        self._levels = np.zeros(0, np.float32)  # those from `_levels_from` on
        self._levels_from = 0
        self._num_decided = 0  # frames of which is known whether they have speech
        self._open: _Region | None = None  # speech that may go on
        self._previous_last: int | None = None  # frame behind the region before

    @property
    def earliest(self) -> int:
        """The first sample that a segment to come may have."""
        first = self._num_decided if self._open is None else self._open.first
        return max(0, first * self._hop - round(self.pause_s * self.sample_rate))

    def feed(self, block: NDArray[np.float32]) -> list[Span]:
        """Take the next samples `(n,)`, of any number, and return the segments known by now."""
        spans: list[Span] = []
        step = FRAMES_AT_ONCE * self._hop
        for place in range(0, len(block), step):  # never is a long block copied as a whole
            part = block[place : place + step]
            self.num_samples += len(part)
            self._samples = np.concatenate([self._samples, part])
            # Always the same frames at once, so that not even a rounding depends on the blocks.
            before = self._hop if self._num_frames else 0
            if len(self._samples) >= before + step + self._hop:
                self._measure(self._samples[: before + step + self._hop], FRAMES_AT_ONCE)
                self._samples = self._samples[before + step - self._hop :]
                regions = self._decide(max(self._num_frames - SEEN_FRAMES, 0))
                if self._open is not None and self._is_over(self._open, self._num_decided):
                    regions += self._close()
                spans += self._spans(regions, None if self._open is None else self._open.first)
        return spans

    def finish(self) -> list[Span]:
        """Return the segments that are left, at the recording's end."""
        num_frames = -(-self.num_samples // self._hop)
        if num_frames > self._num_frames:
            self._measure(self._samples, num_frames - self._num_frames)
        regions = [*self._decide(num_frames), *self._close()]
        if regions and self.num_samples <= UTTERANCE_S * self.sample_rate:
            # Nothing was decided before: SEEN_FRAMES are longer than an utterance.
            edges = [0, *(edge for each in regions for edge in (each.first, each.last)), num_frames]
            pauses = [b - a for a, b in zip(edges[::2], edges[1::2], strict=True)]
            if max(pauses) * FRAME_S < max(LONG_PAUSE_S, self.pause_s):
                return [Span(0, self.num_samples)]
        spans = self._spans(regions, None)
        if regions:
            pause = round(self.pause_s * self.sample_rate)
            if regions[-1].last * self._hop > self.num_samples - pause:
                spans[-1] = Span(spans[-1].start, self.num_samples)
        return spans

    def _measure(self, samples: NDArray[np.float32], num_frames: int) -> None:
        """Measure the levels of the next frames, of samples from one hop before them on."""
        # The recording's ends are mirrored: zeros would make a step of an offset.
        before = 0 if self._num_frames else self._hop
        after = max((num_frames + 2) * self._hop - before - len(samples), 0)
        padded = np.pad(samples, (before, after), mode="symmetric") if before or after else samples
        self._levels = np.append(self._levels, frame_levels(padded, self.sample_rate))
        self._num_frames += num_frames

    def _decide(self, up_to: int) -> list[_Region]:
        """Tell frames up to this one speech or none; return the regions that ended by that."""
        is_speech = _is_speech(self._levels)
        place = self._num_decided - self._levels_from
        regions: list[_Region] = []
        for first, last in _runs(is_speech[place : up_to - self._levels_from]):
            first, last = first + self._num_decided, last + self._num_decided
            if self._open is not None and self._is_over(self._open, first):
                regions += self._close()
            self._open = _Region(first if self._open is None else self._open.first, last)
            while self._open.seconds > LONGEST_S:
                cut = self._quietest(self._open.first)
                regions.append(_Region(self._open.first, cut))
                self._open = _Region(cut, last)
        self._num_decided = up_to
        kept_from = up_to if self._open is None else min(up_to, self._open.first)
        kept_from = max(kept_from - SEEN_FRAMES, self._levels_from)
        self._levels = self._levels[kept_from - self._levels_from :]
        self._levels_from = kept_from
        return regions

    def _is_over(self, region: _Region, first: int) -> bool:
        """Whether speech from a frame on is behind a pause, and so of another segment."""
        return not (first - region.last) * FRAME_S < self.pause_s

    def _close(self) -> list[_Region]:
        """End the open region; none, if that was a click."""
        region, self._open = self._open, None
        return [] if region is None or region.seconds < CLICK_S else [region]

    def _quietest(self, first: int) -> int:
        """The quietest frame of the last ones that a region from `first` on may have."""
        end = first - self._levels_from + round(LONGEST_S / FRAME_S)
        start = end - round(CUT_S / FRAME_S)
        return self._levels_from + start + int(_smooth(self._levels[start:end]).argmin())

    def _spans(self, regions: list[_Region], following: int | None) -> list[Span]:
        """Make segments of regions; `following` is the first frame of the one behind them."""
        hop, margin = self._hop, round(MARGIN_S * self.sample_rate)
        firsts = [*(region.first for region in regions[1:]), following]
        spans = []
        for region, after in zip(regions, firsts, strict=False):
            start, end = region.first * hop - margin, region.last * hop + margin
            if self._previous_last is not None:  # half a pause belongs to each side
                start = max(start, (self._previous_last + region.first) * hop // 2)
            elif region.first * hop < round(self.pause_s * self.sample_rate):
                start = 0
            if after is not None:
                end = min(end, (region.last + after) * hop // 2)
            spans.append(Span(start, end))
            self._previous_last = region.last
        return spans


def frame_levels(waveform: NDArray[np.float32], sample_rate: int) -> NDArray[np.float32]:
    """Measure the level of each frame in the band where voices are, without offset and rumble.

    Args:
        waveform: `(num_samples,)`, with a frame before the first one and behind the last.
        sample_rate: [Hz].

    Returns:
        `(num_samples / hop - 2,)` [dB] of full scale, at least LOWEST_DB; frame t is centred on
        `(t + 1.5) * FRAME_S` of the waveform.
    """
    hop = round(FRAME_S * sample_rate)
    size = WINDOW_FRAMES * hop
    window = np.hanning(size + 1)[:-1].astype(np.float32)
    hertz = np.fft.rfftfreq(size, 1 / sample_rate)
    in_band = np.flatnonzero((hertz >= BAND_HZ[0]) & (hertz <= BAND_HZ[1]))
    band = slice(in_band[0], in_band[-1] + 1)
    # By Parseval's theorem: both halves of the spectrum, over the window's power.
    scale = 2 / (size * float(np.square(window).sum()))
    frames = np.lib.stride_tricks.sliding_window_view(waveform, size)[::hop]
    spectrum = np.fft.rfft((frames - frames.mean(axis=1, keepdims=True)) * window)[:, band]
    power = scale * (np.square(spectrum.real) + np.square(spectrum.imag)).sum(axis=1)
    levels: NDArray[np.float32] = 10 * np.log10(np.maximum(power, 10 ** (LOWEST_DB / 10)))
    return levels.astype(np.float32)


def _is_speech(levels: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Whether each frame has speech, from the levels up to SEEN_FRAMES on either side of it."""
    size = 2 * round(FLOOR_S / FRAME_S) + 1
    floor = _extremes(levels, size, np.minimum)
    loudest = _extremes(_smooth(levels), size, np.maximum)
    spread = loudest - floor
    threshold = np.maximum(floor + np.maximum(RISE * spread, RISE_DB), loudest - DEPTH_DB)
    is_speech: NDArray[np.bool_] = levels > threshold
    for first, last in _runs(spread < RANGE_DB):
        is_short = (last - first) * FRAME_S < STEADY_S
        is_speech[first:last] = is_short and levels[first:last].max() > LOWEST_DB
    return is_speech


def _extremes(levels: NDArray[np.float32], size: int, of: np.ufunc) -> NDArray[np.float32]:
    """The greatest or least of `size` levels around each, an odd number; ends go on as they are.

    In blocks of that size, up to each level and from it on: two of them meet in every window (van
    Herk, "A fast algorithm for local minimum and maximum filters", 1992). SciPy, whose import takes
    a quarter of a second, has the same.
    """
    count = len(levels)
    if not count:
        return levels
    padded = np.pad(levels, (size // 2, size // 2 + -(count - 1) % size), mode="edge")
    blocks = padded.reshape(-1, size)
    until = of.accumulate(blocks, axis=1).reshape(-1)
    since = of.accumulate(blocks[:, ::-1], axis=1)[:, ::-1].reshape(-1)
    found: NDArray[np.float32] = of(since[:count], until[size - 1 : size - 1 + count])
    return found


def _smooth(levels: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean of STEADY_FRAMES levels around each; a running sum would round by its history."""
    if not len(levels):
        return levels
    half = STEADY_FRAMES // 2
    padded = np.pad(levels, (half, STEADY_FRAMES - 1 - half), mode="edge")
    total = np.zeros(len(levels), np.float32)
    for shift in range(STEADY_FRAMES):
        total += padded[shift : shift + len(levels)]
    return total / np.float32(STEADY_FRAMES)


def _runs(flags: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """First index of each run of True, and behind its last."""
    edges = np.flatnonzero(np.diff(flags.astype(np.int8), prepend=0, append=0))
    return [(int(first), int(last)) for first, last in edges.reshape(-1, 2)]
