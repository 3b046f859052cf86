"""The splits of a training that learns from shards: what `conf/data/shar.yaml` builds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

from asr.data.manifest import Utterance
from asr.data.shar.folder import SharFolder
from asr.data.shar.index import (
    INDEX_FILE,
    SharIndex,
    read_index,
    scan,
    summarise,
    write_index,
)
from asr.data.shar.source import SharSource
from asr.data.splits import read_dev
from asr.text import CharTokenizer, TextNormalizer


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
        rows = [[each.id, each.duration, each.offset, each.text] for each in self.dev]
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
    notice: Callable[[str], None] = print,
) -> StreamedSplits:
    """Open a folder of shards to train on, and read the manifests to validate on.

    Args:
        train: folder of Shar shards, or its URL.
        dev: manifest or manifests to validate on.
        text: rules that make every transcript comparable; applied to both.
        alphabet: characters of the model; None takes those of all texts of the shards.
        min_duration_s: shorter training utterances are left out [s].
        max_duration_s: longer training utterances are left out [s].
        shards_per_window: shards that a rank holds in memory for a window.
        notice: told in a line where all cuts had to be read.

    Raises:
        ValueError: no shards, an index that does not fit them, shards that are being written,
            anything wrong in dev.
        OSError: missing or unreadable.
    """
    folder = SharFolder(train)
    index = open_index(folder, text, notice, need_characters=alphabet is None)
    if not index.utterances:
        raise ValueError(f"{folder}: no utterance in {len(index.shards)} shards, expected some")
    tokenizer = CharTokenizer(sorted(index.characters) if alphabet is None else alphabet)
    dev_split = read_dev(dev, text, tokenizer)
    source = SharSource(folder, index, text, min_duration_s, max_duration_s, shards_per_window)
    return StreamedSplits(source, dev_split, text, tokenizer.alphabet)


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
        _keep(folder, index, notice)
    if not index.complete:
        raise ValueError(f"{folder}: its shards are not all written, go on with asr shar")
    if need_characters and index.text != asdict(text):
        notice(
            f"{folder}: all cuts are read once, as the alphabet was counted by other text rules "
            "(data.alphabet says it outright)"
        )
        pairs = [(shard.cuts, shard.recording) for shard in index.shards]
        known = {shard.cuts: shard for shard in index.shards}
        index = replace(summarise(folder, pairs, text, known=known), made_of=index.made_of)
    return index


def _keep(folder: SharFolder, index: SharIndex, notice: Callable[[str], None]) -> None:
    assert folder.path is not None, "a URL has an index"
    try:
        write_index(folder.path, index)
    except OSError as error:
        notice(f"{folder}: the index is not kept ({error.strerror}), so the next run reads anew")
    else:
        hours = index.duration_s / 3600
        notice(
            f"{folder}: {INDEX_FILE} written, {len(index.shards)} shards, {index.utterances} "
            f"utterances, {hours:.2f} h"
        )
