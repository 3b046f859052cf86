"""Check 18: four times what it can do: each request answered once, every text right, then calm."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from asr.transcriber import Transcriber
from tests.cli.conftest import TEXTS
from tests.reliability.clients import Timed, ask, p95, recording
from tests.serve.running import Running, running, wav_of

Survived = Callable[[str, int, int], None]

TIMES = 4  # as many as it can do
CALM_S = 5.0  # [s] until it is as it was
ADDRESSES = [f"127.0.0.{number}" for number in range(2, 10)]  # clients, each with its share


async def capacity(server: Running, requests: Mapping[str, bytes], seconds: float) -> float:
    """Requests a second that eight clients get done, each with one after the other."""
    until, done = time.monotonic() + seconds, 0

    async def client(number: int) -> None:
        nonlocal done
        while time.monotonic() < until:
            for request in requests.values():
                timed = await ask(server, request, ADDRESSES[number])
                assert timed.answer.status == 200
                done += 1

    start = time.monotonic()
    await asyncio.gather(*(client(number) for number in range(8)))
    return done / (time.monotonic() - start)


async def flood(
    server: Running, requests: Mapping[str, bytes], rate: float, seconds: float, seed: int
) -> list[tuple[str, Timed | Exception]]:
    """Send so many requests a second, whether they are answered or not."""
    draws, sent = random.Random(seed), []
    start = time.monotonic()

    async def one(text: str, address: str) -> tuple[str, Timed | Exception]:
        try:
            return text, await asyncio.wait_for(ask(server, requests[text], address), 60)
        except (OSError, EOFError, TimeoutError) as error:  # an answer that never came
            return text, error

    while (now := time.monotonic() - start) < seconds:
        while len(sent) < now * rate:
            text = draws.choice(sorted(requests))
            sent.append(asyncio.ensure_future(one(text, draws.choice(ADDRESSES))))
        await asyncio.sleep(0.005)
    return await asyncio.gather(*sent)


def is_right(text: str, timed: Timed | Exception, offline: Mapping[str, str]) -> bool:
    """Whether it was answered: by the text, or by when to come again."""
    if isinstance(timed, Exception):
        return False
    if timed.answer.status == 200:
        return bool(timed.answer.json == {"text": offline[text]})
    is_told = int(timed.answer.headers.get("retry-after", "0")) >= 1
    return timed.answer.status in (429, 503) and is_told


@pytest.mark.parametrize(
    ("seconds", "least"),
    [pytest.param(4, 100, id="quick"), pytest.param(60, 1000, id="all", marks=pytest.mark.slow)],
)
def test_overload(
    seconds: int, least: int, tone_model: Path, survived: Survived, tmp_path: Path, seed: int
) -> None:
    audio = {text: wav_of(text) for text in (*TEXTS, " ".join(TEXTS))}
    transcriber = Transcriber.load(tone_model)
    offline = {text: transcriber.transcribe(content).text for text, content in audio.items()}
    assert sum(text == offline[text] for text in TEXTS) == len(TEXTS)
    requests = {text: recording(content) for text, content in audio.items()}

    async def attack(
        server: Running,
    ) -> tuple[float, list[tuple[str, Timed | Exception]], list[float]]:
        one = requests["abc"]
        await p95(server, one, 20)
        idle = await p95(server, one, 50)
        most = await capacity(server, requests, min(seconds, 10))
        answers = await flood(server, requests, TIMES * most, seconds, seed)
        await asyncio.sleep(CALM_S / 2)
        return most, answers, [idle, await p95(server, one, 50)]

    with running(tone_model, tmp_path / "log.txt", "--max-queue", "32", "--max-per-client",
                 "12") as server:  # fmt: skip
        most, answers, (idle, after) = asyncio.run(attack(server))
    statuses = Counter(
        timed.answer.status if isinstance(timed, Timed) else repr(timed) for _, timed in answers
    )
    print(f"{most:.0f} requests a second at most; {dict(statuses)}; p95 {idle:.4f} s idle, "
          f"{after:.4f} s after")  # fmt: skip
    assert len(answers) >= least
    assert statuses[200] > 0
    assert statuses[429] + statuses[503] > 0
    assert after <= 2 * idle + 0.02
    faults = [(text, timed) for text, timed in answers if not is_right(text, timed, offline)]
    assert not faults, faults[:3]
    survived("18 overload", len(answers) - len(faults), len(answers))
