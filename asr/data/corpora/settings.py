"""How a corpus is to be written: text rules, audio, and what to do with what is bad."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from asr.audio import MAX_SAMPLE_RATE, MIN_SAMPLE_RATE
from asr.text import CharTokenizer, TextNormalizer

AUDIO_FORMATS = ("keep", "wav", "flac")


@dataclass(frozen=True)
class Settings:
    """What all corpora have in common.

    Attributes:
        text: rules for every transcript.
        alphabet: characters that texts may have; None takes those of the training texts.
        audio_format: "wav" or "flac" writes 16-bit mono files beside the manifests, so that
            training decodes nothing slow; "keep" points to the original files.
        sample_rate: of the files that are written [Hz].
        num_workers: threads that convert; None takes one a core.
        duration_tolerance_s: how far audio may be from the duration its manifest gives [s].
        skip_bad: leave out what is bad and list it, instead of stopping.

    Raises:
        ValueError: for a value out of range.
    """

    text: TextNormalizer = field(default_factory=TextNormalizer)
    alphabet: str | None = None
    audio_format: str = "wav"
    sample_rate: int = 16_000
    num_workers: int | None = None
    duration_tolerance_s: float = 0.1
    skip_bad: bool = False

    def __post_init__(self) -> None:
        if self.audio_format not in AUDIO_FORMATS:
            _refuse("audio_format", self.audio_format, f"one of {', '.join(AUDIO_FORMATS)}")
        if not _whole(self.sample_rate) or not (
            MIN_SAMPLE_RATE <= self.sample_rate <= MAX_SAMPLE_RATE
        ):
            _refuse("sample_rate", self.sample_rate, f"{MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE} Hz")
        if self.num_workers is not None and (not _whole(self.num_workers) or self.num_workers < 1):
            _refuse("num_workers", self.num_workers, "a whole number from 1 up, or null")
        if not isinstance(self.duration_tolerance_s, int | float) or not (
            0 <= self.duration_tolerance_s < float("inf")
        ):
            _refuse("duration_tolerance_s", self.duration_tolerance_s, "seconds from 0 up")
        if not isinstance(self.skip_bad, bool):
            _refuse("skip_bad", self.skip_bad, "true or false")
        if self.alphabet is not None:
            CharTokenizer(self.alphabet)

    @property
    def workers(self) -> int:
        """Threads to use."""
        return self.num_workers or len(os.sched_getaffinity(0))


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _refuse(name: str, value: object, expected: str) -> None:
    raise ValueError(f"{name} is {value!r}, expected {expected}")
