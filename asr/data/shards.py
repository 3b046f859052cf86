"""Corpora beyond one disk or memory: the shards of a folder as the windows of a training."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from asr.data.checks import check_duration
from asr.data.corpus_record import agreed_rules, prepared_rules
from asr.data.dataset import Gate, Tokens, Window, label
from asr.data.manifest import Utterance, seconds
from asr.data.shar import (
    INDEX_FILE,
    Shard,
    SharFolder,
    SharIndex,
    read_cuts,
    read_index,
    read_recordings,
    scan,
    summarise,
    write_index,
)
from asr.data.splits import Start, alphabet_of, read_dev
from asr.finding import Finding
from asr.text import AUTO, CharTokenizer, TextNormalizer, unit_of
from asr.untrusted import record

# --- the splits of such a training --------------------------------------------------------------


@dataclass(frozen=True)
class StreamedSplits:
    """Shards to train on and utterances to choose by.

    Attributes:
        train: source to learn from.
        dev: utterances to validate on, with normalised text and known durations.
        text: the transcript rules.
        alphabet: characters in the order of their ids, from 1.
    """

    train: SharSource
    dev: tuple[Utterance, ...]
    text: TextNormalizer
    alphabet: str

    def fingerprint(self) -> str:
        """sha256 over both splits: of dev, its ids, durations, offsets and texts."""
        rows = [[each.id, *each.part, each.text] for each in self.dev]
        dev = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
        return hashlib.sha256((self.train.fingerprint() + dev).encode()).hexdigest()


def load_shar(
    train: str,
    dev: str | Sequence[str],
    text: TextNormalizer,
    alphabet: str | None = None,
    min_duration_s: float = 0.1,
    max_duration_s: float = 40.0,
    shards_per_window: int = 1,
    limit: int | None = None,
    start: Start | None = None,
    notice: Callable[[str], None] = print,
) -> StreamedSplits:
    """Open a folder of shards to train on, and read the manifests to validate on.

    Args:
        train: folder of Shar shards, or its URL.
        dev: manifest or manifests to validate on.
        text: rules that make every transcript comparable; applied to both.
        alphabet: characters of the model; None takes those of all texts of the shards, and of the
            start.
        min_duration_s: shorter training utterances are left out [s].
        max_duration_s: longer training utterances are left out [s].
        shards_per_window: shards that a rank holds in memory for a window.
        limit: use only so many utterances of each split, the first ones; None uses all.
        start: of the model that the training begins with, if it does with one.
        notice: told in a line where all cuts had to be read.

    Raises:
        ValueError: no shards, an index that does not fit them, shards that are being written,
            anything wrong in dev, a limit below 1.
        OSError: missing or unreadable.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit {limit}, expected at least 1 utterance of each split")
    folder = SharFolder(train)
    manifests = [Path(dev)] if isinstance(dev, str) else [Path(each) for each in dev]
    prepared = [(path.parent, prepared_rules(path)) for path in manifests]
    text = agreed_rules([(folder, written_rules(folder)), *prepared], text, notice)
    index = open_index(folder, text, notice, need_characters=alphabet is None)
    if not index.utterances:
        raise ValueError(f"{folder}: no utterance in {len(index.shards)} shards, expected some")
    if alphabet is None:
        alphabet = alphabet_of(index.characters, start)
    tokenizer = CharTokenizer(alphabet)
    dev_split = read_dev(dev, text, tokenizer, limit)
    source = SharSource(
        folder, index, text, min_duration_s, max_duration_s, shards_per_window, limit
    )
    if text.unit == AUTO:
        text = replace(text, unit=unit_of(index.characters))
    return StreamedSplits(source, dev_split, text, tokenizer.alphabet)


