"""Check 19: clients who leave, and then many who stay: nothing is left open, nothing grows."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import websockets

from tests.reliability.clients import ask, head, metric, recording, taken
from tests.serve.running import Running, running, wav_of

Survived = Callable[[str, int, int], None]

GONE_S = 2.0  # [s] after which nothing of those who left is active
MORE_OF_EACH = 1000  # bytes of memory
AT_ONCE = 4


async def drop(server: Running, request: bytes, draws: random.Random) -> None:
    """Leave in the midst of a request, while its answer is made, or of a live stream."""
    kind = draws.randrange(3)
    if kind == 2:
        link = await websockets.connect(server.stream_url(sample_rate=8000))
        await link.send(wav_of("abcab")[44:])
        if draws.random() < 0.5:
            await link.send(json.dumps({"type": "finish"}))
        link.transport.abort()
        return
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(request if kind else request[: draws.randrange(1, len(request))])
    await writer.drain()
    await asyncio.sleep(draws.uniform(0, 0.05))
    writer.transport.abort()


def active(server: Running) -> float:
    """Requests, streams and connections but this one."""
    names = ("asr_queued_requests", "asr_streams", "asr_connections")
    return sum(metric(server, name + " ") for name in names) - 1


@pytest.mark.parametrize(
    ("num_drops", "count"),
    [
        pytest.param(30, 150, id="quick"),
        pytest.param(200, 5000, id="all", marks=pytest.mark.slow),
    ],
)
def test_soak(
    num_drops: int, count: int, tone_model: Path, survived: Survived, tmp_path: Path, seed: int
) -> None:
    draws = random.Random(seed)
    short, long = recording(wav_of("abc")), recording(wav_of("abc ab" * 20))

    async def leave(server: Running) -> None:
        for _ in range(num_drops // 10):
            await asyncio.gather(*(drop(server, long, draws) for _ in range(10)))

    async def stay(server: Running, number: int) -> int:
        right = 0

        async def client() -> None:
            nonlocal right
            for place in range(number // AT_ONCE):
                timed = await ask(server, short)
                right += timed.answer.json == {"text": "abc"}
                if place % 50 == 0:
                    assert (await ask(server, head("GET", "/", {}))).answer.status == 200
                    async with websockets.connect(server.stream_url(sample_rate=8000)) as link:
                        await link.send(wav_of("abc")[44:])
                        await link.send(json.dumps({"type": "finish"}))
                        rows = [json.loads(row) async for row in link]
                        assert [row["text"] for row in rows if row["type"] == "final"] == ["abc"]

        await asyncio.gather(*(client() for _ in range(AT_ONCE)))
        return right

    with running(tone_model, tmp_path / "log.txt") as server:
        asyncio.run(stay(server, min(count // 5, 600) // AT_ONCE * AT_ONCE))  # as it is in use
        asyncio.run(leave(server))
        time.sleep(GONE_S)
        left = active(server)
        before = taken(server)
        right = asyncio.run(stay(server, count // AT_ONCE * AT_ONCE))
        time.sleep(GONE_S)
        after = taken(server)
        grown = (after.rss_bytes - before.rss_bytes) / count
        more = after.descriptors - before.descriptors, after.threads - before.threads
        print(f"{left:g} active; descriptors and threads {more} and {grown:.0f} B a request more")
        assert left == 0
        assert active(server) == 0
        assert max(more) <= 2
        # Of few requests the memory is what the allocator happens to take.
        assert grown <= MORE_OF_EACH or count < 1000
        assert "Traceback" not in server.log.read_text()
    survived("19 soak", right, count // AT_ONCE * AT_ONCE)
