"""A recording that is heard while it comes: its log-probabilities, its pauses, and its words.

Samples of any number at a time are gathered to blocks of one size, so that nothing depends on how
they came. Each output frame of the network is made once and belongs to one segment: no word is
lost at a seam, or said twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import soxr
from numpy.typing import NDArray

from asr.audio_array import AudioArray
from asr.decoder import Hypothesis
from asr.speech_model import LogProbs, SpeechModel, Waveform
from asr.text import BLANK_ID
from asr.transcript import Segment

FORWARDS_S = 0.16  # [s] of a block of a model that reads forwards
WINDOW_S = 0.48  # [s] of a block of any other, which is run again with what lies around it:
BEFORE_S = 6.0  # [s]
BEHIND_S = 0.96  # [s]
PAUSE_S = 0.6  # [s] without a label, but for spaces, that end a segment
QUIET_S = 1.0  # [s] without a label that are kept before the first one of a segment
LONGEST_S = 30.0  # [s] of a segment, which is then cut where the blank has been likeliest
CUT_S = 15.0  # [s] in its last so many


class Decoding(Protocol):
    """A decoder at work on one segment, whose frames come one after the other."""

    def push(self, log_probs: NDArray[np.float64]) -> None: ...
    def hypotheses(self) -> list[Hypothesis]: ...


class Emissions(Protocol):
    """The network at work on a recording that comes."""

    def push(self, samples: Waveform) -> LogProbs: ...
    def finish(self) -> LogProbs: ...


def emissions_of(recognizer: SpeechModel) -> Emissions:
    """Begin a recording: step by step where the model reads forwards, else in windows."""
    return Forwards(recognizer) if recognizer.is_live else Windows(recognizer)


class Forwards:
    """Log-probabilities of a model that reads forwards: each frame goes through it once.

    Equal to those of the whole but for the last bits.

    Args:
        recognizer: of which `is_live` is true.
    """

    def __init__(self, recognizer: SpeechModel) -> None:
        self._of, self._timing = recognizer, recognizer.timing
        frame_s = self._timing.hop_length / self._timing.sample_rate
        steps = max(1, round(FORWARDS_S / frame_s / self._timing.subsampling))
        self._block = steps * self._timing.subsampling  # feature frames
        self._waiting = np.zeros(self._timing.silence_before, np.float32)
        self._state = recognizer.begin()
        self._num_samples = self._num_frames = self._given = 0
        self._skip = self._timing.live_delay  # output frames of before the beginning

    def push(self, samples: Waveform) -> LogProbs:
        """Take the next samples `(n,)`, and return the next log-probabilities `(t, V)`."""
        parts = [self._nothing()]
        self._num_samples += len(samples)
        self._waiting = np.concatenate([self._waiting, samples])
        needed = self._timing.window_length(self._block + self._timing.live_extra)
        while len(self._waiting) >= needed:
            parts.append(self._step(self._waiting[:needed], self._block + self._timing.live_extra))
            self._waiting = self._waiting[self._block * self._timing.hop_length :]
            self._num_frames += self._block
        return np.concatenate(parts)

    def finish(self) -> LogProbs:
        """Return the last log-probabilities `(t, V)`."""
        timing = self._timing
        left = timing.feature_count(self._num_samples) - self._num_frames
        # The delay's frames, once more for those that the lookahead still holds back.
        steps = -(-left // timing.subsampling) + timing.live_delay // timing.upsampling
        if not self._num_frames + left or not steps:
            return self._nothing()
        padded = np.zeros(
            timing.window_length(steps * timing.subsampling + timing.live_extra), np.float32
        )
        rest = self._waiting[: len(padded)]
        padded[: len(rest)] = rest
        count = timing.output_count(self._num_samples) - self._given
        return self._step(padded, left)[:count]

    def _step(self, samples: Waveform, num_valid: int) -> LogProbs:
        log_probs, self._state = self._of.step(
            samples[None], np.array([num_valid], np.int64), self._state
        )
        skipped = min(self._skip, log_probs.shape[1])
        self._skip -= skipped
        self._given += log_probs.shape[1] - skipped
        return log_probs[0, skipped:]

    def _nothing(self) -> LogProbs:
        return np.zeros((0, self._of.tokenizer.vocab_size), np.float32)


class Windows:
    """Log-probabilities of any model, in blocks that are run with what lies around them.

    A block is known BEHIND_S after its end. What is said of it depends on BEFORE_S before it and on
    BEHIND_S behind it alone.

    Args:
        recognizer: the model.
    """

    def __init__(self, recognizer: SpeechModel) -> None:
        self._of, timing = recognizer, recognizer.timing
        # Blocks and what lies before them begin on output frames.
        self._step = timing.hop_length * timing.subsampling  # samples
        shift = self._step / timing.sample_rate
        self._block, self._before, self._behind = (
            max(1, round(seconds / shift)) * self._step
            for seconds in (WINDOW_S, BEFORE_S, BEHIND_S)
        )
        self._past = self._waiting = np.zeros(0, np.float32)
        self._num_samples = self._given = 0

    def push(self, samples: Waveform) -> LogProbs:
        """Take the next samples `(n,)`, and return the next log-probabilities `(t, V)`."""
        self._num_samples += len(samples)
        self._waiting = np.concatenate([self._waiting, samples])
        parts = [np.zeros((0, self._of.tokenizer.vocab_size), np.float32)]
        while len(self._waiting) >= self._block + self._behind:
            block = self._waiting[: self._block + self._behind]
            parts.append(self._run(block, self._block // self._step))
            past = np.concatenate([self._past, block[: self._block]])
            self._past = past[max(len(past) - self._before, 0) :]
            self._waiting = self._waiting[self._block :]
        return np.concatenate(parts)

    def finish(self) -> LogProbs:
        """Return the last log-probabilities `(t, V)`."""
        left = self._of.timing.output_count(self._num_samples) - self._given
        if not left:
            return np.zeros((0, self._of.tokenizer.vocab_size), np.float32)
        return self._run(self._waiting, -(-left // self._of.timing.upsampling))[:left]

    def _run(self, block: Waveform, num_steps: int) -> LogProbs:
        """Run what is said in the first `num_steps` of a block."""
        window = np.concatenate([self._past, block])
        up = self._of.timing.upsampling
        log_probs, _ = self._of.log_probs([window])
        first = len(self._past) // self._step * up
        found = log_probs[0, first : first + num_steps * up]
        self._given += len(found)
        return found


class Stream:
    """Transcribes a recording that comes block by block; `Transcriber.stream` begins one.

        stream = transcriber.stream(sample_rate=48_000)
        for block in microphone:
            for segment in stream.push(block):
                print(segment.text)
            if stream.partial is not None:
                show(stream.partial.text)
        for segment in stream.finish():
            print(segment.text)

    A segment ends at a pause of PAUSE_S. Its text is what its decoder makes of the network's frames
    in it, as if it were a recording of its own.

    Args:
        recognizer: a trained model.
        begin: gives a decoder for a segment of at most so many frames.
        finish: makes a segment of hypotheses, its start and its end [s].
        sample_rate: of the samples [Hz]; None is that of the model.

    Raises:
        ValueError: a sample rate below 1.
    """

    def __init__(
        self,
        recognizer: SpeechModel,
        begin: Callable[[int], Decoding],
        finish: Callable[[Sequence[Hypothesis], float, float], Segment],
        sample_rate: int | None = None,
    ) -> None:
        rate = recognizer.sample_rate if sample_rate is None else sample_rate
        if rate < 1:
            raise ValueError(f"sample_rate {rate}, expected at least 1 Hz")
        self.sample_rate = rate
        self._of, self._begin, self._segment = recognizer, begin, finish
        self._resampler: soxr.ResampleStream | None = None
        if rate != recognizer.sample_rate:
            self._resampler = soxr.ResampleStream(
                rate, recognizer.sample_rate, 1, dtype="float32", quality="HQ"
            )
        self._emissions = emissions_of(recognizer)
        self._shift_s = recognizer.frame_shift_s
        self._longest = round(LONGEST_S / self._shift_s)
        # Labels of a pause: spaces may be written anywhere in one.
        characters = enumerate(recognizer.tokenizer.alphabet, 1)
        self._silent = {BLANK_ID, *(label for label, each in characters if each == " ")}
        self._num_samples = 0  # at the model's rate
        self._start = 0  # output frame at which the segment begins
        self._frames: list[NDArray[np.float64]] = []  # of the segment
        self._last = -1  # its last frame with a label; below 0 where none has one
        self._decoding = begin(self._longest)
        self._is_over = False

    def push(self, samples: Any) -> list[Segment]:
        """Take the next samples, and return the segments that have ended by them.

        Args:
            samples: an array or a tensor as `Transcriber.transcribe` takes them; of several
                channels the mean is heard.

        Raises:
            ValueError: samples that are no audio, or after `finish`.
        """
        if self._is_over:
            raise ValueError("samples after the end of a stream, expected a new stream")
        array = AudioArray(samples, self.sample_rate)
        mono = [block.mean(axis=1, dtype=np.float32) for block in array.blocks()]
        waveform = np.concatenate([*mono, np.zeros(0, np.float32)])
        if not np.isfinite(waveform).all():
            raise ValueError(f"{array.name}: samples that are NaN or infinite, expected audio")
        if self._resampler is not None:
            waveform = self._resampler.resample_chunk(waveform)
        self._num_samples += len(waveform)
        return self._hear(self._emissions.push(waveform))

    @property
    def partial(self) -> Segment | None:
        """What is said since the last pause, as far as it is known; None for nothing yet."""
        if self._last < 0:
            return None
        return self._made(self._decoding.hypotheses(), self._start + len(self._frames))

    def finish(self) -> list[Segment]:
        """End the recording, and return the segments that are left."""
        if self._is_over:
            return []
        segments = []
        if self._resampler is not None:
            rest = self._resampler.resample_chunk(np.zeros(0, np.float32), last=True)
            self._num_samples += len(rest)
            segments += self._hear(self._emissions.push(rest))
        segments += self._hear(self._emissions.finish())
        if self._last >= 0:
            segments += self._cut(len(self._frames))
        self._is_over = True
        return segments

    def _hear(self, log_probs: LogProbs) -> list[Segment]:
        """Take the next frames, one by one."""
        rows = np.asarray(log_probs, np.float64)
        segments: list[Segment] = []
        pause, quiet = round(PAUSE_S / self._shift_s), round(QUIET_S / self._shift_s)
        for row in rows:
            self._take(row)
            count = len(self._frames)
            if self._last >= 0 and count - 1 - self._last >= pause:
                segments += self._cut(count)
            elif self._last < 0 and count > 2 * quiet:
                self._again(self._frames[-quiet:], self._start + count - quiet)
            elif count == self._longest:
                begin = count - round(CUT_S / self._shift_s)
                blanks = [frame[BLANK_ID] for frame in self._frames[begin:]]
                segments += self._cut(begin + int(np.argmax(blanks)) + 1)
        return segments

    def _take(self, row: NDArray[np.float64]) -> None:
        """Give the decoder a frame `(V,)`."""
        if int(row.argmax()) not in self._silent:
            self._last = len(self._frames)
        self._frames.append(row)
        self._decoding.push(row[None])

    def _cut(self, count: int) -> list[Segment]:
        """End the segment behind so many of its frames; what lies behind begins the next one."""
        rest = self._frames[count:]
        decoding = self._decoding
        if rest:
            decoding = self._begin(self._longest)
            decoding.push(np.stack(self._frames[:count]))
        segment = self._made(decoding.hypotheses(), self._start + count)
        self._again(rest, self._start + count)
        return [segment] if segment.words else []

    def _again(self, frames: Sequence[NDArray[np.float64]], start: int) -> None:
        """Begin a segment with frames that are there already."""
        self._start, self._last, self._frames = start, -1, []
        self._decoding = self._begin(self._longest)
        for row in frames:
            self._take(row)

    def _made(self, hypotheses: Sequence[Hypothesis], end: int) -> Segment:
        """A segment up to an output frame, from its first word to its last."""
        seconds = self._num_samples / self._of.sample_rate
        start_s, end_s = self._start * self._shift_s, min(end * self._shift_s, seconds)
        segment = self._segment(hypotheses, start_s, max(end_s, start_s))
        if not segment.words:
            return segment
        return replace(segment, start=segment.words[0].start, end=segment.words[-1].end)
