"""Shards beside a manifest of files: writing, size, reading, memory, and the wait for a window.

    python benchmarks/shar.py MANIFEST [--repeat 2] [--shard-duration-h 0.25]

Writes the manifest's utterances as shards of each format into a temporary folder (the manifest
several times over with --repeat, other ids, so that there are windows enough), then measures on one
core, in hours of audio an hour of the processor's time, which other work on the machine hardly
changes:

- writing: decoding the manifest's files, encoding, and the tar;
- reading: batches as a training gets them (tar, sha256, decoding, padding), one window after
  another, no training beside it; and the same batches of the manifest's files;
- waiting: with a stand-in for training at 1000 hours an hour that leaves the core free, as a GPU
  does, what share of the time the loop waited for a window, with reading ahead
  and without.

Files are in the page cache: the disk is not measured.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from asr.data.dataset import ManifestWindows, Planner, Window, batch_loader, label_manifest
from asr.data.manifest import Utterance, read_manifest
from asr.data.shar import SharFolder, read_index
from asr.data.shar_writer import AUDIO_FORMATS, SharSettings, SharWriter
from asr.data.shards import SharSource, SharWindows
from asr.text import CharTokenizer, TextNormalizer

BATCH_DURATION_S = 60.0
SAMPLE_RATE = 16_000  # [Hz]
TRAINED_SPEED = 1000.0  # [h of audio an h] of the stand-in for training


def no_gate(utterances: Sequence[Utterance], tokens: object) -> list[None]:
    """Lets all pass."""
    return [None] * len(utterances)


def repeated(utterances: Sequence[Utterance], times: int) -> list[Utterance]:
    """A manifest several times over."""
    return [
        replace(item, id=f"{item.id}/{number}") for number in range(times) for item in utterances
    ]


def write(utterances: Sequence[Utterance], folder: Path, settings: SharSettings) -> float:
    """Write shards; returns the processor time it took [s]."""
    start = time.process_time()
    for _ in SharWriter(utterances, folder, settings).write(num_workers=1):
        pass
    return time.process_time() - start


def open_shards(folder: Path) -> tuple[SharSource, CharTokenizer]:
    """A folder of shards, and the tokenizer of its alphabet."""
    place = SharFolder(folder)
    index = read_index(place)
    assert index is not None
    return SharSource(place, index, TextNormalizer()), CharTokenizer(sorted(index.characters))


def read(windows: ManifestWindows | SharWindows, workers: int) -> tuple[float, float, list[Window]]:
    """Load every batch of an epoch; returns processor time [s], audio [s] and the windows."""
    loader = batch_loader(SAMPLE_RATE, num_workers=workers)
    start, seconds, seen = time.process_time(), 0.0, []
    for window in windows.epoch(0):
        plan = Planner(0, BATCH_DURATION_S).batches(window, 0)
        for batch in loader.load([window.request(0, k) for k in members] for members in plan):
            seconds += float(batch.num_samples.sum()) / SAMPLE_RATE
        seen.append(window)
    return time.process_time() - start, seconds, seen


def without_read_ahead(windows: SharWindows) -> Iterator[Window]:
    """The same windows, each read when it is asked for."""
    for number in range(windows.count()):
        yield windows.load(0, number)


def waited(windows: Iterator[Window], speed: float) -> tuple[float, float]:
    """Share of the time spent waiting for windows, and the longest wait [s]."""
    waits, start = [], time.perf_counter()
    while True:
        asked = time.perf_counter()
        window = next(windows, None)
        waits.append(time.perf_counter() - asked)
        if window is None:
            break
        time.sleep(sum(window.durations) / speed)
    waits = waits[1:]  # the first window of a training has nothing to hide behind
    return sum(waits) / (time.perf_counter() - start), max(waits)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Shards beside a manifest of files.")
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--shard-duration-h", type=float, default=0.25)
    options = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    utterances = repeated(read_manifest(options.manifest), options.repeat)
    hours = sum(item.duration or 0.0 for item in utterances) / 3600
    console = Console(width=120)
    console.print(f"{len(utterances)} utterances, {hours:.2f} h, one core")

    table = Table("source", "writing h/h", "MB an hour", "reading h/h", "MB a window", "s a window")
    waits = Table("source", "waited, read ahead", "longest", "waited, not", "longest")
    normalised = [replace(item, text=TextNormalizer()(item.text)) for item in utterances]
    tokenizer = CharTokenizer.from_texts(item.text for item in normalised)
    files = label_manifest(normalised, tokenizer, no_gate)
    took, seconds, _ = read(files, 0)
    files_mb = sum(item.audio_filepath.stat().st_size for item in utterances) / 1e6
    table.add_row(
        "files by manifest", "", f"{files_mb / hours:.1f}", f"{seconds / took:.0f}", "", ""
    )
    with tempfile.TemporaryDirectory() as temporary:
        for audio_format in AUDIO_FORMATS:
            folder = Path(temporary) / audio_format
            settings = SharSettings(audio_format, 3600 * options.shard_duration_h)
            writing_s = write(utterances, folder, settings)
            source, alphabet = open_shards(folder)
            windows = source.open(alphabet, no_gate, 0)
            size_mb = sum(shard.num_bytes or 0 for shard in source.index.shards) / 1e6
            took, seconds, seen = read(windows, 0)
            largest_mb = max(sum(map(len, window.audio.values())) for window in seen) / 1e6
            del seen
            start = time.process_time()
            for _ in without_read_ahead(windows):
                pass
            a_window_s = (time.process_time() - start) / windows.count()
            table.add_row(
                f"shards of {audio_format}", f"{hours * 3600 / writing_s:.0f}",
                f"{size_mb / hours:.1f}", f"{seconds / took:.0f}", f"{largest_mb:.1f}",
                f"{a_window_s:.2f}",
            )  # fmt: skip
            ahead = waited(windows.epoch(0), TRAINED_SPEED)
            alone = waited(without_read_ahead(windows), TRAINED_SPEED)
            waits.add_row(
                f"shards of {audio_format}", f"{ahead[0]:.2%}", f"{ahead[1]:.3f} s",
                f"{alone[0]:.2%}", f"{alone[1]:.3f} s",
            )  # fmt: skip
    console.print(table)
    console.print(waits)


if __name__ == "__main__":
    main()
