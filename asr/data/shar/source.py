"""Shards as the windows of a training: each rank holds the audio of its own, all know all cuts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace

import numpy as np

from asr.data.checks import check_duration
from asr.data.dataset import Gate, Tokens, Window, label
from asr.data.manifest import Utterance
from asr.data.shar.cuts import read_cuts
from asr.data.shar.folder import SharFolder
from asr.data.shar.index import Shard, SharIndex
from asr.data.shar.recordings import read_recordings
from asr.data.splits import seconds
from asr.finding import Finding
from asr.text import CharTokenizer, TextNormalizer


@dataclass(frozen=True)
class SharSource:
    """Utterances in shards, read window by window.

    A window is `world_size * shards_per_window` neighbours in the epoch's order of the shards. Each
    rank keeps the encoded audio of its own shards in memory, of two windows at a time: the one in
    training, and the next, which a thread reads meanwhile.

    Attributes:
        folder: of the shards.
        index: of the folder.
        text: rules for every transcript.
        min_duration_s: shorter utterances are left out [s].
        max_duration_s: longer utterances are left out [s].
        shards_per_window: shards that a rank holds for a window.

    Raises:
        ValueError: fewer than one shard a window.
    """

    folder: SharFolder
    index: SharIndex
    text: TextNormalizer
    min_duration_s: float = 0.1
    max_duration_s: float = 40.0
    shards_per_window: int = 1

    def __post_init__(self) -> None:
        if self.shards_per_window < 1:
            raise ValueError(f"shards_per_window {self.shards_per_window}, expected at least 1")

    def fingerprint(self) -> str:
        """sha256 over the shards' contents, the rules and the size of a window."""
        settings = [
            [asdict(shard) for shard in self.index.shards], asdict(self.text),
            self.min_duration_s, self.max_duration_s, self.shards_per_window,
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(settings).encode()).hexdigest()

    def open(
        self, tokenizer: CharTokenizer, gate: Gate, seed: int, rank: int = 0, world_size: int = 1
    ) -> SharWindows:
        """Begin to read.

        Args:
            tokenizer: turns texts into label ids; what it cannot is left out.
            gate: says which other utterances are left out.
            seed: of the run.
            rank: who reads.
            world_size: of how many.

        Raises:
            ValueError: fewer shards than ranks.
        """
        num_shards = len(self.index.shards)
        if num_shards < world_size:
            raise ValueError(
                f"{self.folder}: {num_shards} shards for {world_size} processes, expected at "
                "least one for each: write smaller shards (asr shar --shard-duration-h)"
            )
        return SharWindows(self, tokenizer, gate, seed, rank, world_size)


