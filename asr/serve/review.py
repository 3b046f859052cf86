"""Recordings that somebody looks through: what the model heard, the verdict on it, the audio."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import soundfile
from pydantic import BaseModel, ConfigDict, Field

from asr.data.dataset import load_utterance
from asr.data.manifest import Utterance, write_manifest
from asr.serve.refusal import Refusal
from asr.transcript import Segment

Status = Literal["accepted", "corrected", "skipped"]
STATUS = "review"  # of the manifest: its field for what became of a text


class Verdict(BaseModel):
    """What somebody says of a recording's text."""

    model_config = ConfigDict(extra="forbid")

    status: Status
    text: str = Field(max_length=100_000, description="as it is right")


@dataclass(frozen=True)
class Item:
    """A recording to look through.

    Attributes:
        utterance: its place, and the text that is right once there is a verdict.
        segments: what the model heard, with times from the utterance's beginning.
        duration: of its audio [s].
        status: of the verdict; None before it.
    """

    utterance: Utterance
    segments: tuple[Segment, ...] = ()
    duration: float = 0.0
    status: Status | None = None

    @property
    def confidence(self) -> float:
        """How sure the model's least sure word is, 0 to 1; 0 where it heard none."""
        return min((segment.confidence for segment in self.segments), default=0.0)

    def row(self, number: int) -> dict[str, object]:
        """Tell it to the page."""
        segments = [
            {"start": each.start, "end": each.end, "words": [word.row() for word in each.words]}
            for each in self.segments
        ]
        return {
            "id": number,
            "name": self.utterance.audio_filepath.name,
            "duration": self.duration,
            "confidence": self.confidence,
            "status": self.status,
            "segments": segments,
        }


class Review:
    """Recordings and their verdicts, which are in a manifest as soon as they are given.

    Args:
        items: those without a verdict are looked through, the least sure first.
        output: the manifest, in which are the texts that are right.
        sample_rate: of the audio that is heard [Hz].
    """

    def __init__(self, items: Iterable[Item], output: Path, sample_rate: int) -> None:
        order = sorted(items, key=lambda item: (item.status is None, item.confidence))
        self.items = dict(enumerate(order))
        self.output, self.sample_rate = output, sample_rate
        self._lock = threading.Lock()

    @property
    def kept(self) -> list[Utterance]:
        """The utterances whose texts are right."""
        return [
            each.utterance for each in self.items.values() if each.status not in (None, "skipped")
        ]

    def rows(self) -> list[dict[str, object]]:
        """Tell all items to the page, in the order in which they are looked through."""
        return [item.row(number) for number, item in self.items.items()]

    def settle(self, number: int, verdict: Verdict) -> Status:
        """Take a verdict, and write the manifest.

        Returns:
            What it is written as: a recording without words is nothing to learn from, and skipped.

        Raises:
            Refusal: no such recording.
            OSError: the manifest cannot be written.
        """
        text = " ".join(verdict.text.split())
        status: Status = verdict.status if text else "skipped"
        with self._lock:
            before = self._item(number)
            extra = {**before.utterance.extra, STATUS: status}
            utterance = replace(before.utterance, text=text, extra=extra)
            self.items[number] = replace(before, utterance=utterance, status=status)
            try:
                write_manifest(self.output, self.kept)
            except OSError:
                self.items[number] = before
                raise
        return status

    def wav(self, number: int) -> bytes:
        """Read a recording, as a WAV file of 16 bits.

        Raises:
            Refusal: no such recording, or one that is not there any more.
        """
        utterance = self._item(number).utterance
        try:
            samples = load_utterance(utterance, self.sample_rate)
        except (ValueError, OSError) as error:
            raise Refusal(404, str(error), "not_found") from error
        file = io.BytesIO()
        clipped = np.clip(samples, -1.0, 1.0)
        soundfile.write(file, clipped, self.sample_rate, format="WAV", subtype="PCM_16")
        return file.getvalue()

    def _item(self, number: int) -> Item:
        if number not in self.items:
            last = len(self.items) - 1
            raise Refusal(404, f"recording {number}, expected 0 to {last}", "not_found")
        return self.items[number]