def written_rules(folder: SharFolder) -> TextNormalizer | None:
    """The text rules of the manifest that `asr shar` wrote a folder from, where it had some.

    Raises:
        ValueError: an index that is damaged or does not fit the shards.
        OSError: unreadable.
    """
    index = read_index(folder)
    if index is None or index.made_of is None or index.text == TextNormalizer().settings():
        return None
    return record(TextNormalizer, index.text, f"{folder.where(INDEX_FILE)}: text")


def open_index(
    folder: SharFolder,
    text: TextNormalizer,
    notice: Callable[[str], None],
    need_characters: bool = True,
) -> SharIndex:
    """A folder's index; where there is none it is made, and written if the folder allows.

    Args:
        folder: of shards.
        text: rules by which the characters are to be counted.
        notice: told in a line where all cuts had to be read.
        need_characters: False where the index may count those of other rules.

    Raises:
        ValueError: no shards, an index that does not fit them, shards that are being written.
        OSError: unreadable.
    """
    index = read_index(folder)
    if index is None:
        notice(f"{folder}: no {INDEX_FILE}, all cuts are read once")
        index = scan(folder, text, notice)
        assert folder.path is not None, "a URL has an index"
        try:
            write_index(folder.path, index)
        except OSError as error:
            notice(
                f"{folder}: the index is not kept ({error.strerror}), so the next run reads anew"
            )
        else:
            notice(
                f"{folder}: {INDEX_FILE} written, {len(index.shards)} shards, {index.utterances} "
                f"utterances, {index.duration_s / 3600:.2f} h"
            )
    if not index.complete:
        raise ValueError(f"{folder}: its shards are not all written, go on with asr shar")
    if need_characters and index.text != text.settings():
        notice(
            f"{folder}: all cuts are read once, as the alphabet was counted by other text rules "
            "(data.alphabet says it outright)"
        )
        pairs = [(shard.cuts, shard.recording) for shard in index.shards]
        known = {shard.cuts: shard for shard in index.shards}
        index = replace(summarise(folder, pairs, text, known=known), made_of=index.made_of)
    return index


