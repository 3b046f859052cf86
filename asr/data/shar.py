"""Lhotse's Shar format on a disk or in object storage: cuts, encoded audio, and our index of them.

A folder holds, for every shard, `cuts.000000.jsonl.gz` (transcripts) and `recording.000000.tar`
(encoded audio), see https://lhotse.readthedocs.io.

What lies elsewhere is opened by lhotse. Cuts and tars are read here, as the folder may be a
stranger's and lhotse 1.33 trusts it: a cut may name a shell command as the source of its audio, a
line or a member may have any size and is read whole, a tar may be packed once more, and where a tar
has fewer members than there are cuts, the shard ends there in silence.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import re
import tarfile
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from asr.atomic_file import replace_text
from asr.data.archive import tar_members
from asr.data.manifest import MAX_SECONDS, Utterance
from asr.data.records import BadLineError, Record, json_records
from asr.finding import Finding, Kind
from asr.packed import unpacked
from asr.text import TextNormalizer
from asr.untrusted import (
    lines,
    open_regular,
    parse_json,
    read_stream,
    record,
    shown,
)

SCHEMES = ("http", "https", "s3", "gs")
NEEDS = "pip install 'lstm-asr[lhotse]' smart_open"  # s3 and gs: smart_open[s3], smart_open[gcs]
# What a forged shard can cost is bounded; an hour has some 300 to 1,000 cuts of 600 bytes.
MAX_CUTS = 200_000
MAX_CUTS_BYTES = 1 << 28  # 256 MiB, packed or not
KINDS = ("MonoCut", "MultiCut", "Cut")  # one recording; channels are averaged as in any file
SLACK_S = 0.05  # [s] by which a text may reach beyond its cut: times are rounded
UTTERANCE_ID = "utterance_id"  # in `custom`, where an id cannot be a file's name in the tar
MAX_AUDIO_BYTES = 2**31  # of one recording: 4 hours of 16-bit samples at 48 kHz take 1.4e9
MAX_DESCRIPTION_BYTES = 1 << 20  # of one recording's
BLOCK_BYTES = 1 << 20  # that are hashed at a time
MAX_REST_BYTES = 1 << 21  # 2 MiB; tars are filled up to whole records, of 10 KiB or more
NO_DATA = ".nodata"  # the suffix that stands for a cut without audio
# lhotse takes every file of a folder for shards of the field that its name begins with, and passes
# over those of the field "cuts" that are no `.jsonl`.
INDEX_FILE = "cuts.index.json"
VERSION = 1
MAX_SHARDS = 40_000
MAX_INDEX_BYTES = 1 << 24  # 16 MiB: a shard takes 350 bytes
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_CUTS_FILE = re.compile(r"cuts(\.\w+)?\.jsonl(?:\.gz)?")


# --- where shards lie ---------------------------------------------------------------------------


class SharFolder:
    """Opens the files of a folder by name; never runs anything, whatever the location says.

    Args:
        location: a local path, or a URL of one of SCHEMES, which is read through lhotse.

    Raises:
        ValueError: a URL of another kind, or a command (`pipe:`).
        NotADirectoryError: a local path that is no folder.
    """

    def __init__(self, location: str | Path) -> None:
        text = str(location).rstrip("/") or "/"
        scheme = _SCHEME.match(text)
        self.path: Path | None = None
        if scheme is None:
            self.path = Path(text)
            if not self.path.is_dir():
                raise NotADirectoryError(20, "is no folder, expected one of Shar shards", text)
        elif scheme[1] not in SCHEMES or not text.startswith(f"{scheme[1]}://"):
            kinds = ", ".join(f"{name}://" for name in SCHEMES)
            raise ValueError(f"{text}: not a folder of shards, expected a path or {kinds}")
        self.location = text

    def __str__(self) -> str:
        return self.location

    def where(self, name: str) -> str:
        """A file as messages name it."""
        return f"{self.location}/{name}"

    def open(self, name: str) -> IO[bytes]:
        """Open a file's bytes, as they lie there.

        Raises:
            ValueError: not a regular file, or lhotse or smart_open is missing for a URL.
            OSError: missing or unreadable.
        """
        if self.path is not None:
            return open_regular(self.path / name, "a file of Shar")
        url = self.where(name)
        try:
            from lhotse.utils import SmartOpen

            # Without `compression` it would unpack by the name, and the bytes have another sha256.
            file: IO[bytes] = SmartOpen.open(url, "rb", compression="disable")
        except ImportError as error:
            raise ValueError(f"{url}: needs {error.name or 'smart_open'}: {NEEDS}") from error
        return file

    def names(self) -> list[str]:
        """The files of a local folder, sorted.

        Raises:
            ValueError: a URL, which cannot be listed.
        """
        if self.path is None:
            raise ValueError(f"{self}: cannot be listed, expected an index in it: see asr shar")
        return sorted(path.name for path in self.path.iterdir())


# --- cuts ---------------------------------------------------------------------------------------


def read_cuts(
    folder: SharFolder, name: str, recording: str, sha256: str | None = None
) -> list[tuple[str, Utterance | Finding]]:
    """Read the cuts of a shard.

    Args:
        folder: where it lies.
        name: of the file of cuts.
        recording: name of the tar with their audio; utterances are located in it.
        sha256: of the file; None does not check.

    Returns:
        In the file's order, the cut's id and its utterance, text as it is; or why it is none: a
        cut made of several recordings, without audio or text, with several supervisions.

    Raises:
        ValueError: damaged, changed, or no cuts; the message names file and line.
        OSError: missing or unreadable.
    """
    where = folder.where(name)
    with folder.open(name) as file:
        packed = read_stream(file, where, "a shard's cuts", MAX_CUTS_BYTES)
    check_sha256(where, hashlib.sha256(packed).hexdigest(), sha256)
    file = unpacked(io.BufferedReader(io.BytesIO(packed)), where)
    cuts: dict[str, Utterance | Finding] = {}
    for line, row in json_records(lines(file, where, MAX_CUTS_BYTES)):
        if len(cuts) == MAX_CUTS:
            raise ValueError(f"{where}: more than {MAX_CUTS} cuts, expected fewer in a shard")
        try:
            if isinstance(row, BadLineError):
                raise row
            cut_id = row.get("id")
            if not isinstance(cut_id, str) or not cut_id:
                raise BadLineError(f"id is {shown(cut_id)}, expected a text")
            if cut_id in cuts:
                raise BadLineError(f"id {shown(cut_id)} occurs twice, expected once")
            cuts[cut_id] = _utterance(cut_id, row, folder.where(recording))
        except BadLineError as error:
            raise ValueError(f"{where}:{line}: {error}") from error
    return list(cuts.items())


def check_sha256(where: str, actual: str, expected: str | None) -> None:
    """Refuse a file that is not the one an index was made of.

    Raises:
        ValueError: it is another.
    """
    if expected is not None and actual != expected:
        raise ValueError(
            f"{where}: sha256 {actual[:12]}..., expected {expected[:12]}...: the file is damaged, "
            "or it was changed after its index was made"
        )


def _utterance(cut_id: str, row: Record, recording: str) -> Utterance | Finding:
    custom = row.get("custom") or {}
    if not isinstance(custom, dict):
        raise BadLineError(f"custom is {shown(custom)}, expected {{...}}")
    custom = dict(custom)
    utterance_id = str(custom.pop(UTTERANCE_ID, cut_id))
    start, duration = _seconds(row, "start"), _seconds(row, "duration")
    reason = _unusable(row, duration)
    if reason is not None:
        return Finding(Kind.BAD_LINE, reason, utterance_id)
    (supervision,) = row["supervisions"]
    speaker = supervision.get("speaker")
    return Utterance(
        audio_filepath=Path(f"{recording}/{cut_id}"),
        text=supervision["text"],
        duration=duration,
        id=utterance_id,
        speaker=None if speaker is None else str(speaker),
        offset=start,
        extra=custom,
    )


def _unusable(row: Record, duration: float) -> str | None:
    """Why a cut is no utterance."""
    kind = row.get("type", "MonoCut")
    if kind not in KINDS:
        return f"is a {shown(kind)}, expected a MonoCut: export mixed cuts as audio first"
    recording = row.get("recording")
    if not isinstance(recording, dict):
        return "has no recording, expected one"
    if recording.get("transforms"):
        return "its recording has transforms, expected audio as it is"
    supervisions = row.get("supervisions") or []
    if not isinstance(supervisions, list) or len(supervisions) != 1:
        return f"has {len(supervisions)} supervisions, expected 1: trim_to_supervisions makes it so"
    supervision = supervisions[0]
    if not isinstance(supervision, dict) or not isinstance(supervision.get("text"), str):
        return "its supervision has no text, expected a transcript"
    start, length = _seconds(supervision, "start", -MAX_SECONDS), _seconds(supervision, "duration")
    if start < -SLACK_S or start + length > duration + SLACK_S:
        return (
            f"its text spans {start:g} to {start + length:g} s, expected 0 to {duration:g} s as "
            "the cut does"
        )
    return None


def _seconds(row: Record, name: str, least: float = 0.0) -> float:
    value = row.get(name)
    if (
        not isinstance(value, int | float)
        or isinstance(value, bool)
        or not least <= value <= MAX_SECONDS
    ):
        raise BadLineError(f"{name} is {shown(value)}, expected a number of seconds")
    return float(value)


# --- recordings ---------------------------------------------------------------------------------


def read_recordings(
    folder: SharFolder,
    name: str,
    cut_ids: Sequence[str],
    wanted: Collection[str],
    sha256: str | None = None,
) -> dict[str, bytes]:
    """Read a shard's tar from end to end: two members a cut, its audio and a description.

    Args:
        folder: where it lies.
        name: of the tar.
        cut_ids: of the shard, in order; the tar's must be the same.
        wanted: the cuts whose audio is to be kept.
        sha256: of the tar; None does not check.

    Returns:
        Encoded audio by cut id.

    Raises:
        ValueError: damaged, cut short, changed, or not the tar of these cuts.
        OSError: missing or unreadable.
    """
    where = folder.where(name)
    with folder.open(name) as file:
        hashed = HashedReader(file)
        try:
            audio = _audio_of(where, tar_members(hashed), cut_ids, wanted)
            actual = hashed.finish()
        except tarfile.TarError as error:
            raise ValueError(f"{where}: damaged tar ({error})") from error
        check_sha256(where, actual, sha256)
    return audio


class HashedReader:
    """A file that is hashed while it is read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._digest = hashlib.sha256()

    def read(self, size: int) -> bytes:
        """The next bytes."""
        block = self._file.read(size)
        self._digest.update(block)
        return block

    def finish(self) -> str:
        """The sha256 of the whole file, of whose rest no more is read than fills a tar up.

        Raises:
            tarfile.TarError: there is more.
        """
        left = MAX_REST_BYTES
        while block := self.read(BLOCK_BYTES):
            left -= len(block)
            if left < 0:
                raise tarfile.ReadError(f"more than {MAX_REST_BYTES} bytes behind its end")
        return self._digest.hexdigest()


