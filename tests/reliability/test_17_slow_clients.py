"""Check 17: slow and large clients: closed in time, told early, and no trouble for the others."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import websockets

from tests.reliability.clients import head, metric, p95, read_answer, recording, taken
from tests.serve.running import TRANSCRIPTIONS, Running, running, wav_of

Survived = Callable[[str, int, int], None]

CLOSED_S = 30.0  # [s] within which a slow client is closed
MORE_BYTES = 64_000_000
EARLY_S = 2.0  # [s] in which a body that is too large is refused
UPLOAD_MB = 20


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Says nothing."""


async def half_a_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A byte of a header a second."""
    writer.write(b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ")
    while True:
        writer.write(b"x")
        await asyncio.sleep(1)


async def half_a_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A byte of a body a second."""
    request = recording(wav_of("abc"), ends=False)
    place = request.index(b"\r\n\r\n") + 4
    writer.write(request[:place])
    while place < len(request):
        writer.write(request[place : place + 1])
        place += 1
        await asyncio.sleep(1)


async def asked_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Asks once, and keeps the connection."""
    writer.write(head("GET", "/health", {}))
    assert (await read_answer(reader)).status == 200


async def reads_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Asks one question behind the other, and reads no answer."""
    reader._transport.pause_reading()  # type: ignore[attr-defined]
    for number in itertools.count():
        writer.write(head("GET", "/openapi.json", {}))
        # First more than the buffers between them hold.
        await asyncio.sleep(0.1 if number < 30 else 2)


KINDS = (silent, half_a_head, half_a_body, asked_once, reads_nothing)


async def closed_after(port: int, kind: Callable[..., object]) -> float:
    """How long the server bears with a client [s]; CLOSED_S and more if it does."""
    start = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    own = asyncio.ensure_future(kind(reader, writer))  # type: ignore[arg-type]
    link = writer.get_extra_info("socket")
    try:
        while time.monotonic() - start < CLOSED_S + 5:
            await asyncio.sleep(0.25)
            # Of the kernel, for a client that does not read: 1 is established.
            if link.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != 1:
                break
            if kind is not reads_nothing and own.done() and reader.at_eof():
                break
    except OSError:
        pass
    finally:
        own.cancel()
        writer.transport.abort()
    return time.monotonic() - start


def main(port: int, count: int) -> None:
    """Be the slow clients, in a process of their own, and print how long each was borne with."""

    async def all_of_them() -> list[float]:
        kinds = (KINDS[number % len(KINDS)] for number in range(count))
        return await asyncio.gather(*(closed_after(port, kind) for kind in kinds))

    print(json.dumps(asyncio.run(all_of_them())))


@pytest.mark.parametrize(
    ("count", "silence_s", "num_asked"),
    [
        pytest.param(20, 3, 0, id="quick"),
        pytest.param(200, 20, 200, id="all", marks=pytest.mark.slow),
    ],
)
def test_slow_clients_are_closed_and_hold_up_nobody(
    count: int, silence_s: int, num_asked: int, tone_model: Path, survived: Survived, tmp_path: Path
) -> None:
    request = recording(wav_of("abc"))
    with running(
        tone_model, tmp_path / "log.txt", "--max-silence-s", str(silence_s)
    ) as server:  # fmt: skip
        idle = asyncio.run(p95(server, request, 20 + num_asked))
        before, busy = taken(server).rss_bytes, 0.0
        with subprocess.Popen(
            [sys.executable, "-c", f"from {__name__} import main; main({server.port}, {count})"],
            cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True,
        ) as slow:  # fmt: skip
            while metric(server, "asr_connections ") < count * 0.9 and slow.poll() is None:
                time.sleep(0.1)
            if num_asked:
                time.sleep(4)  # until all say no more than they do
                busy = asyncio.run(p95(server, request, num_asked))
            more = taken(server).rss_bytes - before
            times = json.loads(slow.communicate(timeout=60)[0])
        if num_asked:  # what else runs on the machine may change meanwhile
            idle = max(idle, asyncio.run(p95(server, request, num_asked)))
    print(f"closed after {max(times):.1f} s at most, p95 {idle:.4f} s idle, {busy:.4f} s beside "
          f"them, {more / 1e6:.0f} MB more")  # fmt: skip
    assert more <= MORE_BYTES
    assert busy <= 2 * idle
    survived("17 slow clients", sum(each <= CLOSED_S for each in times), count)


async def chunked(server: Running, chunk: bytes) -> tuple[int, float]:
    """Send chunks of a file without end; returns the status, and when it came [s]."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    kind = "multipart/form-data; boundary=x"
    writer.write(
        head("POST", TRANSCRIPTIONS, {"Content-Type": kind, "Transfer-Encoding": "chunked"})
    )
    part = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    answering = asyncio.ensure_future(read_answer(reader))
    start, block = time.monotonic(), part
    while not answering.done() and time.monotonic() - start < CLOSED_S:
        try:
            writer.write(f"{len(block):x}\r\n".encode() + block + b"\r\n")
            await writer.drain()
        except ConnectionError:
            break
        block = chunk
        await asyncio.sleep(0)
    status = (await asyncio.wait_for(answering, 5)).status
    writer.close()
    return status, time.monotonic() - start


def test_large_bodies_are_refused_early(
    tone_model: Path, survived: Survived, tmp_path: Path
) -> None:
    with running(
        tone_model, tmp_path / "log.txt", "--max-upload-mb", str(UPLOAD_MB),
        "--max-connections", "40",
    ) as server:  # fmt: skip
        before, told = taken(server).rss_bytes, []

        async def declared() -> tuple[int, float]:
            start = time.monotonic()
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            kind = "multipart/form-data; boundary=x"
            writer.write(
                head("POST", TRANSCRIPTIONS, {"Content-Type": kind, "Content-Length": 10**10})
            )
            status = (await read_answer(reader)).status
            writer.close()
            return status, time.monotonic() - start

        status, seconds = asyncio.run(declared())
        told.append((status, seconds < EARLY_S) == (413, True))
        status, seconds = asyncio.run(chunked(server, bytes(1 << 16)))
        told.append((status, seconds < CLOSED_S) == (413, True))
        parts = {f"field{number}": "x" for number in range(10_000)}
        answer = server.transcribe(wav_of("abc"), **parts)
        told.append(answer.status == 400 and "Too many fields" in answer.message)
        answer = server.transcribe(wav_of("abc"), prompt="x" * 10_000_000)
        told.append(answer.status == 400)
        reader_head = b"GET /health HTTP/1.1\r\n" + b"X: y\r\n" * 100_000
        with socket.create_connection(("127.0.0.1", server.port)) as link:
            try:
                link.sendall(reader_head)
                told.append(link.recv(100).startswith(b"HTTP/1.1 431"))
            except ConnectionError:  # closed before all was sent
                told.append(True)

        async def message() -> int | None:
            async with websockets.connect(server.stream_url(sample_rate=8000)) as link:
                await link.recv()
                await link.send(bytes(1_000_000))
                with pytest.raises(websockets.ConnectionClosed):
                    await link.recv()
                return link.close_code

        told.append(asyncio.run(message()) == 1009)
        links = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(40)]
        answer = server.transcribe(wav_of("abc"))
        told.append((answer.status, answer.headers["retry-after"]) == (503, "1"))
        for link in links:
            link.close()
        time.sleep(0.5)
        assert server.transcribe(wav_of("abc")).json == {"text": "abc"}
        assert taken(server).rss_bytes - before <= MORE_BYTES
        survived("17 large bodies", sum(told), len(told))