# --- the windows --------------------------------------------------------------------------------


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
        limit: read only so many utterances, of the first shards; None reads all.

    Raises:
        ValueError: fewer than one shard a window.
    """

    folder: SharFolder
    index: SharIndex
    text: TextNormalizer
    min_duration_s: float = 0.1
    max_duration_s: float = 40.0
    shards_per_window: int = 1
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.shards_per_window < 1:
            raise ValueError(f"shards_per_window {self.shards_per_window}, expected at least 1")

    def fingerprint(self) -> str:
        """sha256 over the shards' contents, the rules and the size of a window."""
        settings = [
            [asdict(shard) for shard in self.index.shards], self.text.settings(),
            self.min_duration_s, self.max_duration_s, self.shards_per_window,
            # Without a limit it is that of a time when there was none: its states go on.
            *([] if self.limit is None else [self.limit]),
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
        left = self.index.utterances if self.limit is None else self.limit
        shards, takes = [], {}
        for shard in self.index.shards:
            takes[shard.cuts] = min(left, shard.utterances)
            left -= takes[shard.cuts]
            if takes[shard.cuts] or self.limit is None:
                shards.append(shard)
        if len(shards) < world_size:
            raise ValueError(
                f"{self.folder}: {len(shards)} shards for {world_size} processes, expected at "
                "least one for each: write smaller shards (asr shar --shard-duration-h)"
            )
        return SharWindows(self, tuple(shards), takes, tokenizer, gate, seed, rank, world_size)


@dataclass(frozen=True)
class SharWindows:
    """A SharSource as one rank reads it.

    Attributes:
        source: what is read.
        shards: of it, those that are read.
        takes: how many utterances are read of each, by the name of its cuts.
        tokenizer: turns texts into label ids; what it cannot is left out.
        gate: says which other utterances are left out.
        seed: of the run.
        rank: of this process.
        world_size: number of processes.
    """

    source: SharSource
    shards: tuple[Shard, ...]
    takes: Mapping[str, int]
    tokenizer: CharTokenizer
    gate: Gate
    seed: int
    rank: int
    world_size: int

    @property
    def num_utterances(self) -> int:
        """Of all shards, before any is left out."""
        return sum(self.takes.values())

    @property
    def seconds(self) -> float:
        """Of audio in all shards [s]."""
        return sum(shard.duration_s for shard in self.shards)

    @property
    def longest_s(self) -> float:
        """Upper bound on the duration of an utterance that is trained on [s]."""
        longest = max(shard.longest_s for shard in self.shards)
        return min(longest, self.source.max_duration_s)

    def of_one_rank(self) -> SharWindows:
        """As one rank alone would have them."""
        return replace(self, rank=0, world_size=1)

    def count(self) -> int:
        """Windows of an epoch."""
        return len(self._bounds())

    def _bounds(self) -> list[tuple[int, int]]:
        return window_bounds(len(self.shards), self.world_size, self.source.shards_per_window)

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

    def load(self, epoch: int, number: int) -> Window:
        """Read one window.

        A pure function of the source, the seed, the epoch and the ranks, but for the audio, which
        is the rank's own.

        Raises:
            ValueError: damaged or changed data.
            OSError: missing or unreadable data.
        """
        order = [self.shards[k] for k in shard_order(len(self.shards), self.seed, epoch)]
        first, end = self._bounds()[number]
        utterances: list[Utterance] = []
        tokens: list[Tokens] = []
        left_out: list[Finding] = []
        owners: list[int] = []
        audio: dict[int, bytes] = {}
        # Every rank reads all cuts, for the same plan on each, and the audio of its own shards.
        for place, shard in enumerate(order[first:end]):
            owner = place % self.world_size
            for utterance, ids, encoded in self._read_shard(shard, left_out, owner == self.rank):
                if encoded is not None:
                    audio[len(utterances)] = encoded
                utterances.append(utterance)
                tokens.append(ids)
                owners.append(owner)
        # By seconds, not by shards: the schedule follows the audio that was trained on.
        seconds = np.cumsum([0.0, *(shard.duration_s for shard in order)])
        before, after = (float(seconds[at] / (seconds[-1] or 1.0)) for at in (first, end))
        return Window(
            index=number,
            utterances=tuple(utterances),
            tokens=tuple(tokens),
            left_out=tuple(left_out),
            shares=(before, after),
            owners=tuple(owners),
            audio=audio,
        )

    def _read_shard(
        self, shard: Shard, left_out: list[Finding], is_own: bool
    ) -> list[tuple[Utterance, Tokens, bytes | None]]:
        """Utterances that are trained on, with their tokens, and their audio if the shard is own.

        The others are added to `left_out`.
        """
        source = self.source
        cuts = read_cuts(source.folder, shard.cuts, shard.recording, shard.cuts_sha256)
        inside: dict[str, Utterance] = {}  # by the cut's id, as all below
        num_read = 0
        for cut_id, item in cuts:
            if source.limit is not None and num_read == self.takes[shard.cuts]:
                break
            if isinstance(item, Finding):
                left_out.append(item)
                continue
            num_read += 1
            shortest, longest = source.min_duration_s, source.max_duration_s
            fault = check_duration(item, seconds(item), shortest, longest)
            if fault is not None:
                left_out.append(fault)
            else:
                inside[cut_id] = replace(item, text=source.text(item.text))
        tokens: dict[str, Tokens] = {}
        labels = label([*inside.values()], self.tokenizer, self.gate)
        for cut_id, each in zip(inside, labels, strict=True):
            if isinstance(each, Finding):
                left_out.append(each)
            else:
                tokens[cut_id] = each
        audio: dict[str, bytes] = {}
        if is_own:
            audio = read_recordings(
                source.folder, shard.recording, [cut_id for cut_id, _ in cuts], tokens.keys(),
                shard.recording_sha256,
            )  # fmt: skip
        return [(inside[cut_id], ids, audio.get(cut_id)) for cut_id, ids in tokens.items()]


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
