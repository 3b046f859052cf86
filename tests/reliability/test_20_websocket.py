"""Check 20: WebSockets: no more than there is room for, the right codes, and the right words."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import websockets

from asr.transcriber import Transcriber
from tests.cli.conftest import RATE, TEXTS, tones
from tests.serve.running import Running, running

Survived = Callable[[str, int, int], None]

FULL, NOT_OURS, POLICY, TOO_LARGE = 1013, 1003, 1008, 1009


def samples_of(number: int) -> np.ndarray:
    """What one of many says: some texts with pauses between."""
    texts = [TEXTS[(number + place) % len(TEXTS)] for place in range(3)]
    pause = np.zeros(RATE, np.float32)
    waveform = np.concatenate([np.concatenate([tones(text), pause]) for text in texts])
    return np.rint(waveform * 32767).astype("<i2")


async def first_of(server: Running) -> tuple[Any, dict[str, Any]]:
    """Connect, and read the first message."""
    link = await websockets.connect(server.stream_url(sample_rate=RATE), open_timeout=60)
    return link, json.loads(await link.recv())


@pytest.mark.parametrize(
    ("count", "limit"),
    [pytest.param(30, 10, id="quick"), pytest.param(300, 100, id="all", marks=pytest.mark.slow)],
)
def test_only_so_many_get_in(
    count: int, limit: int, tone_model: Path, survived: Survived, tmp_path: Path
) -> None:
    async def crowd(server: Running) -> Counter[object]:
        links = await asyncio.gather(*(first_of(server) for _ in range(count)))
        found: Counter[object] = Counter()
        for link, message in links:
            if message["type"] == "ready":
                found["in"] += 1
                continue
            assert message["type"] == "error"
            await link.wait_closed()
            found[link.close_code] += 1
        await asyncio.gather(*(link.close() for link, _ in links))
        link, message = await first_of(server)  # there is room again
        assert message["type"] == "ready"
        await link.close()
        return found

    with running(tone_model, tmp_path / "log.txt", "--max-streams", str(limit)) as server:
        found = asyncio.run(crowd(server))
    assert found == {"in": limit, FULL: count - limit}
    survived("20 connections", sum(found.values()), count)


WRONG: list[tuple[str, str, list[str | bytes], int]] = [
    ("oversize", "sample_rate=8000", [bytes(300_000)], TOO_LARGE),
    ("no JSON", "sample_rate=8000", ["finish"], NOT_OURS),
    ("no command", "sample_rate=8000", ['{"type": "begin"}'], NOT_OURS),
    ("deep JSON", "sample_rate=8000", ["[" * 100_000], NOT_OURS),
    ("half a sample", "sample_rate=8000", [b"x", '{"type": "finish"}'], POLICY),
    ("path", "model=/etc/passwd", [], POLICY),
    ("model file", "model=best.safetensors", [], POLICY),
    ("rate 0", "sample_rate=0", [], POLICY),
    ("rate of letters", "sample_rate=fast", [], POLICY),
    ("rate of many digits", f"sample_rate={'9' * 5000}", [], POLICY),
    ("silence", "sample_rate=8000", [], POLICY),
]


def test_what_is_wrong_is_told_by_its_code(
    tone_model: Path, survived: Survived, tmp_path: Path
) -> None:
    async def code(server: Running, query: str, messages: list[str | bytes]) -> int | None:
        url = f"ws://127.0.0.1:{server.port}/v1/stream?{query}"
        async with websockets.connect(url, max_size=None) as link:
            for message in messages:
                try:
                    await link.send(message)
                except websockets.ConnectionClosed:
                    break
            await asyncio.wait_for(link.wait_closed(), 20)
            return link.close_code

    with running(tone_model, tmp_path / "log.txt", "--max-silence-s", "2") as server:
        found = [(name, asyncio.run(code(server, query, messages)), expected)
                 for name, query, messages, expected in WRONG]  # fmt: skip
        assert "Traceback" not in server.log.read_text()
    wrong = [each for each in found if each[1] != each[2]]
    assert not wrong, wrong
    survived("20 wrong messages", len(found) - len(wrong), len(found))


@pytest.mark.slow
def test_live_streams_beside_each_other_are_what_each_is_alone(
    tone_model: Path, survived: Survived, tmp_path: Path
) -> None:
    count = 32
    transcriber = Transcriber.load(tone_model)

    async def speak(server: Running, number: int) -> list[dict[str, Any]]:
        content, size = samples_of(number).tobytes(), 800 + 37 * number  # bytes of a message
        async with websockets.connect(
            server.stream_url(sample_rate=RATE, model="tones"), ping_timeout=None
        ) as link:
            for place in range(0, len(content), size):
                await link.send(content[place : place + size])
            await link.send(json.dumps({"type": "finish"}))
            return [json.loads(message) async for message in link]

    async def all_speak(server: Running) -> list[list[dict[str, Any]]]:
        return await asyncio.gather(*(speak(server, number) for number in range(count)))

    with running(tone_model, tmp_path / "log.txt") as server:
        heard = asyncio.run(all_speak(server))
    right = 0
    for number, rows in enumerate(heard):
        stream = transcriber.stream(RATE)
        offline = [*stream.push(samples_of(number)), *stream.finish()]
        expected = [(each.text, [word.row() for word in each.words]) for each in offline]
        found = [(row["text"], row["words"]) for row in rows if row["type"] == "final"]
        right += found == expected and rows[-1]["type"] == "done" and len(found) >= 3
    survived("20 live streams", right, count)
