"""Requests a second at which 95 of 100 are answered within a second, beside one file after another.

    python -m benchmarks.serve --model runs/train/demo --manifest data/digits_synthetic/test.jsonl

Requests come at random moments (Poisson), at a rate that rises until the answers are too late.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from asr.data.manifest import read_manifest
from asr.transcriber import Transcriber
from tests.reliability.clients import ask, recording
from tests.serve.running import Running, running

P95_S = 1.0
STEP = 1.25  # from one rate to the next
SECONDS = 15.0  # of each rate


async def answer_times(
    server: Running, requests: Sequence[bytes], rate: float, seconds: float, seed: int
) -> list[float]:
    """Times of requests that come at random moments [s]; infinite for one without its text."""
    draws, waiting = random.Random(seed), []

    async def one(request: bytes) -> float:
        timed = await ask(server, request)
        return timed.seconds if timed.answer.status == 200 else float("inf")

    start, moment = time.perf_counter(), 0.0
    for request in itertools.cycle(requests):
        moment += draws.expovariate(rate)
        if moment > seconds:
            return await asyncio.gather(*waiting)
        await asyncio.sleep(max(start + moment - time.perf_counter(), 0))
        waiting.append(asyncio.ensure_future(one(request)))
    raise AssertionError("no requests")


def highest_rate(
    server: Running, requests: Sequence[bytes], rate: float, seconds: float
) -> tuple[float, float, float]:
    """The highest rate [1/s] whose p95 is within P95_S, its median and its p95 [s]."""
    best = (0.0, 0.0, 0.0)
    for number in range(20):
        times = asyncio.run(answer_times(server, requests, rate, seconds, number))
        p95 = statistics.quantiles(times, n=20)[-1]
        print(f"  {rate:6.1f} a second: median {statistics.median(times):.3f} s, p95 {p95:.3f} s")
        if not p95 <= P95_S:  # of infinite times it may be no number
            break
        best = rate, statistics.median(times), p95
        rate *= STEP
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each rate")
    options = parser.parse_args()
    utterances = list(read_manifest(options.manifest))
    random.Random(0).shuffle(utterances)
    paths = [each.audio_filepath for each in utterances]
    mean_s = statistics.mean(each.duration for each in utterances)
    print(f"{len(paths)} recordings of {mean_s:.2f} s on average, {os.cpu_count()} cores, "
          f"load {os.getloadavg()[0]:.1f}")  # fmt: skip

    transcriber = Transcriber.load(options.model)
    texts = [transcriber.transcribe(path).text for path in paths[:20]]  # warm
    start = time.perf_counter()
    texts = [transcriber.transcribe(path).text for path in paths]
    plain = len(paths) / (time.perf_counter() - start)
    print(f"one file after another, in Python: {plain:.1f} files a second")

    contents = [path.read_bytes() for path in paths]
    requests = [recording(content) for content in contents]
    with tempfile.TemporaryDirectory() as folder:
        for workers in (1, 2):
            threads = max((os.cpu_count() or 1) // workers, 1)
            with running(
                options.model.resolve(), Path(folder) / "log.txt", "--workers", str(workers),
                "--max-per-client", "64", OMP_NUM_THREADS=str(threads),
            ) as server:  # fmt: skip

                async def check(server: Running = server) -> int:
                    wrong = 0
                    for place in range(0, len(requests), 8):
                        answers = await asyncio.gather(
                            *(ask(server, each) for each in requests[place : place + 8])
                        )
                        expected = texts[place : place + 8]
                        wrong += sum(
                            each.answer.json["text"] != text
                            for each, text in zip(answers, expected, strict=True)
                        )
                    return wrong

                wrong = asyncio.run(check())
                print(f"{workers} worker(s): {wrong} of {len(texts)} texts differ from Python's")
                rate, median, p95 = highest_rate(server, requests, plain / 4, options.seconds)
            print(f"{workers} worker(s): {rate:.1f} requests a second, {rate * mean_s:.1f} s of "
                  f"audio a second, median {median:.3f} s, p95 {p95:.3f} s; {rate / plain:.2f} of "
                  "one file after another")  # fmt: skip


if __name__ == "__main__":
    main()
