"""Requests a second at which 95 of 100 are answered within a second, beside one file after another.

    OMP_NUM_THREADS=1 python -m benchmarks.serve --model runs/train/demo \\
      --manifest data/digits_synthetic/test.jsonl

Requests come at random moments (Poisson), at a rate that rises until the answers are too late
three times. Each process computes in one thread.
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
SECONDS = 10.0  # of each rate
TRIES = 3  # of a rate: what else runs on the machine may take it for some seconds


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
    best, misses = (0.0, 0.0, 0.0), 0
    for number in range(40):
        times = asyncio.run(answer_times(server, requests, rate, seconds, number))
        p95 = statistics.quantiles(times, n=20)[-1]
        median = statistics.median(times)
        print(f"  {rate:6.1f} a second: median {median:.3f} s, p95 {p95:.3f} s", flush=True)
        if not p95 <= P95_S:  # of infinite times it may be no number
            misses += 1
            if misses == TRIES:
                break
            continue
        best, misses = (rate, median, p95), 0
        rate *= STEP
    return best


def processor_time(server: Running) -> float:
    """What the server's processes have taken of processors, those that decode too [s]."""
    ticks = os.sysconf("SC_CLK_TCK")
    parents: dict[int, tuple[int, float]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        parents[int(folder.name)] = int(fields[1]), (int(fields[11]) + int(fields[12])) / ticks

    def total(process: int) -> float:
        children = [each for each, (parent, _) in parents.items() if parent == process]
        return parents[process][1] + sum(map(total, children))

    return total(server.process.pid)


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
    start, used = time.perf_counter(), time.process_time()
    texts = [transcriber.transcribe(path).text for path in paths]
    plain = len(paths) / (time.perf_counter() - start)
    used_ms = 1000 * (time.process_time() - used) / len(paths)
    print(f"one file after another, in Python: {plain:.1f} files a second, {used_ms:.1f} ms of a "
          "processor each", flush=True)  # fmt: skip

    contents = [path.read_bytes() for path in paths]
    requests = [recording(content) for content in contents]
    with tempfile.TemporaryDirectory() as folder:
        for workers in (1, 2):
            with running(
                options.model.resolve(), Path(folder) / "log.txt", "--workers", str(workers),
                "--max-per-client", "64",
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

                asyncio.run(check())  # until all processes are there
                used = processor_time(server)
                wrong = asyncio.run(check())
                used_ms = 1000 * (processor_time(server) - used) / len(requests)
                print(
                    f"{workers} worker(s), 8 requests at once: {wrong} of {len(texts)} texts "
                    f"differ from Python's; {used_ms:.1f} ms of processors each",
                    flush=True,
                )
                rate, median, p95 = highest_rate(server, requests, plain, options.seconds)
            print(f"{workers} worker(s): {rate:.1f} requests a second, {rate * mean_s:.1f} s of "
                  f"audio a second, median {median:.3f} s, p95 {p95:.3f} s; {rate / plain:.2f} of "
                  "one file after another")  # fmt: skip


if __name__ == "__main__":
    main()
