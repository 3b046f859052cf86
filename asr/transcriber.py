"""Audio to transcripts with word times, on one engine for files and batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asr.audio import load_audio
from asr.checkpoint import Recognizer, load_model
from asr.decoder import Greedy, Hypothesis

Waveform = NDArray[np.float32]


class Decoder(Protocol):
    """Log-probabilities `(B, T, V)` and lengths `(B,)` to hypotheses, best first, an utterance."""

    def __call__(self, log_probs: Tensor, lengths: Tensor) -> list[list[Hypothesis]]: ...


@dataclass(frozen=True)
class Word:
    """A recognised word.

    Attributes:
        word: its characters.
        start: of its first character on the CTC path [s].
        end: of its last character on the CTC path [s].
        confidence: geometric mean of its characters' probabilities, 0 to 1; what the transcriber's
            `calibrate` makes of it, where it has one.
    """

    word: str
    start: float
    end: float
    confidence: float


@dataclass(frozen=True)
class Transcript:
    """What was said.

    Attributes:
        text: the words with single spaces between.
        words: with times.
        duration: of the audio [s].
    """

    text: str
    words: tuple[Word, ...]
    duration: float


def choose_device(name: str = "auto") -> torch.device:
    """A device by name; "auto" is cuda where there is one, else cpu.

    Raises:
        ValueError: a device that this machine lacks.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {name!r} is not available on this machine") from error
    return device


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
        self.sample_rate = recognizer.features.sample_rate

    @classmethod
    def load(
        cls, model_file: Path | str, device: str = "auto", decoder: Decoder | None = None
    ) -> Transcriber:
        """A transcriber of a model file.

        Raises:
            ValueError: no model file, or no such device.
            OSError: missing or unreadable.
        """
        recognizer, _ = load_model(Path(model_file), choose_device(device))
        return cls(recognizer, decoder)

    def transcribe_file(self, source: Path | str | bytes) -> Transcript:
        """Transcribe an audio file, or the bytes of one.

        Raises:
            ValueError: audio that cannot be read.
            OSError: missing or unreadable.
        """
        return self.transcribe([load_audio(source, self.sample_rate)])[0]

    def transcribe(self, waveforms: Sequence[Waveform]) -> list[Transcript]:
        """Transcribe waveforms in one batch.

        Args:
            waveforms: each `(num_samples,)` float32 at `sample_rate`.

        Returns:
            A transcript each, in order; none depends on the others.
        """
        if not waveforms:
            return []
        log_probs, lengths = self.emit(waveforms)
        hypotheses = self.decoder(log_probs, lengths)
        return [
            self._transcript(best[0], len(waveform) / self.sample_rate)
            for best, waveform in zip(hypotheses, waveforms, strict=True)
        ]

    def emit(self, waveforms: Sequence[Waveform]) -> tuple[Tensor, Tensor]:
        """What the model makes of waveforms, in one batch.

        Args:
            waveforms: at least one, each `(num_samples,)` float32 at `sample_rate`.

        Returns:
            log_probs `(B, T, V)` [nats] and their lengths `(B,)` int64 [output frames].
        """
        device = self.recognizer.features.window.device
        padded = torch.nn.utils.rnn.pad_sequence(
            [torch.from_numpy(waveform) for waveform in waveforms], batch_first=True
        )
        num_samples = torch.tensor([len(waveform) for waveform in waveforms])
        with torch.inference_mode():
            log_probs, lengths = self.recognizer(padded.to(device), num_samples.to(device))
        return log_probs, lengths

    def _transcript(self, hypothesis: Hypothesis, duration: float) -> Transcript:
        words: list[Word] = []
        current: list[int] = []
        characters = [self.recognizer.tokenizer.decode([token]) for token in hypothesis.tokens]
        for position, character in enumerate([*characters, " "]):
            if character != " ":
                current.append(position)
            elif current:
                earliest = words[-1].end if words else 0.0
                words.append(self._word(hypothesis, characters, current, earliest, duration))
                current = []
        return Transcript(" ".join(word.word for word in words), tuple(words), duration)

    def _word(
        self,
        hypothesis: Hypothesis,
        characters: list[str],
        positions: list[int],
        earliest: float,
        duration: float,
    ) -> Word:
        shift = self.recognizer.frame_shift_s
        mean = math.fsum(hypothesis.log_probs[p] for p in positions) / len(positions)
        confidence, calibrate = math.exp(mean), self.calibrate
        # The last output frames may lie past the end of the audio, where padding filled them up.
        end = min(hypothesis.ends[positions[-1]] * shift, duration)
        start = max(min(hypothesis.starts[positions[0]] * shift, end - shift), earliest)
        return Word(
            word="".join(characters[p] for p in positions),
            start=round(start, 3),
            end=round(end, 3),
            confidence=round(confidence if calibrate is None else calibrate(confidence), 4),
        )
