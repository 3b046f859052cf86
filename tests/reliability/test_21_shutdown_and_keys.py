"""Check 21: an end in order, keys, and pages of foreign origins."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import websockets

from tests.reliability.clients import ask, recording
from tests.serve.running import TRANSCRIPTIONS, Running, form, running, wav_of

Survived = Callable[[str, int, int], None]

KEY = "kx-0123456789abcdef-SECRET"
ROUTES = [
    ("POST", TRANSCRIPTIONS), ("GET", "/v1/models"), ("GET", "/v1/about"), ("GET", "/metrics"),
    ("POST", "/v1/format"), ("GET", "/v1/unknown"), ("PUT", "/v1/review/1"), ("WS", "/v1/stream"),
]  # fmt: skip
OPEN = ("/health", "/ready", "/openapi.json", "/")
# Forms in which a key may be sent that is not the key.
WRONG_KEYS: Mapping[str, str | None] = {
    "none": None, "empty": "Bearer ", "other": "Bearer kx-0123456789abcdef-OTHER!",
    "cut": f"Bearer {KEY[:-1]}", "longer": f"Bearer {KEY}x", "other scheme": f"Basic {KEY}",
    "other case": f"Bearer {KEY.lower()}",
}  # fmt: skip


@pytest.mark.parametrize(
    ("num_requests", "num_streams"),
    [pytest.param(12, 5, id="quick"), pytest.param(50, 20, id="all", marks=pytest.mark.slow)],
)
def test_sigterm_finishes_what_runs(
    num_requests: int, num_streams: int, tone_model: Path, survived: Survived, tmp_path: Path
) -> None:
    text = "abcab"
    request = recording(wav_of(text))

    async def stream(server: Running) -> object:
        async with websockets.connect(
            server.stream_url(sample_rate=8000), ping_timeout=None
        ) as link:
            assert json.loads(await link.recv())["type"] == "ready"

            async def speak() -> None:
                while True:
                    await link.send(wav_of(text)[44:])
                    await asyncio.sleep(0.1)

            speaking = asyncio.ensure_future(speak())
            rows: list[dict[str, Any]] = []
            with suppress(websockets.ConnectionClosed):
                async for row in link:
                    rows.append(json.loads(row))
            with pytest.raises(websockets.ConnectionClosed):
                await speaking
            assert rows[-1]["type"] == "error"
            return link.close_code

    async def end(server: Running) -> list[object]:
        streams = [asyncio.ensure_future(stream(server)) for _ in range(num_streams)]
        await asyncio.sleep(1)
        requests = [asyncio.ensure_future(ask(server, request)) for _ in range(num_requests)]
        while not any(each.done() for each in requests):  # all are there, and one is answered
            await asyncio.sleep(0.001)
        server.process.send_signal(signal.SIGTERM)
        return await asyncio.gather(*requests, *streams, return_exceptions=True)

    with running(tone_model, tmp_path / "log.txt", "--max-per-client", "64") as server:
        results = asyncio.run(end(server))
        status = server.process.wait(30)
        log = server.log.read_text()
    answers, codes = results[:num_requests], results[num_requests:]
    finished = [each for each in answers
                if getattr(getattr(each, "answer", None), "status", 0) == 200
                and each.answer.json == {"text": text}]  # type: ignore[attr-defined]  # fmt: skip
    assert status == 0, log
    assert "Traceback" not in log
    told = Counter(codes)[1012]
    assert told == num_streams, Counter(map(repr, codes))
    survived("21 requests and streams at the end", len(finished) + told, len(results))


def test_a_second_sigterm_ends_at_once(tone_model: Path, tmp_path: Path) -> None:
    async def hold(server: Running) -> float:
        request = recording(wav_of("abc"))
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(request[:-100])  # what runs is waited for
        await asyncio.sleep(0.5)
        server.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(1.5)
        assert server.process.poll() is None
        server.process.send_signal(signal.SIGTERM)
        start = time.monotonic()
        server.process.wait(20)
        writer.close()
        return time.monotonic() - start

    with running(tone_model, tmp_path / "log.txt") as server:
        assert asyncio.run(hold(server)) < 2
        assert server.process.returncode == 128 + signal.SIGTERM


async def handshake(server: Running, headers: Mapping[str, str], *keys: str) -> int:
    """Status of a WebSocket's handshake, or the code with which it is closed at once.

    Args:
        server: that is asked.
        headers: of the handshake.
        keys: as a page sends them, which has no headers.
    """
    coded = [base64.urlsafe_b64encode(key.encode()).decode().rstrip("=") for key in keys]
    offered = ["asr", *(f"key.{each}" for each in coded)] if keys else None
    try:
        async with websockets.connect(
            server.stream_url(), additional_headers=headers, subprotocols=offered
        ) as link:
            message = json.loads(await link.recv())
            if message["type"] == "ready":
                return 101
            await link.wait_closed()
            return int(link.close_code or 0)
    except websockets.InvalidStatus as error:
        return error.response.status_code


def test_keys_and_origins(tone_model: Path, survived: Survived, tmp_path: Path) -> None:
    body, kind = form({"model": "tones"}, wav_of("abc"))
    with running(tone_model, tmp_path / "log.txt", key=KEY) as server:
        server.key = ""
        port = server.port

        def status(method: str, path: str, headers: Mapping[str, str]) -> int:
            if method == "WS":
                return asyncio.run(handshake(server, headers))
            content = body if method != "GET" else None
            return server.ask(method, path, content, {"Content-Type": kind, **headers}).status

        refused = tried = 0
        for method, path in ROUTES:
            for value in WRONG_KEYS.values():
                tried += 1
                headers = {} if value is None else {"Authorization": value}
                # A WebSocket is told by its code: a page reads nothing of a handshake that fails.
                refused += status(method, path, headers) in (401, 403, 1008)
        for keys in ([""], [KEY[:-1]], [KEY, f"{KEY}x"], [KEY.lower()]):
            tried += 1
            refused += asyncio.run(handshake(server, {}, *keys)) == 1008
        right = {"Authorization": f"Bearer {KEY}"}
        assert status("POST", TRANSCRIPTIONS, right) == 200
        assert status("WS", "/v1/stream", right) == 101
        assert asyncio.run(handshake(server, {}, KEY)) == 101
        assert [status("GET", path, {}) for path in OPEN] == [200] * len(OPEN)
        foreign: Mapping[str, int] = {
            "https://evil.example": 403, "null": 403, f"http://127.0.0.1:{port + 1}": 403,
            f"http://127.0.0.1.evil.example:{port}": 403, f"http://127.0.0.1:{port}": 200,
        }  # fmt: skip
        for origin, expected in foreign.items():
            for method, path in ROUTES[:4] + ROUTES[-1:] + [("GET", "/health"), ("GET", "/")]:
                tried += 1
                found = status(method, path, {**right, "Origin": origin})
                refused += found == (101 if method == "WS" and expected == 200 else expected)
        assert (
            "access-control-allow-origin"
            not in server.ask(
                "OPTIONS", TRANSCRIPTIONS, headers={"Origin": "https://evil.example"}
            ).headers
        )
        server.stop()
        log = server.log.read_text()
        assert KEY not in log
        assert KEY[:-1] not in log
        assert "Traceback" not in log
    survived("21 keys and origins", refused, tried)