@dataclass(frozen=True)
class SharWindows:
    """A SharSource as one rank reads it."""

    source: SharSource
    tokenizer: CharTokenizer
    gate: Gate
    seed: int
    rank: int
    world_size: int

    @property
    def num_utterances(self) -> int:
        """Of all shards, before any is left out."""
        return self.source.index.utterances

    @property
    def seconds(self) -> float:
        """Of audio in all shards [s]."""
        return self.source.index.duration_s

    @property
    def longest_s(self) -> float:
        """Upper bound on the duration of an utterance that is trained on [s]."""
        longest = max(shard.longest_s for shard in self.source.index.shards)
        return min(longest, self.source.max_duration_s)

    def count(self) -> int:
        """Windows of an epoch."""
        return len(self._bounds())

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Window]:
        """The windows from number `start` on, each read while the one before is trained on."""
        with ThreadPoolExecutor(1, thread_name_prefix="window") as pool:
            coming: list[Future[Window]] = []
            for number in range(start, self.count()):
                window = (coming or [pool.submit(self.load, epoch, number)]).pop().result()
                if number + 1 < self.count():
                    coming = [pool.submit(self.load, epoch, number + 1)]
                yield window
                del window  # else it would be held while the one after the next is read

    @property
    def _num_shards(self) -> int:
        return len(self.source.index.shards)

    def _bounds(self) -> list[tuple[int, int]]:
        return window_bounds(self._num_shards, self.world_size, self.source.shards_per_window)

    def load(self, epoch: int, number: int) -> Window:
        """Read one window."""
        order = [
            self.source.index.shards[position]
            for position in shard_order(self._num_shards, self.seed, epoch)
        ]
        first, end = self._bounds()[number]
        reading = [
            self._read_shard(shard, index % self.world_size)
            for index, shard in enumerate(order[first:end])
        ]
        utterances: list[Utterance] = []
        tokens: list[Tokens] = []
        owners: list[int] = []
        audio: dict[int, bytes] = {}
        for part in reading:
            for item, ids, content in zip(part.utterances, part.tokens, part.audio, strict=True):
                if content is not None:
                    audio[len(utterances)] = content
                utterances.append(item)
                tokens.append(ids)
                owners.append(part.owner)
        seconds = np.cumsum([0.0, *(shard.duration_s for shard in order)])
        before, after = (float(seconds[at] / (seconds[-1] or 1.0)) for at in (first, end))
        return Window(
            index=number,
            utterances=tuple(utterances),
            tokens=tuple(tokens),
            left_out=tuple(each for part in reading for each in part.left_out),
            shares=(before, after),
            owners=tuple(owners),
            audio=audio,
        )

    def _read_shard(self, shard: Shard, owner: int) -> _ShardContent:
        folder = self.source.folder
        cuts = read_cuts(folder, shard.cuts, shard.recording, shard.cuts_sha256)
        content = _ShardContent(owner, [], [], [], [])
        kept = self._sort(cuts, content)
        if owner == self.rank:
            ids = [cut_id for cut_id, _ in cuts]
            audio = read_recordings(folder, shard.recording, ids, kept, shard.recording_sha256)
            content.audio[:] = [audio[cut_id] for cut_id in kept]
        return content

    def _sort(
        self, cuts: Sequence[tuple[str, Utterance | Finding]], to: _ShardContent
    ) -> list[str]:
        """Put utterances and findings where they belong; returns the cuts that are trained on."""
        shortest, longest = self.source.min_duration_s, self.source.max_duration_s
        inside: dict[str, Utterance] = {}
        for cut_id, item in cuts:
            if isinstance(item, Finding):
                to.left_out.append(item)
                continue
            fault = check_duration(item, seconds(item), shortest, longest)
            if fault is None:
                inside[cut_id] = replace(item, text=self.source.text(item.text))
            else:
                to.left_out.append(fault)
        labels = label(list(inside.values()), self.tokenizer, self.gate)
        kept: list[str] = []
        for (cut_id, utterance), tokens in zip(inside.items(), labels, strict=True):
            if isinstance(tokens, Finding):
                to.left_out.append(tokens)
            else:
                kept.append(cut_id)
                to.utterances.append(utterance)
                to.tokens.append(tokens)
                to.audio.append(None)
        return kept


@dataclass(frozen=True)
class _ShardContent:
    """What a shard gives to its window; audio is None where another rank holds it."""

    owner: int
    utterances: list[Utterance]
    tokens: list[Tokens]
    audio: list[bytes | None]
    left_out: list[Finding]


def shard_order(num_shards: int, seed: int, epoch: int) -> list[int]:
    """The order in which an epoch reads the shards."""
    order: list[int] = np.random.default_rng((seed, epoch)).permutation(num_shards).tolist()
    return order


def window_bounds(
    num_shards: int, world_size: int, shards_per_window: int
) -> list[tuple[int, int]]:
    """First shard and end of each window, in the epoch's order.

    What is left over makes a smaller window, or, where it is less than a shard a rank, one more
    shard for some ranks in the window before: no rank is ever without a shard.
    """
    size = world_size * shards_per_window
    starts = list(range(0, num_shards, size))
    if len(starts) > 1 and num_shards - starts[-1] < world_size:
        starts.pop()
    return list(zip(starts, [*starts[1:], num_shards], strict=True))
