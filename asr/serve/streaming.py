"""Live speech over a WebSocket: samples in, words so far and segments out."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import suppress
from typing import Any

import numpy as np
from starlette.websockets import WebSocket, WebSocketDisconnect

from asr.audio_file import MAX_SAMPLE_RATE, MIN_SAMPLE_RATE
from asr.serve.access import spoken_with
from asr.serve.refusal import Refusal
from asr.serve.service import Served, Service
from asr.stream import Stream
from asr.transcript import Segment
from asr.untrusted import shown

# Codes with which a connection is closed (RFC 6455, and its registry).
DONE, NOT_OURS, POLICY, OUR_FAULT, RESTARTING, FULL = 1000, 1003, 1008, 1011, 1012, 1013
ENDING = "the server is shutting down, expected another connection"

logger = logging.getLogger(__name__)


class _Closed(Exception):  # noqa: N818 -- an end, not a fault
    """A stream has to end.

    Args:
        code: of the WebSocket.
        message: why.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


async def live(socket: WebSocket, service: Service) -> None:
    """Transcribe what comes over a WebSocket until the client says that it is at its end.

    Args:
        socket: not accepted yet.
        service: the server's models and what it takes.
    """
    await socket.accept(subprotocol=spoken_with(socket.scope))
    # Who is gone, or reads nothing any more, is told nothing.
    with suppress(WebSocketDisconnect, TimeoutError):
        ended = await _ended(socket, service)
        with suppress(RuntimeError):
            if ended.code != DONE:
                await _send(socket, service, {"type": "error", "message": str(ended)})
            await socket.close(ended.code)


async def _ended(socket: WebSocket, service: Service) -> _Closed:
    """Transcribe to the end of a stream, and tell what ended it.

    Raises:
        WebSocketDisconnect: the client is gone.
        TimeoutError: it reads nothing any more.
    """
    try:
        if service.is_ending.is_set():
            return _Closed(RESTARTING, ENDING)
        with (
            service.streams.one(socket.state.client, service.engine.wait_s),
            service.metrics.streams.track_inprogress(),
        ):
            await _transcribe(socket, service)
        return _Closed(DONE, "")
    except _Closed as closed:
        return closed
    except Refusal as refusal:
        return _Closed(FULL, str(refusal))
    except (WebSocketDisconnect, TimeoutError):
        raise
    except Exception:
        logger.exception("a live stream failed")
        return _Closed(OUR_FAULT, "the server failed, expected a new stream")


async def _transcribe(socket: WebSocket, service: Service) -> None:
    served, rate = _asked_for(socket, service)
    stream = served.transcriber.stream(rate)
    await _send(socket, service, {"type": "ready", "sample_rate": rate})
    rest, num_samples, last = b"", 0, ""
    while (content := await _next(socket, service)) is not None:
        content = rest + content
        whole = len(content) - len(content) % 2
        rest = content[whole:]
        samples = np.frombuffer(content[:whole], "<i2")
        num_samples += len(samples)
        if num_samples > service.limits.stream_s * rate:
            raise _Closed(
                POLICY, f"more than {service.limits.stream_s:g} s of audio, expected a new stream"
            )
        service.metrics.stream_seconds.inc(len(samples) / rate)
        segments, partial = await asyncio.wrap_future(
            service.engine.run(lambda samples=samples: _push(stream, samples))  # type: ignore[misc]
        )
        for segment in segments:
            await _send(socket, service, _row("final", segment))
        text = "" if partial is None else partial.text
        if partial is not None and text and (text != last or segments):
            await _send(socket, service, _row("partial", partial))
        last = text
    if rest:
        raise _Closed(POLICY, "half a sample at the end, expected samples of 16 bits")
    for segment in await asyncio.wrap_future(service.engine.run(stream.finish)):
        await _send(socket, service, _row("final", segment))
    await _send(socket, service, {"type": "done", "duration": round(num_samples / rate, 3)})


def _push(stream: Stream, samples: Any) -> tuple[list[Segment], Segment | None]:
    return stream.push(samples), stream.partial


def _asked_for(socket: WebSocket, service: Service) -> tuple[Served, int]:
    """The model and the sample rate that the query names."""
    query = socket.query_params
    try:
        served = service.model(query.get("model", ""))
    except Refusal as refusal:
        raise _Closed(POLICY, str(refusal)) from refusal
    text = query.get("sample_rate", str(served.transcriber.sample_rate))
    rate = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
    if not MIN_SAMPLE_RATE <= rate <= MAX_SAMPLE_RATE:
        raise _Closed(
            POLICY, f"sample_rate is {shown(text)}, expected {MIN_SAMPLE_RATE} to "
            f"{MAX_SAMPLE_RATE} Hz",
        )  # fmt: skip
    return served, rate


async def _next(socket: WebSocket, service: Service) -> bytes | None:
    """The next samples; None at the end."""
    receiving = asyncio.ensure_future(socket.receive())
    ending = asyncio.ensure_future(service.is_ending.wait())
    try:
        done, _ = await asyncio.wait(
            {receiving, ending}, timeout=service.limits.silence_s,
            return_when=asyncio.FIRST_COMPLETED,
        )  # fmt: skip
    finally:
        ending.cancel()
        if not receiving.done():
            receiving.cancel()
    if service.is_ending.is_set():
        raise _Closed(RESTARTING, ENDING)
    if receiving not in done:
        silence = service.limits.silence_s
        raise _Closed(POLICY, f"nothing came for {silence:g} s, expected samples, or finish")
    message = receiving.result()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1005))
    if (content := message.get("bytes")) is not None:
        return bytes(content)
    try:
        command = json.loads(message.get("text") or "")
    except (ValueError, RecursionError):
        command = None
    if command == {"type": "finish"}:
        return None
    raise _Closed(NOT_OURS, 'a text that is no command, expected {"type": "finish"}')


async def _send(socket: WebSocket, service: Service, row: dict[str, Any]) -> None:
    """Send a message to a client who reads.

    Raises:
        TimeoutError: it does not.
    """
    async with asyncio.timeout(service.limits.silence_s):
        await socket.send_text(json.dumps(row, ensure_ascii=False))


def _row(kind: str, segment: Segment) -> dict[str, Any]:
    return {
        "type": kind,
        "start": segment.start,
        "end": segment.end,
        "text": segment.text,
        "words": [word.row() for word in segment.words],
    }
