"""The index of a folder of shards: what a training must know without reading every cut.

It is one JSON file, `cuts.index.json`: lhotse takes every file of a folder for shards of the field
that its name begins with, and passes over those of the field "cuts" that are no `.jsonl`.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from asr.atomic_file import replace_text
from asr.data.manifest import Utterance
from asr.data.shar.cuts import MAX_CUTS, read_cuts
from asr.data.shar.folder import SharFolder
from asr.text import TextNormalizer
from asr.untrusted import open_regular, parse_json, read_stream, record, shown

INDEX_FILE = "cuts.index.json"
VERSION = 1
MAX_SHARDS = 40_000
MAX_INDEX_BYTES = 1 << 24  # 16 MiB: a shard takes 350 bytes
_CUTS_FILE = re.compile(r"cuts(\.\w+)?\.jsonl(?:\.gz)?")


@dataclass(frozen=True)
class Shard:
    """Two files and what they hold.

    Attributes:
        cuts: name of the file of cuts.
        recording: name of the tar with their audio.
        utterances: how many of the cuts are utterances.
        left_out: how many are not.
        duration_s: of the utterances [s].
        longest_s: longest of them [s].
        num_bytes: of the tar; None where it was not looked at.
        cuts_sha256: of the file of cuts.
        recording_sha256: of the tar; None where it was not read.
    """

    cuts: str
    recording: str
    utterances: int
    left_out: int
    duration_s: float
    longest_s: float
    num_bytes: int | None
    cuts_sha256: str
    recording_sha256: str | None


@dataclass(frozen=True)
class SharIndex:
    """All shards of a folder.

    Attributes:
        shards: in the order of their names.
        characters: how often each occurs in the normalised texts.
        text: the rules they were normalised by, `asdict` of a TextNormalizer.
        made_of: fingerprint of what `write_shar` writes; None for shards that came from elsewhere.
        complete: False while the shards are being written.
    """

    shards: tuple[Shard, ...]
    characters: Mapping[str, int]
    text: Mapping[str, object]
    made_of: str | None = None
    complete: bool = True

    @property
    def utterances(self) -> int:
        """In all shards."""
        return sum(shard.utterances for shard in self.shards)

    @property
    def duration_s(self) -> float:
        """Of all shards [s]."""
        return sum(shard.duration_s for shard in self.shards)


def write_index(folder: Path, index: SharIndex) -> None:
    """Put the index into a folder, whole.

    Raises:
        OSError: no space, no permission.
    """
    content = {"version": VERSION, **asdict(index)}
    replace_text(folder / INDEX_FILE, json.dumps(content, ensure_ascii=False, indent=1) + "\n")


def read_index(folder: SharFolder) -> SharIndex | None:
    """Read a folder's index; None where a local folder has none.

    Raises:
        ValueError: damaged, of another version, or of other shards than the folder has.
        OSError: unreadable.
    """
    if folder.path is not None and not (folder.path / INDEX_FILE).exists():
        return None
    where = folder.where(INDEX_FILE)
    with folder.open(INDEX_FILE) as file:
        content = read_stream(file, where, "an index", MAX_INDEX_BYTES)
    index = _parse(where, content)
    if folder.path is not None and index.complete:
        _check_names(folder, index)
    return index


def scan(folder: SharFolder, text: TextNormalizer, say: Callable[[str], None]) -> SharIndex:
    """Make an index of shards that came without one, by reading all cuts.

    Args:
        folder: a local one.
        text: rules to normalise by.
        say: told in a line that and why some cuts are no utterances.

    Raises:
        ValueError: no shards, a tar missing, damaged cuts.
        OSError: unreadable.
    """
    names = set(folder.names())
    pairs = [(name, recording_of(name)) for name in sorted(names) if _CUTS_FILE.fullmatch(name)]
    for cuts, recording in pairs:
        if recording not in names:
            raise ValueError(f"{folder.where(cuts)}: has no {recording} beside it, expected one")
    if len(pairs) > MAX_SHARDS:
        raise ValueError(f"{folder}: {len(pairs)} shards, expected at most {MAX_SHARDS}")
    if not pairs:
        raise ValueError(f"{folder}: no shards, expected cuts.000000.jsonl.gz and so on")
    return summarise(folder, pairs, text, say)


def summarise(
    folder: SharFolder,
    pairs: Iterable[tuple[str, str]],
    text: TextNormalizer,
    say: Callable[[str], None] = lambda line: None,
    known: Mapping[str, Shard] | None = None,
) -> SharIndex:
    """The index of given files; tars are not read.

    Args:
        folder: a local one, or any if all shards are known.
        pairs: names of cuts and of their tar.
        text: rules to normalise by.
        say: told in a line that and why some cuts are no utterances.
        known: shards by the name of their cuts, whose entries are kept.
    """
    characters: Counter[str] = Counter()
    shards: list[Shard] = []
    for cuts, recording in pairs:
        kept: list[Utterance] = []
        left_out = 0
        expected = known[cuts].cuts_sha256 if known is not None else None
        for cut_id, item in read_cuts(folder, cuts, recording, expected):
            if isinstance(item, Utterance):
                kept.append(item)
                characters.update(text(item.text))
            else:
                if not left_out:
                    say(f"{folder.where(cuts)}: cut {cut_id} is no utterance: it {item.reason}")
                left_out += 1
        if known is not None:
            shards.append(known[cuts])
        else:
            assert folder.path is not None, "a URL has an index"
            durations = [item.duration or 0.0 for item in kept]
            shards.append(
                Shard(
                    cuts=cuts,
                    recording=recording,
                    utterances=len(kept),
                    left_out=left_out,
                    duration_s=sum(durations),
                    longest_s=max(durations, default=0.0),
                    num_bytes=(folder.path / recording).stat().st_size,
                    cuts_sha256=sha256_of(folder.path / cuts),
                    recording_sha256=None,
                )
            )
    return SharIndex(tuple(shards), dict(sorted(characters.items())), asdict(text))


def recording_of(cuts: str) -> str:
    """The name of the tar that goes with a file of cuts."""
    match = _CUTS_FILE.fullmatch(cuts)
    assert match is not None, "a name of cuts"
    return f"recording{match[1] or ''}.tar"


def sha256_of(path: Path) -> str:
    """The sha256 of a file."""
    with open_regular(path, "a file of Shar") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_names(folder: SharFolder, index: SharIndex) -> None:
    listed = {name for shard in index.shards for name in (shard.cuts, shard.recording)}
    there = set(folder.names())
    present = {name for name in there if _CUTS_FILE.fullmatch(name)}
    for name, fault in (
        *((name, "is missing") for name in sorted(listed - there)),
        *((name, "is not in it") for name in sorted(present - listed)),
    ):
        raise ValueError(
            f"{folder.where(INDEX_FILE)}: {name} {fault}, expected the index of the shards that "
            "are there; without the file the folder is scanned"
        )


def _parse(where: str, content: bytes) -> SharIndex:
    damaged = f"{where}: damaged index"
    raw = parse_json(content.decode(errors="backslashreplace"), damaged, "an index of shards")
    if not isinstance(raw, dict) or "version" not in raw:
        raise ValueError(f"{damaged}: no version, expected {VERSION}")
    version = raw.pop("version")
    if version != VERSION:
        raise ValueError(f"{where}: version {shown(version)}, expected {VERSION}")
    index = record(SharIndex, raw, damaged)
    if len(index.shards) > MAX_SHARDS:
        raise ValueError(f"{where}: {len(index.shards)} shards, expected at most {MAX_SHARDS}")
    for shard in index.shards:
        if not _CUTS_FILE.fullmatch(shard.cuts) or shard.recording != recording_of(shard.cuts):
            raise ValueError(f"{where}: {shown(shard.cuts)} is no name of cuts")
        sizes = (shard.utterances, shard.left_out, shard.num_bytes or 0)
        durations = (shard.duration_s, shard.longest_s)
        if not all(0 <= size < math.inf for size in (*sizes, *durations)):
            raise ValueError(f"{where}: {shard.cuts} has a size that is below 0 or without bounds")
        if shard.utterances + shard.left_out > MAX_CUTS:
            raise ValueError(f"{where}: {shard.cuts} has more than {MAX_CUTS} cuts")
    return index
