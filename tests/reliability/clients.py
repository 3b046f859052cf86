"""Many clients of one server at a time, and what the server's process takes."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.serve.running import TRANSCRIPTIONS, Answer, Running, form


@dataclass(frozen=True)
class Timed:
    """An answer, and how long it took [s]."""

    answer: Answer
    seconds: float


def head(method: str, path: str, headers: Mapping[str, object]) -> bytes:
    """The first lines of a request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def recording(audio: bytes, *, ends: bool = True, **fields: str | list[str]) -> bytes:
    """A whole request for a transcript, of a connection that ends with it."""
    body, kind = form({"model": "tones", **fields}, audio)
    headers = {"Content-Type": kind, "Content-Length": len(body)}
    closing = {"Connection": "close"} if ends else {}
    return head("POST", TRANSCRIPTIONS, {**headers, **closing}) + body


async def read_answer(reader: asyncio.StreamReader) -> Answer:
    """Read one answer."""
    lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    found = {}
    for line in lines[1:]:
        name, _, value = line.partition(": ")
        found[name.lower()] = value
    content = await reader.readexactly(int(found.get("content-length", "0")))
    return Answer(int(lines[0].split()[1]), found, content)


async def ask(server: Running, request: bytes, address: str = "127.0.0.1") -> Timed:
    """Send a request on a connection of its own, from an address of this machine."""
    start = time.perf_counter()
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", server.port, local_addr=(address, 0)
    )
    try:
        writer.write(request)
        answer = await read_answer(reader)
    finally:
        writer.close()
    return Timed(answer, time.perf_counter() - start)


async def p95(server: Running, request: bytes, count: int) -> float:
    """The 95th percentile of the times of requests one after the other [s]."""
    times = []
    for _ in range(count):
        timed = await ask(server, request)
        assert timed.answer.status == 200, timed.answer
        times.append(timed.seconds)
    return statistics.quantiles(times, n=20)[-1]


def metric(server: Running, name: str) -> float:
    """A number of /metrics."""
    text = server.ask("GET", "/metrics").content.decode()
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))


@dataclass(frozen=True)
class Taken:
    """What a process holds."""

    rss_bytes: int
    descriptors: int
    threads: int


def taken(server: Running) -> Taken:
    """Look at the server's process."""
    folder = Path("/proc") / str(server.process.pid)
    status = dict(
        line.split(":", 1) for line in (folder / "status").read_text().splitlines() if ":" in line
    )
    descriptors = len(list((folder / "fd").iterdir()))
    return Taken(int(status["VmRSS"].split()[0]) * 1024, descriptors, int(status["Threads"]))
