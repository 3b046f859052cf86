"""Audio and its text to the times of words and characters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asr.audio_array import AudioArray
from asr.audio_file import Source
from asr.decoder import Hypothesis
from asr.decoder.alignment import forced_alignment
from asr.emission import (
    AudioProgress,
    Detector,
    End,
    Piece,
    read_pieces,
    run,
    silent,
    total_duration,
)
from asr.lexicon import Lexicon
from asr.loading import load_speech_model
from asr.pronounce import Pronouncer, completed
from asr.segment import Span
from asr.speech_model import Lengths, LogProbs, SpeechModel, Waveform
from asr.starter_model import model_path
from asr.text import BLANK_ID, word_spans
from asr.untrusted import shown
from asr.word import Character, Word

PAUSE_LOG_PROB = -12.0  # of a label between segments [nats]: speech that was missed has some room
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

    def __init__(self, recognizer: SpeechModel) -> None:
        self.recognizer = recognizer
        self.sample_rate = recognizer.sample_rate
        self._lexicon = recognizer.lexicon

    @classmethod
    def load(cls, model_file: Path | str, device: str = "auto") -> Aligner:
        """Load an aligner from a model file.

        Args:
            model_file: of `asr train` or `asr export`, a run's folder, or the name of a model that
                comes with asr.
            device: "auto", "cpu" or "cuda".

        Raises:
            ValueError: no model file, or no such device.
            OSError: missing or unreadable.
        """
        recognizer, _ = load_speech_model(model_path(model_file), device)
        return cls(recognizer)

    def align_file(
        self, source: Path | str | bytes, text: str, progress: AudioProgress = silent
    ) -> Alignment:
        """Align an audio file of up to 48 hours, or the bytes of one, with its text.

        Args:
            source: a path, or the bytes of a file.
            text: as written; the model's text rules are applied.
            progress: told how much audio the model has seen.

        Raises:
            ValueError: audio that cannot be read, or as `align_emission`.
            OSError: missing or unreadable.
        """
        return self.align(source, text, progress)

    def align(
        self, audio: Source | Waveform, text: str, progress: AudioProgress = silent
    ) -> Alignment:
        """Align a recording with its text; arguments as those of `emission` and `align_emission`.

        Words that the lexicon of a model of phones has not are said as its own teach.

        Raises:
            ValueError: audio that cannot be read, or as `align_emission`.
            OSError: missing or unreadable.
        """
        if self._lexicon is not None:
            words = [self.recognizer.text(text)]
            self._lexicon, _ = completed(self._lexicon, words, lambda word: self._pronouncer(word))
        return align_emission(self.recognizer, self.emission(audio, progress), text, self._lexicon)

    @cached_property
    def _pronouncer(self) -> Pronouncer:
        """What the lexicon teaches, once, for all recordings."""
        assert self._lexicon is not None, "asked for words that a lexicon has not"
        return Pronouncer(self._lexicon)

    def emission(self, audio: Source | Waveform, progress: AudioProgress = silent) -> Emission:
        """Run the model on the segments of a recording; the pauses between are blank.

        A recording in which no speech is found is run as a whole: it has a text.

        Args:
            audio: a path, the bytes of a file, or samples `(num_samples,)` at `sample_rate`.
            progress: told how much audio the model has seen.

        Raises:
            ValueError: less than a millisecond, or more than would fit into memory.
            OSError: missing or unreadable.
        """
        source = AudioArray(audio, self.sample_rate) if isinstance(audio, np.ndarray) else audio
        rows, num_samples = self._rows(source, None, progress)
        if not rows:
            rows, num_samples = self._rows(source, _whole, silent)
        shift = self.recognizer.frame_shift_s
        duration = round(num_samples / self.sample_rate, 3)
        if not duration:
            raise ValueError(f"{num_samples} samples of audio, expected at least a millisecond")
        # Frames that begin at the end would give their characters no time: times are told in ms.
        num_frames = math.ceil((duration - 0.0005) / shift)
        vocab_size = self.recognizer.tokenizer.vocab_size
        log_probs = np.full((num_frames, vocab_size), PAUSE_LOG_PROB, np.float32)
        log_probs[:, BLANK_ID] = math.log1p(-(vocab_size - 1) * math.exp(PAUSE_LOG_PROB))
        for first, own in rows.items():
            log_probs[first : first + len(own)] = own[: num_frames - first]
        return Emission(log_probs, shift, duration)

    def _rows(
        self, source: Source, detector: Detector | None, progress: AudioProgress
    ) -> tuple[dict[int, NDArray[np.float32]], int]:
        """Log-probabilities of segments by their first output frame, and the number of samples."""
        frame_samples = self.recognizer.frame_shift_s * self.sample_rate
        # A piece begins on an output frame, so that no two have one in common.
        items = (
            item if isinstance(item, End) else _from_frame(item, frame_samples)
            for item in read_pieces(0, source, self.sample_rate, detector=detector)
        )
        rows: dict[int, NDArray[np.float32]] = {}

        def keep(pieces: Sequence[Piece], log_probs: LogProbs, lengths: Lengths) -> None:
            for piece, row, length in zip(pieces, log_probs, lengths.tolist(), strict=True):
                inside = math.ceil(len(piece.samples) / frame_samples)
                rows[round(piece.start / frame_samples)] = row[: min(length, inside)].copy()

        for each in run(
            self.recognizer, [items], keep,
            total=None if progress is silent else total_duration([source]), progress=progress,
            is_ahead=not isinstance(source, AudioArray),
        ):  # fmt: skip
            if isinstance(each, End):
                if each.error is not None:
                    raise each.error
                return rows, each.num_samples
        raise AssertionError("every recording has an end")


def _whole(waveform: Waveform, sample_rate: int) -> list[Span]:
    return [Span(0, len(waveform))] if len(waveform) else []


def _from_frame(piece: Piece, frame_samples: float) -> Piece:
    """A piece without what lies before its first output frame in the recording: of its margin."""
    start = round(math.ceil(piece.start / frame_samples) * frame_samples)
    return replace(piece, start=start, samples=piece.samples[start - piece.start :])


def align_emission(
    recognizer: SpeechModel, emission: Emission, text: str, lexicon: Lexicon | None = None
) -> Alignment:
    """Align the log-probabilities of a recording with a text.

    Args:
        recognizer: the model, for its text rules and alphabet.
        emission: of `Aligner.emission`.
        text: as written.
        lexicon: in place of that of a model of phones.

    Raises:
        ValueError: a text without characters, with characters outside of the alphabet, or with
            more of them than there are frames for; words that the lexicon has not.
    """
    normalized = recognizer.text(text)
    if not normalized:
        raise ValueError(f"text {shown(text)} has no characters to align, expected at least one")
    spoken = recognizer.spell(normalized) if lexicon is None else lexicon.spell(normalized)
    phones = recognizer.spec.phones
    tokens = recognizer.tokenizer.encode(spoken)
    found = forced_alignment(emission.log_probs, tokens, "text")
    characters = _characters([phones.get(each, each) for each in spoken], found, emission)
    unit = recognizer.unit
    spans = word_spans(spoken, unit)
    # The words as written, where each is what the rules make of it alone.
    written: Sequence[str | None] = text.split()
    parts = normalized.split(" ")
    if unit == "character" or [recognizer.text(each) for each in text.split()] != parts:
        written = [None] * len(spans)
    words = []
    named = parts if phones else [normalized[first:behind] for first, behind in spans]
    for (first, behind), word, original in zip(spans, named, written, strict=True):
        own = tuple(characters[first:behind])
        words.append(
            AlignedWord(
                word=word,
                start=own[0].start,
                end=own[-1].end,
                confidence=_confidence(own),
                is_joined=first > 0 and spoken[first - 1] != " ",
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


def _characters(names: Sequence[str], found: Hypothesis, emission: Emission) -> list[Character]:
    """Give each character its times in the recording."""
    shift = emission.frame_shift_s
    return [
        Character(
            character,
            round(start * shift, 3),
            min(round(end * shift, 3), emission.duration),
            round(log_prob, 4),
        )
        for character, start, end, log_prob in zip(
            names, found.starts, found.ends, found.log_probs, strict=True
        )
    ]


def _confidence(characters: Sequence[Character]) -> float:
    mean = math.fsum(each.log_prob for each in characters) / len(characters)
    return round(math.exp(min(mean, 0.0)), 4)
