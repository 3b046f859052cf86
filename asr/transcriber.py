"""Audio to transcripts with word times, on one engine for files and batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor

from asr.audio import load_audio, probe
from asr.decoder import Greedy, Hypothesis
from asr.model_file import load_model
from asr.recognizer import Recognizer, Waveform, choose_device
from asr.word import Word


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


class Transcriber:
    """Turns waveforms and audio files into transcripts.

    Args:
        recognizer: a trained model.
        decoder: log-probabilities to hypotheses; None is greedy.
        calibrate: confidence of a word to the probability that it is right, 0 to 1 both; None
            leaves it as it is.
    """

    def __init__(
        self,
        recognizer: Recognizer,
        decoder: Decoder | None = None,
        calibrate: Callable[[float], float] | None = None,
    ) -> None:
        self.recognizer = recognizer.eval()
        self.decoder = decoder or Greedy()
        self.calibrate = calibrate
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
        # Before it is decoded: a file of some kilobytes may hold hours.
        duration = probe(source).duration
        name = f"<{len(source)} bytes of audio>" if isinstance(source, bytes) else source
        self.recognizer.require_memory(math.ceil(duration * self.sample_rate), name=str(name))
        return self.transcribe([load_audio(source, self.sample_rate)])[0]

    def transcribe(self, waveforms: Sequence[Waveform]) -> list[Transcript]:
        """Transcribe waveforms in one batch.

        Args:
            waveforms: each `(num_samples,)` float32 at `sample_rate`.

        Returns:
            A transcript each, in order; none depends on the others.

        Raises:
            ValueError: they would not fit into memory.
        """
        if not waveforms:
            return []
        hypotheses = self.decoder(*self.recognizer.log_probs(waveforms))
        return [
            self._transcript(best[0], len(waveform) / self.sample_rate)
            for best, waveform in zip(hypotheses, waveforms, strict=True)
        ]

    def _transcript(self, hypothesis: Hypothesis, duration: float) -> Transcript:
        """Make words with times of the characters between spaces."""
        shift = self.recognizer.frame_shift_s
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
                end = min(hypothesis.ends[own[-1]] * shift, duration)
                earliest = words[-1].end if words else 0.0
                start = max(min(hypothesis.starts[own[0]] * shift, end - shift), earliest)
                text = "".join(characters[each] for each in own)
                words.append(Word(text, round(start, 3), round(end, 3), round(confidence, 4)))
                own = []
        return Transcript(" ".join(word.word for word in words), tuple(words), duration)
