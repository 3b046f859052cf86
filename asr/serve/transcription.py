"""Requests for transcripts and their answers, as OpenAI's clients send and read them."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from asr.serve.refusal import Refusal
from asr.text import printable
from asr.transcript import Segment, Transcript
from asr.untrusted import shown

MAX_FIELDS = 32
MAX_FIELD_BYTES = 1 << 16
WINDOW_S = 0.01  # [s] of Whisper's frames, which `seek` counts
LISTS = ("timestamp_granularities",)  # clients send a list as fields of one name, or name[]

Format = Literal["json", "text", "srt", "verbose_json", "vtt"]


class TranscriptionFields(BaseModel):
    """The fields of a request beside its file."""

    model_config = ConfigDict(extra="forbid")

    # A form has no null: what is empty was not given.
    model: str = Field(
        "", max_length=200, description="a name of GET /v1/models; the first without it"
    )
    language: str = Field(
        "", max_length=20, description="an ISO 639 code: that of the model, which has one"
    )
    prompt: str = Field("", description="taken and not used: the network hears the recording alone")
    response_format: Format = "json"
    temperature: float = Field(
        0.0, ge=0, le=1, description="taken and not used: the decoder draws nothing by chance"
    )
    timestamp_granularities: list[Literal["word", "segment"]] = Field(
        [], max_length=2, alias="timestamp_granularities[]",
        description="with verbose_json alone: what has times; segments without it",
    )  # fmt: skip
    stream: Literal["false", "False", "0"] = Field(
        "false", description="an answer in parts is not made: WS /v1/stream is for live speech"
    )


class TranscriptionRequest(TranscriptionFields):
    """A recording, and how its text is to be written."""

    model_config = ConfigDict(
        json_schema_extra={
            "dependentSchemas": {
                "timestamp_granularities[]": {
                    "properties": {"response_format": {"const": "verbose_json"}},
                    "required": ["response_format"],
                }
            }
        }
    )

    file: str = Field(json_schema_extra={"format": "binary"})


class WordTimes(BaseModel):
    """A word and when it is said."""

    word: str
    start: float = Field(description="[s]")
    end: float = Field(description="[s]")
    confidence: float = Field(ge=0, le=1, description="that it is right")
    is_joined: bool = Field(False, description="no space stands before it")


class SegmentTimes(BaseModel):
    """What is said between two pauses, with the fields that OpenAI's clients know."""

    id: int
    seek: int = Field(description="its start, in frames of 10 ms")
    start: float = Field(description="[s]")
    end: float = Field(description="[s]")
    text: str
    tokens: list[int] = Field(description="none: they would be of another model's vocabulary")
    temperature: float = Field(description="0: the decoder draws nothing by chance")
    avg_logprob: float = Field(description="mean log of the words' confidences")
    compression_ratio: float = Field(description="of the text, by zlib")
    no_speech_prob: float = Field(description="0: what has no speech is no segment")
    words: list[WordTimes]


class Transcription(BaseModel):
    """The text alone."""

    text: str


class TranscriptionVerbose(BaseModel):
    """The text with times."""

    task: Literal["transcribe"]
    language: str = Field(description="of the model's text rules; empty where they name none")
    duration: float = Field(description="of the recording [s]")
    text: str
    segments: list[SegmentTimes] | None = None
    words: list[WordTimes] | None = None


class ReadForm(NamedTuple):
    """A request as it was sent: its fields, and the file, which the caller closes."""

    fields: TranscriptionFields
    file: UploadFile


async def read_form(request: Request) -> ReadForm:
    """Read the fields and the file of a request.

    Raises:
        Refusal: something else was sent.
    """
    try:
        form = await request.form(max_files=1, max_fields=MAX_FIELDS, max_part_size=MAX_FIELD_BYTES)
    except HTTPException as error:
        raise Refusal(400, f"body: {error.detail}", "invalid_form") from error
    file: UploadFile | None = None
    texts: dict[str, Any] = {}
    for key, value in form.multi_items():
        name = key.removesuffix("[]")
        if isinstance(value, UploadFile):
            if key != "file":
                await form.close()
                raise Refusal(400, f"{shown(key)} is a file, expected file", "unknown_field", key)
            file = value
        elif name in LISTS:
            texts.setdefault(f"{name}[]", []).append(value)
        elif key in texts:
            await form.close()
            raise Refusal(400, f"{shown(key)} is given twice", "invalid_value", key)
        else:
            texts[key] = value
    try:
        if file is None:
            raise Refusal(
                400, "no file, expected one in the field file of multipart/form-data",
                "missing_file", "file",
            )  # fmt: skip
        return ReadForm(_checked(texts), file)
    except Refusal:
        await form.close()
        raise


def _checked(texts: Mapping[str, Any]) -> TranscriptionFields:
    try:
        fields = TranscriptionFields.model_validate(texts)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        name = str(first["loc"][0]) if first["loc"] else "body"
        if first["type"] == "missing":
            raise Refusal(400, f"no {name}, expected one", "missing_field", name) from error
        if first["type"] == "extra_forbidden":
            known = ", ".join(["file", *TranscriptionFields.model_fields])
            message = f"unknown field {shown(name)}, expected of {known}"
            raise Refusal(400, message, "unknown_field", name) from error
        message = f"{name} is {shown(first['input'])}: {first['msg']}"
        raise Refusal(400, message, "invalid_value", name) from error
    if fields.timestamp_granularities and fields.response_format != "verbose_json":
        raise Refusal(
            400, f"timestamp_granularities with response_format {fields.response_format}, expected "
            "verbose_json, which has times", "invalid_value", "timestamp_granularities",
        )  # fmt: skip
    return fields


def answer(transcript: Transcript, fields: TranscriptionFields, language: str) -> Response:
    """Write a transcript in the format that was asked for.

    Args:
        transcript: of the file.
        fields: of the request.
        language: of the model; empty for none.
    """
    if fields.response_format == "text":
        return PlainTextResponse(printable(transcript.text) + "\n")
    if fields.response_format == "srt":
        return PlainTextResponse(transcript.srt())
    if fields.response_format == "vtt":
        return Response(transcript.vtt(), media_type="text/vtt")
    if fields.response_format == "json":
        return JSONResponse({"text": transcript.text})
    body: dict[str, Any] = {
        "task": "transcribe",
        "language": language,
        "duration": round(transcript.duration, 3),
        "text": transcript.text,
    }
    wanted = fields.timestamp_granularities or ["segment"]
    if "word" in wanted:
        body["words"] = [word.row() for word in transcript.words]
    if "segment" in wanted:
        body["segments"] = [
            segment_row(number, segment) for number, segment in enumerate(transcript.segments)
        ]
    return JSONResponse(body)


def segment_row(number: int, segment: Segment) -> dict[str, Any]:
    """Tell a segment as OpenAI's verbose_json has it, with its words."""
    text = segment.text
    encoded = text.encode()
    logs = [math.log(max(word.confidence, 1e-4)) for word in segment.words]
    return {
        "id": number,
        "seek": round(segment.start / WINDOW_S),
        "start": segment.start,
        "end": segment.end,
        "text": text,
        "tokens": [],
        "temperature": 0.0,
        "avg_logprob": round(math.fsum(logs) / len(logs), 4) if logs else 0.0,
        "compression_ratio": round(len(encoded) / len(zlib.compress(encoded)), 3),
        "no_speech_prob": 0.0,
        "words": [word.row() for word in segment.words],
    }
