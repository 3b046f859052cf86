"""Audio to transcripts with word times, on one engine for files and batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor

from asr.audio import load_audio
from asr.audio_file import source_name
from asr.decoder import Greedy, Hypothesis
from asr.model_file import load_model
from asr.recognizer import Recognizer, Waveform, choose_device
from asr.segment import Span, find_segments
from asr.word import Word

BATCH_S = 120.0  # [s] of segments, padded, that go through the network together
CHUNK_S = 30.0  # [s] that the network sees at once of a segment without a pause


class Decoder(Protocol):
    """Turns log-probabilities `(B, T, V)` and lengths `(B,)` into hypotheses, best first."""

    def __call__(self, log_probs: Tensor, lengths: Tensor) -> list[list[Hypothesis]]: ...


@dataclass(frozen=True)
class Transcript:
    """The text of a recording, and when each of its words is spoken.

    Attributes:
        text: the words with single spaces between.
        words: with times.
        duration: of the audio [s].
    """

    text: str
    words: tuple[Word, ...]
    duration: float


Detector = Callable[[Waveform, int], Sequence[Span]]  # waveform and sample rate to its segments


class Transcriber:
    """Turns waveforms and audio files into transcripts.

    A recording of any length is cut in its pauses, and its segments go through the network in
    batches of like length, each decoded by itself.

    Args:
        recognizer: a trained model.
        decoder: log-probabilities to hypotheses; None is greedy.
        calibrate: confidence of a word to the probability that it is right, 0 to 1 both; None
            leaves it as it is.
        detector: finds the segments of a waveform that have speech.
    """

    def __init__(
        self,
        recognizer: Recognizer,
        decoder: Decoder | None = None,
        calibrate: Callable[[float], float] | None = None,
        detector: Detector = find_segments,
    ) -> None:
        self.recognizer = recognizer.eval()
        self.decoder = decoder or Greedy()
        self.calibrate = calibrate
        self.detector = detector
        self.sample_rate = recognizer.sample_rate

    @classmethod
    def load(
        cls, model_file: Path | str, device: str = "auto", decoder: Decoder | None = None
    ) -> Transcriber:
        """Load a transcriber from a model file.

        Args:
            model_file: of `asr train`.
            device: "auto", "cpu" or "cuda".
            decoder: log-probabilities to hypotheses; None is greedy.

        Raises:
            ValueError: no model file, or no such device.
            OSError: missing or unreadable.
        """
        recognizer, _ = load_model(Path(model_file), choose_device(device))
        return cls(recognizer, decoder)

    def transcribe_file(self, source: Path | str | bytes) -> Transcript:
        """Transcribe an audio file, or the bytes of one.

        Args:
            source: a path, or the bytes of a file.

        Raises:
            ValueError: audio that cannot be read, or that would not fit into memory.
            OSError: missing or unreadable.
        """
        waveform = load_audio(source, self.sample_rate)
        # At most a batch goes through the network at a time, however long the recording is.
        seen = min(len(waveform), round(BATCH_S * self.sample_rate))
        self.recognizer.require_memory(seen, name=source_name(source))
        return self.transcribe([waveform])[0]

    def transcribe(self, waveforms: Sequence[Waveform]) -> list[Transcript]:
        """Transcribe waveforms.

        Args:
            waveforms: each `(num_samples,)` float32 at `sample_rate`.

        Returns:
            A transcript each, in order; none depends on the others.

        Raises:
            ValueError: they would not fit into memory.
        """
        spans = [
            (number, span)
            for number, waveform in enumerate(waveforms)
            for span in self.detector(waveform, self.sample_rate)
        ]
        words: dict[tuple[int, int], list[Word]] = {}
        for batch in self._batches(spans):
            parts = [waveforms[number][span.start : span.end] for number, span in batch]
            # A segment that is longer than a chunk is alone in its batch.
            chunk_s = CHUNK_S if len(parts[0]) > CHUNK_S * self.sample_rate else None
            hypotheses = self.decoder(*self.recognizer.log_probs(parts, chunk_s=chunk_s))
            for (number, span), best in zip(batch, hypotheses, strict=True):
                words[number, span.start] = self._words(best[0], span)
        own: list[list[Word]] = [[] for _ in waveforms]
        for number, span in spans:
            own[number] += words[number, span.start]
        return [
            Transcript(
                " ".join(word.word for word in each), tuple(each), len(waveform) / self.sample_rate
            )
            for each, waveform in zip(own, waveforms, strict=True)
        ]

    def _batches(self, spans: list[tuple[int, Span]]) -> Iterator[list[tuple[int, Span]]]:
        """Segments of like length together, at most BATCH_S with their padding."""
        budget, alone = BATCH_S * self.sample_rate, CHUNK_S * self.sample_rate
        batch: list[tuple[int, Span]] = []
        for each in sorted(spans, key=lambda each: each[1].length, reverse=True):
            longest = batch[0][1].length if batch else 0
            if batch and (longest > alone or (len(batch) + 1) * longest > budget):
                yield batch
                batch = []
            batch.append(each)
        if batch:
            yield batch

    def _words(self, hypothesis: Hypothesis, span: Span) -> list[Word]:
        """Make words of a segment's characters between spaces, with times in the recording."""
        shift = self.recognizer.frame_shift_s
        begin, finish = span.start / self.sample_rate, span.end / self.sample_rate
        characters = [self.recognizer.tokenizer.decode([token]) for token in hypothesis.tokens]
        words: list[Word] = []
        own: list[int] = []  # places of the characters of the word begun
        for place, character in enumerate([*characters, " "]):
            if character != " ":
                own.append(place)
            elif own:
                mean = math.fsum(hypothesis.log_probs[each] for each in own) / len(own)
                confidence = math.exp(mean)
                if self.calibrate is not None:
                    confidence = self.calibrate(confidence)
                # The last output frames may lie past the end of the audio: padding filled them up.
                end = min(begin + hypothesis.ends[own[-1]] * shift, finish)
                earliest = words[-1].end if words else begin
                start = max(min(begin + hypothesis.starts[own[0]] * shift, end - shift), earliest)
                text = "".join(characters[each] for each in own)
                words.append(Word(text, round(start, 3), round(end, 3), round(confidence, 4)))
                own = []
        return words
