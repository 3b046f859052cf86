"""Words that were corrected on the page, written to the files that `asr transcribe` writes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request

from asr.pseudo_labels import PseudoLabels
from asr.serve.refusal import Refusal
from asr.transcript import Segment, Transcript
from asr.word import MAX_SECONDS, Word

MAX_BODY_BYTES = 1 << 23  # 8 MiB: a day of speech


class CorrectedWord(BaseModel):
    """A word and when it is said."""

    model_config = ConfigDict(extra="forbid")

    word: str = Field(min_length=1, max_length=1000)
    start: float = Field(ge=0, le=MAX_SECONDS, description="[s]")
    end: float = Field(ge=0, le=MAX_SECONDS, description="[s]")
    confidence: float = Field(1.0, ge=0, le=1, description="that it is right")
    is_joined: bool = Field(False, description="no space stands before it")


class CorrectedSegment(BaseModel):
    """What is said between two pauses."""

    model_config = ConfigDict(extra="forbid")

    start: float = Field(ge=0, le=MAX_SECONDS, description="[s]")
    end: float = Field(ge=0, le=MAX_SECONDS, description="[s]")
    speaker: str | None = Field(None, max_length=200)
    words: list[CorrectedWord]


class Correction(BaseModel):
    """A transcript, and how it is to be written."""

    model_config = ConfigDict(extra="forbid")

    to: Literal["text", "srt", "vtt", "json", "manifest"]
    name: str = Field(min_length=1, max_length=255, description="of the recording's file")
    duration: float = Field(ge=0, le=MAX_SECONDS, description="of the recording [s]")
    segments: list[CorrectedSegment]

    def written(self) -> str:
        """Write it; a manifest has a line a segment, whose audio lies beside it."""
        segments = [
            Segment(
                each.start,
                each.end,
                tuple(
                    Word(word.word, word.start, word.end, word.confidence, is_joined=word.is_joined)
                    for word in each.words
                ),
                speaker=each.speaker,
            )
            for each in self.segments
            if each.words
        ]
        transcript = Transcript(tuple(segments), self.duration)
        if self.to == "srt":
            return transcript.srt()
        if self.to == "vtt":
            return transcript.vtt()
        if self.to == "json":
            return transcript.json(self.name) + "\n"
        if self.to == "manifest":
            beside = Path(Path(self.name).name)
            return PseudoLabels(0.0, has_speakers=True).manifest(
                str(beside), transcript, beside.with_suffix(".jsonl")
            )
        return "".join(f"{turn.text}\n" for turn in transcript.turns)


async def read_correction(request: Request) -> Correction:
    """Read the body of a request.

    Raises:
        Refusal: something else was sent, or more than a day of speech has.
    """
    body = bytearray()
    async for block in request.stream():
        body += block
        if len(body) > MAX_BODY_BYTES:
            raise Refusal(
                413, f"a transcript of more than {MAX_BODY_BYTES >> 20} MiB, expected at most that",
                "too_large",
            )  # fmt: skip
    try:
        return Correction.model_validate_json(bytes(body))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"]))
        message = f"{where or 'the body'}: {first['msg']}, expected a transcript"
        raise Refusal(400, message, "invalid_value", where or None) from error
