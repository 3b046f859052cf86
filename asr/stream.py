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
import torch
from numpy.typing import NDArray
from torch import Tensor

from asr.audio_array import AudioArray
from asr.decoder import Hypothesis
from asr.recognizer import Recognizer
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

    def push(self, samples: NDArray[np.float32]) -> Tensor: ...
    def finish(self) -> Tensor: ...


def emissions_of(recognizer: Recognizer) -> Emissions:
    """Begin a recording: step by step where the model reads forwards, else in windows."""
    return Forwards(recognizer) if recognizer.is_live else Windows(recognizer)


class _Blocks:
    """Gathers samples to blocks of one size.

    Args:
        size: of a block [samples].
        ahead: samples that must lie behind a block before it is given.
    """

    def __init__(self, size: int, ahead: int = 0) -> None:
        self.size, self.ahead = size, ahead
        self.waiting = np.zeros(0, np.float32)

    def push(self, samples: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Take samples; return the blocks that are whole, each with what lies behind it."""
        self.waiting = np.concatenate([self.waiting, samples])
        blocks = []
        while len(self.waiting) >= self.size + self.ahead:
            blocks.append(self.waiting[: self.size + self.ahead])
            self.waiting = self.waiting[self.size :]
        return blocks


class Forwards:
    """Log-probabilities of a model that reads forwards: each frame goes through it once.

    Equal to those of the whole but for the last bits.

    Args:
        recognizer: of which `is_live` is true.
    """

    def __init__(self, recognizer: Recognizer) -> None:
        self._of, model = recognizer, recognizer.model
        step = model.subsampling_factor
        self._block = max(1, round(FORWARDS_S / recognizer.features.frame_shift_s / step)) * step
        # Fewer than a block's: its last window reaches beyond it.
        self._samples = _Blocks(step * recognizer.features.hop_length)
        self._features = recognizer.features.stream()
        self._waiting = torch.zeros(0, recognizer.features.n_mels, device=recognizer.device)
        self._state = model.begin()
        self._num_frames = self._given = 0  # of features, and of output
        self._skip = model.live_delay  # output frames of before the beginning

    @torch.inference_mode()
    def push(self, samples: NDArray[np.float32]) -> Tensor:
        """Take the next samples `(n,)`, and return the next log-probabilities `(t, V)`."""
        parts = [self._nothing()]
        needed = self._block + self._of.model.live_extra
        for block in self._samples.push(samples):
            self._add(self._features.push(torch.from_numpy(block).to(self._of.device)))
            while len(self._waiting) >= needed:
                parts.append(self._step(self._waiting[:needed], needed))
                self._waiting = self._waiting[self._block :]
        return torch.cat(parts)

    @torch.inference_mode()
    def finish(self) -> Tensor:
        """Return the last log-probabilities `(t, V)`."""
        rest = torch.from_numpy(self._samples.waiting).to(self._of.device)
        self._add(self._features.push(rest))
        self._add(self._features.finish())
        model, count = self._of.model, len(self._waiting)
        total = int(model.output_length(torch.tensor(self._num_frames)))
        if not self._num_frames:
            return self._nothing()
        step = model.subsampling_factor
        # The delay's frames, once more for those that the lookahead still holds back.
        new = (-(-count // step) + model.live_delay // model.upsampling) * step
        padded = self._waiting.new_zeros(new + model.live_extra, self._waiting.shape[1])
        padded[:count] = self._waiting
        left = total - self._given
        return (self._step(padded, count) if new else self._nothing())[:left]

    def _add(self, features: Tensor) -> None:
        self._waiting = torch.cat([self._waiting, features])
        self._num_frames += len(features)

    def _step(self, features: Tensor, num_valid: int) -> Tensor:
        valid = torch.tensor([num_valid], device=features.device)
        log_probs, self._state = self._of.model.step(features[None], valid, self._state)
        skipped = min(self._skip, log_probs.shape[1])
        self._skip -= skipped
        self._given += log_probs.shape[1] - skipped
        return log_probs[0, skipped:]

    def _nothing(self) -> Tensor:
        return self._waiting.new_zeros(0, self._of.model.vocab_size)


class Windows:
    """Log-probabilities of any model, in blocks that are run with what lies around them.

    A block is known BEHIND_S after its end. What is said of it depends on BEFORE_S before it and on
    BEHIND_S behind it alone.

    Args:
        recognizer: the model.
    """

    def __init__(self, recognizer: Recognizer) -> None:
        self._of = recognizer
        # Blocks and what lies before them begin on output frames.
        self._step = recognizer.features.hop_length * recognizer.model.subsampling_factor
        shift = self._step / recognizer.sample_rate
        block, before, behind = (
            max(1, round(seconds / shift)) * self._step
            for seconds in (WINDOW_S, BEFORE_S, BEHIND_S)
        )
        self._samples, self._before = _Blocks(block, behind), before
        self._past = np.zeros(0, np.float32)
        self._num_samples = self._given = 0

    def push(self, samples: NDArray[np.float32]) -> Tensor:
        """Take the next samples `(n,)`, and return the next log-probabilities `(t, V)`."""
        self._num_samples += len(samples)
        parts = [torch.zeros(0, self._of.model.vocab_size, device=self._of.device)]
        for block in self._samples.push(samples):
            parts.append(self._run(block, self._samples.size // self._step))
            past = np.concatenate([self._past, block[: self._samples.size]])
            self._past = past[max(len(past) - self._before, 0) :]
        return torch.cat(parts)

    def finish(self) -> Tensor:
        """Return the last log-probabilities `(t, V)`."""
        left = int(self._of.output_length(torch.tensor(self._num_samples))) - self._given
        if not left:
            return torch.zeros(0, self._of.model.vocab_size, device=self._of.device)
        return self._run(self._samples.waiting, -(-left // self._of.model.upsampling))[:left]

    def _run(self, block: NDArray[np.float32], num_steps: int) -> Tensor:
        """Run what is said in the first `num_steps` of a block."""
        window = np.concatenate([self._past, block])
        up = self._of.model.upsampling
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
        recognizer: Recognizer,
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

    def _hear(self, log_probs: Tensor) -> list[Segment]:
        """Take the next frames, one by one."""
        rows = log_probs.detach().to("cpu", torch.float64).numpy()
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