def _audio_of(
    where: str,
    members: Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]],
    cut_ids: Sequence[str],
    wanted: Collection[str],
) -> dict[str, bytes]:
    audio: dict[str, bytes] = {}
    for cut_id in cut_ids:
        member, file = next(members, (None, None))
        path = PurePosixPath("" if member is None else member.name)
        if member is None or str(path.parent / path.stem) != cut_id:
            found = "ends" if member is None else f"goes on with {member.name!r}"
            raise ValueError(f"{where}: {found}, expected the audio of cut {cut_id!r}")
        _check_member(where, member, file, MAX_AUDIO_BYTES)
        if cut_id in wanted:
            if member.name.endswith(NO_DATA):
                raise ValueError(
                    f"{where}: {member.name!r} holds no audio, expected some as its cut says"
                )
            assert file is not None, "a plain file"
            audio[cut_id] = file.read()
        description, file = next(members, (None, None))  # of the audio, which the cut repeats
        if description is not None:
            _check_member(where, description, file, MAX_DESCRIPTION_BYTES)
    more, _ = next(members, (None, None))
    if more is not None:
        raise ValueError(f"{where}: has {more.name!r} as well, expected its cuts' audio alone")
    return audio


def _check_member(
    where: str, member: tarfile.TarInfo, file: IO[bytes] | None, max_bytes: int
) -> None:
    if file is None or member.size > max_bytes:
        raise ValueError(
            f"{where}: {member.name!r} has {member.size} bytes, expected a plain file of at most "
            f"{max_bytes}"
        )


# --- the index ----------------------------------------------------------------------------------


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
        text: the rules they were normalised by, `settings` of a TextNormalizer.
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
    index = _parse_index(where, content)
    if folder.path is None or not index.complete:
        return index
    listed = {name for shard in index.shards for name in (shard.cuts, shard.recording)}
    there = set(folder.names())
    missing = sorted(listed - there)
    more = sorted(name for name in there - listed if _CUTS_FILE.fullmatch(name))
    if missing or more:
        fault = f"{missing[0]} is missing" if missing else f"{more[0]} is not in it"
        raise ValueError(
            f"{where}: {fault}, expected the index of the shards that are there; without the file "
            "the folder is scanned"
        )
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
    return SharIndex(tuple(shards), dict(sorted(characters.items())), text.settings())


def recording_of(cuts: str) -> str:
    """The name of the tar that goes with a file of cuts."""
    match = _CUTS_FILE.fullmatch(cuts)
    assert match is not None, "a name of cuts"
    return f"recording{match[1] or ''}.tar"


def sha256_of(path: Path) -> str:
    """The sha256 of a file."""
    with open_regular(path, "a file of Shar") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _parse_index(where: str, content: bytes) -> SharIndex:
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
