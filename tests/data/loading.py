"""What the tests of loading share.

loading.py FOLDER WORKERS EPOCH WINDOW GROUP prints what a fresh process makes of shards.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

from asr.augment import WaveformAugment
from asr.data.dataset import Planner, Request, Tokens, batch_loader
from asr.data.manifest import Utterance
from asr.data.shar import SharFolder, read_index
from asr.data.shards import SharSource
from asr.finding import Finding
from asr.text import CharTokenizer, TextNormalizer


def requests_of(
    utterances: Sequence[Utterance],
    tokens: Sequence[Tokens],
    epoch: int,
    plan: Sequence[Sequence[int]],
) -> list[list[Request]]:
    """A plan of positions as what a loader is asked for."""
    return [[Request(epoch, utterances[each], tokens[each]) for each in batch] for batch in plan]


def no_gate(utterances: Sequence[Utterance], tokens: Sequence[Tokens]) -> list[Finding | None]:
    """Lets all pass."""
    return [None] * len(utterances)


def digests(shards: Path, workers: int, epoch: int, window: int, group: int) -> list[str]:
    """The number of its window and a digest, for each batch of rank 1 of 2 from there on."""
    place = SharFolder(shards)
    index = read_index(place)
    assert index is not None
    source = SharSource(place, index, TextNormalizer(), shards_per_window=2)
    windows = source.open(CharTokenizer("abcd"), no_gate, 0, 1, 2)
    augment = WaveformAugment(speeds=(0.9, 1.0, 1.1), gain_db=(-6.0, 6.0))
    loader = batch_loader(8000, 0, augment, num_workers=workers)
    loader.start()
    found = []
    planner = Planner(0, 2.0, rank=1, world_size=2)
    for step in planner.steps(windows.epoch(epoch, window), epoch, group):
        for batch in loader.load(step.requests):
            digest = hashlib.sha256(repr((batch.seeds, [u.id for u in batch.utterances])).encode())
            for tensor in (batch.waveforms, batch.num_samples, batch.tokens, batch.token_lengths):
                digest.update(tensor.numpy().tobytes())
            found.append(f"{step.window} {digest.hexdigest()}")
    loader.close()
    return found


if __name__ == "__main__":
    print(*digests(Path(sys.argv[1]), *map(int, sys.argv[2:])), sep="\n")
