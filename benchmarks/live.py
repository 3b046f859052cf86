"""A model live beside whole: WER of both, cost, and how long after its end a word is there.

    python -m benchmarks.live MODEL MANIFEST [--limit N]

Utterances are joined in tens with pauses of a second at -60 dBFS. Each recording is transcribed as
`asr transcribe` does, and in blocks of 80 ms as they come from a microphone, one thread each. The
latency of a word: from its end in the audio to the end of the block with which it is in `partial`
for good, plus what the computer takes for that block.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from asr.data.dataset import load_utterance
from asr.data.manifest import read_manifest
from asr.metrics.error_rate import word_errors
from asr.transcriber import Transcriber
from benchmarks.pauses import JOINED, Recording, noise

BLOCK_S, PAUSE_S, PAUSE_DBFS = 0.08, 1.0, -60.0


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--limit", type=int, help="utterances, drawn")
    options = parser.parse_args()
    torch.set_num_threads(1)
    transcriber = Transcriber.load(options.model)
    recordings = joined(transcriber, options.manifest, options.limit)
    references = [text for _, text in recordings]
    seconds = sum(len(waveform) for waveform, _ in recordings) / transcriber.sample_rate
    began = time.process_time()
    whole = [transcriber.transcribe([waveform])[0].text for waveform, _ in recordings]
    took = time.process_time() - began
    print(f"{len(recordings)} recordings, {seconds:.0f} s")
    tell("whole", 100 * word_errors(references, whole).rate, took / seconds)
    began, latencies, texts = time.process_time(), list[float](), list[str]()
    for waveform, _ in recordings:
        text, own = live(transcriber, waveform)
        texts.append(text)
        latencies += own
    took = time.process_time() - began
    tell("live", 100 * word_errors(references, texts).rate, took / seconds)
    median, late = np.percentile(latencies, [50, 95])
    print(f"a word is there {median:.2f} s after its end (median), {late:.2f} s (95th percentile)")


def tell(name: str, wer_percent: float, real_time: float) -> None:
    """Print a row."""
    print(f"{name:6} WER {wer_percent:5.1f} %  real-time factor {real_time:.4f}", flush=True)


def joined(transcriber: Transcriber, manifest: Path, limit: int | None) -> list[Recording]:
    """Utterances in tens with pauses between, and their texts."""
    rate, rules = transcriber.sample_rate, transcriber.recognizer.text
    utterances, draws = read_manifest(manifest), np.random.default_rng(0)
    order = draws.permutation(len(utterances))[:limit]
    recordings = []
    for start in range(0, len(order), JOINED):
        group = [utterances[k] for k in order[start : start + JOINED]]
        pauses = (noise(draws, PAUSE_S, PAUSE_DBFS, rate) for _ in group)
        parts = [
            part
            for u, p in zip(group, pauses, strict=True)
            for part in (p, load_utterance(u, rate))
        ]
        recordings.append((np.concatenate(parts), " ".join(rules(u.text) for u in group)))
    return recordings


def live(transcriber: Transcriber, waveform: np.ndarray) -> tuple[str, list[float]]:
    """The text of a recording that comes in blocks, and the latency of each word [s]."""
    stream, size = transcriber.stream(), round(BLOCK_S * transcriber.sample_rate)
    final: list[str] = []
    history = list[tuple[float, list[str]]]()  # when what was known
    ends = list[float]()
    for place in range(0, len(waveform), size):
        began = time.perf_counter()
        segments = stream.push(waveform[place : place + size])
        partial = stream.partial
        now = (place + size) / transcriber.sample_rate + time.perf_counter() - began
        for segment in segments:
            final += [word.word for word in segment.words]
            ends += [word.end for word in segment.words]
        history.append((now, final + [w.word for w in (partial.words if partial else ())]))
    for segment in stream.finish():
        final += [word.word for word in segment.words]
        ends += [word.end for word in segment.words]
    latencies = []
    for number, end in enumerate(ends):
        known = None
        for now, words in reversed(history):
            if words[: number + 1] != final[: number + 1]:
                break
            known = now
        if known is not None:
            latencies.append(known - end)
    return " ".join(final), latencies


if __name__ == "__main__":
    main()
