"""How fast a known text is aligned, and in how much memory.

    python -m benchmarks.alignment search
    python -m benchmarks.alignment recording --model best.safetensors --manifest dev.jsonl
    python -m benchmarks.alignment fit --model best.safetensors --manifest dev.jsonl

`search` runs the compiled search beside the readable one of the tests, on random
log-probabilities of 29 characters and the blank, and alone on what an hour takes. `recording` joins
the utterances of a manifest to one recording of an hour, aligns it as a whole with all its text,
and compares the words' times with those that the utterances have alone. `fit` aligns each utterance
with its own text, with those of three others, and with half its own and half of another's, and
counts which of them the threshold takes for wrong. Times are the processor's, so that whatever else
the machine does counts little; set OMP_NUM_THREADS=1 for `recording`. Memory is what the process
peaked at, less what it held before.
"""

from __future__ import annotations

import argparse
import ctypes
import math
import re
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from asr.aligner import MAX_SHORTFALL, Aligner, Emission, align_emission
from asr.data.dataset import load_utterance
from asr.data.manifest import read_manifest
from asr.decoder.alignment import best_path
from asr.recognizer import Recognizer
from tests.decoder.plain_viterbi import plain_best_path

FRAMES_PER_S = 25  # output frames of 40 ms
VOCAB = 30
LARGE = ((40_000, 12_000), (40_000, 30_000), (90_000, 54_000))  # T, U; the last is an hour
CONSOLE = Console()


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["search", "recording", "fit"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", help="but for `search`: a model file")
    parser.add_argument("--manifest", help="but for `search`")
    parser.add_argument("--hours", type=float, default=1.0, help="of that recording")
    options = parser.parse_args()
    if options.what == "search":
        search(options.rounds)
    elif options.what == "fit":
        fit(options.model, Path(options.manifest))
    else:
        recording(options.model, Path(options.manifest), options.hours)


def memory_mib(field: str) -> float:
    """Memory of this process by Linux: VmRSS now, VmHWM at most since `forget_peak` [MiB]."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"{field}:\s+(\d+) kB", status)[1]) / 1024


def forget_peak() -> float:
    """Count the peak from here on; returns the memory of now [MiB]."""
    ctypes.CDLL(None).malloc_trim(0)  # what was freed before counts for nothing
    Path("/proc/self/clear_refs").write_text("5")
    return memory_mib("VmRSS")


def random_case(num_frames: int, num_tokens: int) -> tuple[np.ndarray, list[int]]:
    """Log-probabilities `(T, V)` float32 and labels."""
    generator = np.random.default_rng(num_tokens)
    logits = 3 * generator.standard_normal((num_frames, VOCAB), dtype=np.float32)
    log_probs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return log_probs, generator.integers(1, VOCAB, num_tokens).tolist()


def seconds(work: Callable[[], object], times: int) -> float:
    """Processor time of one call, which runs on one thread [s]."""
    start = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - start) / times


def search(rounds: int) -> None:
    """The search alone."""
    table = Table("T", "U", "search", "time", "audio h / h", "memory")
    log_probs, tokens = random_case(250, 100)
    best_path(log_probs, tokens)  # compiles
    compiled = [seconds(partial(best_path, log_probs, tokens), 200) for _ in range(rounds)]
    readable = [seconds(partial(plain_best_path, log_probs, tokens), 2) for _ in range(rounds)]
    for name, times in (("compiled", compiled), ("readable", readable)):
        one = statistics.median(times)
        table.add_row(
            "250", "100", name, f"{1e3 * one:.3g} ms", f"{250 / FRAMES_PER_S / one:,.0f}", ""
        )
    ratios = [slow / fast for slow, fast in zip(readable, compiled, strict=True)]
    for num_frames, num_tokens in LARGE:
        log_probs, tokens = random_case(num_frames, num_tokens)
        before = forget_peak()
        times = [seconds(partial(best_path, log_probs, tokens), 1) for _ in range(rounds)]
        one = statistics.median(times)
        table.add_row(
            f"{num_frames:,}", f"{num_tokens:,}", "compiled", f"{one:.2f} s",
            f"{num_frames / FRAMES_PER_S / one:,.0f}", f"{memory_mib('VmHWM') - before:.0f} MiB",
        )  # fmt: skip
    CONSOLE.print(table)
    CONSOLE.print(f"compiled over readable, median of {rounds}: {statistics.median(ratios):.0f}")


def recording(model_file: str, manifest: Path, hours: float) -> None:
    """A long recording as a whole, beside its parts."""
    aligner = Aligner.load(model_file)
    parts, texts, alone, total_s = [], [], [], 0.0
    utterances = read_manifest(manifest)
    while total_s < 3600 * hours:
        utterance = utterances[len(parts) % len(utterances)]
        waveform = load_utterance(utterance, aligner.sample_rate)
        alignment = aligner.align(waveform, utterance.text)
        alone += [total_s + word.start for word in alignment.words]
        parts.append(waveform)
        texts.append(utterance.text)
        total_s += len(waveform) / aligner.sample_rate
    waveform = np.concatenate(parts)
    parts.clear()
    before, start = forget_peak(), time.process_time()
    emission = aligner.emission(waveform)
    emitted = time.process_time() - start
    whole = align_emission(aligner.recognizer, emission, " ".join(texts))
    took = time.process_time() - start
    starts = [word.start for word in whole.words]
    apart = np.abs(np.array(starts) - np.array(alone))
    shift = emission.frame_shift_s
    CONSOLE.print(
        f"{total_s / 3600:.2f} h, {len(emission.log_probs):,} frames, {len(whole.text):,} "
        f"characters: {took:.1f} s, of these {emitted:.1f} s the model, "
        f"{total_s / took:.0f} h/h, {memory_mib('VmHWM') - before:.0f} MiB more than before\n"
        f"words that begin within two frames of where they do alone: "
        f"{100 * np.mean(apart <= 2 * shift + 1e-3):.2f} %; median difference "
        f"{np.median(apart):.3f} s, largest {apart.max():.2f} s; shortfall {whole.shortfall:.3f}"
    )


def fit(model_file: str, manifest: Path) -> None:
    """How well the shortfall tells right texts from wrong ones."""
    aligner = Aligner.load(model_file)
    utterances = read_manifest(manifest)
    shortfalls: dict[str, list[float]] = {"right": [], "wrong": [], "half wrong": []}
    for number, utterance in enumerate(utterances):
        emission = aligner.emission(load_utterance(utterance, aligner.sample_rate))
        others = [utterances[(number + step) % len(utterances)].text for step in (1, 7, 19)]
        own, other = utterance.text.split(), others[0].split()
        mixed = " ".join(own[: len(own) // 2] + other[len(other) // 2 :])
        cases = [("right", utterance.text), ("half wrong", mixed)]
        for kind, text in cases + [("wrong", text) for text in others]:
            if kind == "right" or text != utterance.text:
                shortfalls[kind].append(shortfall_of(aligner.recognizer, emission, text))
    table = Table("text", "number", "lowest 5 %", "median", "highest 5 %", "taken for wrong")
    for kind, values in shortfalls.items():
        low, middle, high = np.quantile(values, (0.05, 0.5, 0.95), method="nearest")
        share = np.mean(np.array(values) > MAX_SHORTFALL)
        table.add_row(
            kind, f"{len(values):,}", f"{low:.2f}", f"{middle:.2f}", f"{high:.2f}",
            f"{100 * share:.1f} %",
        )  # fmt: skip
    CONSOLE.print(table)


def shortfall_of(recognizer: Recognizer, emission: Emission, text: str) -> float:
    """[nats a frame]; infinite for a text that is too long for its audio."""
    try:
        return align_emission(recognizer, emission, text).shortfall
    except ValueError:
        return math.inf


if __name__ == "__main__":
    main()
