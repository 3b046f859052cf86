"""Audio and its text to the times of words and characters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asr.audio import load_audio
from asr.decoder.alignment import forced_alignment
from asr.model_file import load_model
from asr.recognizer import Progress, Recognizer, Waveform, choose_device, silent
from asr.text import word_spans
from asr.untrusted import shown
from asr.word import Character, Word

CHUNK_S = 30.0  # [s] what is longer is run through the model in chunks of so much
# [nats a frame] A text that is further behind most likely does not fit: docs/results.md says how
# many right texts are, and how many wrong ones are not.
MAX_SHORTFALL = 0.7


@dataclass(frozen=True)
class Emission:
    """The log-probabilities that a model gives a recording.

    Attributes:
        log_probs: `(T, V)`, of the frames that begin before the audio's end.
        frame_shift_s: time between output frames [s].
        duration: of the audio [s].
    """

    log_probs: NDArray[np.float32]
    frame_shift_s: float
    duration: float

    @property
    def best_log_prob(self) -> float:
        """Mean log-probability of a frame of the path that the model itself takes [nats]."""
        return float(self.log_probs.max(axis=1).mean(dtype=np.float64))


@dataclass(frozen=True)
class AlignedWord(Word):
    """A word of the text, normalised, and its times; its confidence is not calibrated.

    Attributes:
        characters: its own.
        original: as it was written; None where the words of the text as written are not, one by
            one, those of the normalised text.
    """

    characters: tuple[Character, ...]
    original: str | None


@dataclass(frozen=True)
class Alignment:
    """The times of a text in a recording.

    Attributes:
        text: normalised.
        words: in order; they do not overlap.
        duration: of the audio [s].
        log_prob: mean log-probability of a frame of the path [nats].
        shortfall: by how much that is behind the path that the model itself takes, 0 where the
            text is its own hypothesis [nats a frame]. What the model is unsure of whatever the
            text costs nothing here.
        confidence: geometric mean of all characters' probabilities, 0 to 1.
    """

    text: str
    words: tuple[AlignedWord, ...]
    duration: float
    log_prob: float
    shortfall: float
    confidence: float

    @property
    def fits(self) -> bool:
        """False where the text most likely is not that of the audio."""
        return self.shortfall <= MAX_SHORTFALL


class Aligner:
    """Finds when the words of a known text are spoken.

    Args:
        recognizer: a trained model.
    """

    def __init__(self, recognizer: Recognizer) -> None:
        self.recognizer = recognizer.eval()
        self.sample_rate = recognizer.sample_rate

    @classmethod
    def load(cls, model_file: Path | str, device: str = "auto") -> Aligner:
        """Load an aligner from a model file.

        Args:
            model_file: of `asr train`.
            device: "auto", "cpu" or "cuda".

        Raises:
            ValueError: no model file, or no such device.
            OSError: missing or unreadable.
        """
        recognizer, _ = load_model(Path(model_file), choose_device(device))
        return cls(recognizer)

    def align_file(self, source: Path | str | bytes, text: str) -> Alignment:
        """Align an audio file, or the bytes of one, with its text.

        Args:
            source: a path, or the bytes of a file.
            text: as written; the model's text rules are applied.

        Raises:
            ValueError: audio that cannot be read, or as `align_emission`.
            OSError: missing or unreadable.
        """
        return self.align(load_audio(source, self.sample_rate), text)

    def align(self, waveform: Waveform, text: str, progress: Progress = silent) -> Alignment:
        """Align a recording with its text.

        Args:
            waveform: `(num_samples,)` float32 at `sample_rate`, of any length: what is longer than
                CHUNK_S is run through the model in chunks.
            text: as written; the model's text rules are applied.
            progress: told how many feature frames of how many the model has seen.

        Raises:
            ValueError: as `align_emission`.
        """
        return align_emission(self.recognizer, self.emission(waveform, progress), text)

    def emission(self, waveform: Waveform, progress: Progress = silent) -> Emission:
        """Run the model on a recording; arguments as in `align`.

        Raises:
            ValueError: less than a millisecond, or more than would fit into memory.
        """
        recognizer = self.recognizer
        duration, shift = round(len(waveform) / self.sample_rate, 3), recognizer.frame_shift_s
        if not duration:
            raise ValueError(f"{len(waveform)} samples of audio, expected at least a millisecond")
        log_probs, _ = recognizer.log_probs([waveform], chunk_s=CHUNK_S, progress=progress)
        # Frames that begin at the end would give their characters no time: times are told in ms.
        inside = math.ceil((duration - 0.0005) / shift)
        return Emission(log_probs[0, :inside].cpu().numpy(), shift, duration)


def align_emission(recognizer: Recognizer, emission: Emission, text: str) -> Alignment:
    """Align the log-probabilities of a recording with a text.

    Args:
        recognizer: the model, for its text rules and alphabet.
        emission: of `Aligner.emission`.
        text: as written.

    Raises:
        ValueError: a text without characters, with characters outside of the alphabet, or with
            more of them than there are frames for.
    """
    normalized = recognizer.text(text)
    if not normalized:
        raise ValueError(f"text {shown(text)} has no characters to align, expected at least one")
    tokens, shift = recognizer.tokenizer.encode(normalized), emission.frame_shift_s
    found = forced_alignment(emission.log_probs, tokens, "text")
    characters = [
        Character(
            character,
            round(start * shift, 3),
            min(round(end * shift, 3), emission.duration),
            round(log_prob, 4),
        )
        for character, start, end, log_prob in zip(
            normalized, found.starts, found.ends, found.log_probs, strict=True
        )
    ]
    unit = recognizer.unit
    spans = word_spans(normalized, unit)
    # The words as written, where each is what the rules make of it alone.
    written: Sequence[str | None] = text.split()
    parts = normalized.split(" ")
    if unit == "character" or [recognizer.text(each) for each in text.split()] != parts:
        written = [None] * len(spans)
    words = []
    for (first, behind), original in zip(spans, written, strict=True):
        own = tuple(characters[first:behind])
        words.append(
            AlignedWord(
                word=normalized[first:behind],
                start=own[0].start,
                end=own[-1].end,
                confidence=_confidence(own),
                is_joined=first > 0 and normalized[first - 1] != " ",
                characters=own,
                original=original,
            )
        )
    log_prob = found.score / len(emission.log_probs)
    return Alignment(
        text=normalized,
        words=tuple(words),
        duration=emission.duration,
        log_prob=round(log_prob, 4),
        shortfall=round(max(0.0, emission.best_log_prob - log_prob), 4),
        confidence=_confidence(characters),
    )


def _confidence(characters: Sequence[Character]) -> float:
    mean = math.fsum(each.log_prob for each in characters) / len(characters)
    return round(math.exp(min(mean, 0.0)), 4)
