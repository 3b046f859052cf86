"""Manifests: one utterance a line, as JSON lines or a table, read with every line checked."""

from __future__ import annotations

import json
import logging
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from asr.atomic_file import replace_bytes
from asr.data.records import (
    FIELD_NAMES,
    JSON_SUFFIXES,
    TABLE_SUFFIXES,
    BadLineError,
    Columns,
    Record,
    read_records,
)
from asr.finding import Finding, Kind
from asr.untrusted import shown

logger = logging.getLogger(__name__)

MANIFEST_SUFFIXES = (*JSON_SUFFIXES, *TABLE_SUFFIXES)
FIELDS = frozenset(FIELD_NAMES)
MAX_SECONDS = 1e9  # [s] what is longer is no time but a slip
MAX_CHANNELS = 1024  # more than any format has
SHOWN_LINES = 5  # numbers of further bad lines, in a message
MAX_BAD_LINES = 100_000  # bad lines of a manifest that are listed, where they are not the fewer
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


@dataclass(frozen=True)
class Utterance:
    """One recording, or a part of one, with its transcript.

    Attributes:
        audio_filepath: absolute, or relative to the working directory.
        text: transcript.
        duration: [s] from the offset; None where the manifest does not say.
        id: unique in its manifest.
        speaker: None where the manifest does not say.
        offset: where in the file the utterance begins [s].
        channel: of the file that it is on, from 0; None for the mean of all.
        extra: further fields of the line, as they are.
        manifest: where it was read; None where it was not, or comes from shards.
        line: of the manifest, from 1.
    """

    audio_filepath: Path
    text: str
    duration: float | None
    id: str
    speaker: str | None = None
    offset: float = 0.0
    channel: int | None = None
    extra: Mapping[str, object] = field(default_factory=dict, hash=False)
    manifest: Path | None = field(default=None, compare=False)
    line: int | None = field(default=None, compare=False)

    @property
    def where(self) -> str:
        """`manifest:line`, or the id where that is not known."""
        return self.id if self.manifest is None else f"{self.manifest}:{self.line}"

    @property
    def part(self) -> list[float | None]:
        """Which part of its file it is: duration, offset, and the channel where there is one."""
        channel = [] if self.channel is None else [self.channel]
        return [self.duration, self.offset, *channel]

    @property
    def place(self) -> tuple[str, float, int | None]:
        """File, offset and channel: where the utterance is."""
        return os.path.normpath(self.audio_filepath), self.offset, self.channel

    def finding(self, kind: Kind, reason: str) -> Finding:
        """What is wrong with this utterance."""
        return Finding(kind, reason, self.id, self.manifest, self.line, self.audio_filepath)


Row = Utterance | Finding
Entry = tuple[Path, int, Record | BadLineError]  # file, line from 1, what it says


@dataclass(frozen=True)
class Form:
    """What a manifest that was not made for this program does not say of itself.

    Attributes:
        columns: names of columns by field, those that are not found by themselves.
        encoding: of a text, as Python calls it; None finds it out.
        audio_folder: that relative paths of audio begin in; None: the manifest's own.
    """

    columns: Columns = field(default_factory=dict)
    encoding: str | None = None
    audio_folder: Path | None = None


def read_manifest(
    path: Path | str, notice: Callable[[str], None] = logger.warning
) -> list[Utterance]:
    """Read a manifest of which every line must be good.

    JSON lines or an array (`.jsonl`, `.json`), or a table with a header (`.csv`, `.tsv`), in the
    forms that `asr.data.records` knows. Fields: `audio_filepath` (relative to the manifest's
    folder, or absolute; never a URL or a command) and `text`; optional `duration` [s], `id`,
    `speaker`, `offset` [s], `channel` (of the file, from 0; else the mean of all); others are kept
    in `extra`. Without `id` it is `audio_filepath` as written, with `#channel` where there is one
    and `@offset` where that is not 0. Audio is not looked at.

    Args:
        path: a regular file.
        notice: told in a line what was found out of a table.

    Returns:
        Utterances in the file's order, at least one.

    Raises:
        ValueError: `file:line: what is wrong`, with the numbers of further bad lines; also for an
            empty manifest and an unknown format.
        OSError: missing or unreadable.
    """
    rows = scan_manifest(path, notice=notice)
    if bad := findings(rows):
        raise ValueError(describe_bad_lines(bad))
    return utterances(rows)


def scan_manifest(
    path: Path | str, form: Form | None = None, notice: Callable[[str], None] = logger.warning
) -> list[Row]:
    """Read a manifest line by line; the format is `read_manifest`'s.

    Args:
        path: a regular file.
        form: what it does not say of itself.
        notice: told in a line what was found out of a table.

    Returns:
        In the file's order, at least one: the utterance of a good line, else what is wrong with it.

    Raises:
        ValueError: for an empty manifest, an unknown format, something that is not a regular file,
            a bad header, or far more bad lines than good ones.
        OSError: missing or unreadable.
    """
    path, form = Path(path), form or Form()
    folder = path.absolute().parent if form.audio_folder is None else form.audio_folder.absolute()
    records = read_records(path, form.columns, form.encoding, notice)
    rows = rows_of(((path, line, record) for line, record in records), folder)
    if not rows:
        raise ValueError(f"{path}: holds no utterances, expected at least one")
    return rows


def rows_of(entries: Iterable[Entry], folder: Path) -> list[Row]:
    """Make utterances of records, those of one split.

    Args:
        entries: file and line that a record stands in, and its fields by the names of a manifest's.
        folder: that relative paths of audio begin in.

    Returns:
        In the same order: the utterance, else what is wrong with the record.

    Raises:
        ValueError: far more bad records than good ones.
    """
    rows: list[Row] = []
    bad: list[Finding] = []
    by_id: dict[str, Utterance] = {}
    for path, line, record in entries:
        num_good = len(rows) - len(bad)
        if len(bad) > max(MAX_BAD_LINES, num_good):
            raise ValueError(
                f"{describe_bad_lines(bad[:1])} (and {len(bad) - 1} more bad lines before line "
                f"{line}, {num_good} good ones), expected a manifest"
            )
        row: Row
        try:
            row = _utterance(record, folder, path, line)
        except BadLineError as error:
            row = Finding(Kind.BAD_LINE, str(error), None, path, line)
        else:
            first = by_id.setdefault(row.id, row)
            # An id of ours has six digits of the offset, as ever: two parts of a long recording
            # may need all of them, and the duration.
            is_named = isinstance(record, dict) and record.get("id")
            if first is not row and not is_named and first.part != row.part:
                length = "" if row.duration is None else f"+{row.duration!r}"
                stem = row.id.removesuffix(f"@{row.offset:g}")
                row = replace(row, id=f"{stem}@{row.offset!r}{length}")
                first = by_id.setdefault(row.id, row)
            if first is not row:
                there = first.where if first.manifest != path else f"line {first.line}"
                reason = f"id {shown(row.id)} is that of {there} already"
                row = row.finding(Kind.DUPLICATE_ID, reason)
        rows.append(row)
        if isinstance(row, Finding):
            bad.append(row)
    return rows


def scan_manifests(
    paths: Sequence[Path], form: Form | None = None, notice: Callable[[str], None] = logger.warning
) -> list[Row]:
    """Read the manifests that make up a split, as `scan_manifest` does.

    Args:
        paths: regular files, at least one. The ids of several get their folder's name in front.
        form: what they do not say of themselves.
        notice: told in a line what was found out of a table.

    Returns:
        In the manifests' order, at least one; an id that an earlier manifest has is a finding.

    Raises:
        ValueError: one that `scan_manifest` refuses.
        OSError: missing or unreadable.
    """
    rows: list[Row] = []
    first: dict[str, Utterance] = {}
    for path in paths:
        prefix = f"{path.resolve().parent.name}/" if len(paths) > 1 else ""
        for row in scan_manifest(path, form, notice):
            if prefix and isinstance(row, Utterance):
                row = replace(row, id=f"{prefix}{row.id}")
                if (earlier := first.setdefault(row.id, row)) is not row:
                    reason = (
                        f"id {row.id!r} is that of {earlier.where} already: folders of several "
                        "manifests need different names, or their utterances other ids"
                    )
                    row = row.finding(Kind.DUPLICATE_ID, reason)
            rows.append(row)
    return rows


def utterances(rows: Iterable[Row]) -> list[Utterance]:
    """The rows that nothing is wrong with."""
    return [row for row in rows if isinstance(row, Utterance)]


def findings(rows: Iterable[Row]) -> list[Finding]:
    """The rows that something is wrong with."""
    return [row for row in rows if isinstance(row, Finding)]


def sift(rows: Iterable[Row], check: Callable[[Utterance], Finding | None]) -> list[Row]:
    """The rows with the finding in place of every utterance that the check objects to."""
    return [row if isinstance(row, Finding) else check(row) or row for row in rows]


def describe_bad_lines(found: Sequence[Finding]) -> str:
    """Any number of bad lines in one line: the first in full, the others by number."""
    first, *others = found
    told = f"{first.place}: {first.reason}"
    if not others:
        return told
    numbers = ", ".join(
        str(other.line) if other.manifest == first.manifest else other.place
        for other in others[:SHOWN_LINES]
    )
    more = ", ..." if len(others) > SHOWN_LINES else ""
    noun = "line" if len(others) == 1 else "lines"
    return f"{told} (and {len(others)} more bad {noun}: {numbers}{more})"


# --- writing -----------------------------------------------------------------------------------


def write_manifest(path: Path | str, written: Iterable[Utterance]) -> None:
    """Write a manifest as JSON lines; the file is there whole or, after any failure, as it was.

    Args:
        path: its folder is made where it is missing.
        written: audio inside the manifest's folder is written relative to it, other audio with its
            absolute path.

    Raises:
        ValueError: for a number that is not finite, or an extra field with a field's name.
        OSError: from writing.
    """
    content = manifest_bytes(path, written)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    replace_bytes(Path(path), content)


def manifest_bytes(path: Path | str | None, written: Iterable[Utterance]) -> bytes:
    """What `write_manifest` writes; without a path, all audio has its absolute one."""
    folder = None if path is None else _plain(Path(path)).parent
    rows: list[str] = []
    for utterance in written:
        audio = _plain(utterance.audio_filepath)
        if folder is not None and audio.is_relative_to(folder):
            audio = audio.relative_to(folder)
        record: Record = {"audio_filepath": audio.as_posix()}
        if utterance.duration is not None:
            record["duration"] = utterance.duration
        record |= {"text": utterance.text, "id": utterance.id}
        if utterance.speaker is not None:
            record["speaker"] = utterance.speaker
        if utterance.offset:
            record["offset"] = utterance.offset
        if utterance.channel is not None:
            record["channel"] = utterance.channel
        where = f"utterance {utterance.id}"
        if clash := sorted(utterance.extra.keys() & FIELDS):
            raise ValueError(f"{where}: extra has {clash[0]!r}, expected another name")
        record |= utterance.extra
        try:
            rows.append(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
    return "".join(rows).encode()


def _plain(path: Path) -> Path:
    # `..` cannot be taken away from a path without looking for links.
    return path.resolve() if ".." in path.parts else path.absolute()


# --- the fields of a line ----------------------------------------------------------------------


def _utterance(record: Record | BadLineError, folder: Path, manifest: Path, line: int) -> Utterance:
    if isinstance(record, BadLineError):
        raise record
    written, text = record.get("audio_filepath"), record.get("text")
    if not isinstance(written, str) or not written.strip():
        raise _wrong(record, "audio_filepath", "a path")
    if _URL.match(written):
        raise _wrong(record, "audio_filepath", "a path, not a URL")
    if "|" in (written.strip()[0], written.strip()[-1]):  # as Kaldi's tables have them
        raise _wrong(record, "audio_filepath", "a path, not a command")
    if any(unicodedata.category(character) == "Cc" for character in written):
        raise _wrong(record, "audio_filepath", "a path without control characters")
    if not isinstance(text, str):
        raise _wrong(record, "text", "a text")
    offset = _seconds(record, "offset", zero=True) or 0.0
    written = _existing(folder, written)
    channel = _channel(record)
    name = written if channel is None else f"{written}#{channel}"
    return Utterance(
        audio_filepath=folder / written,
        text=text,
        duration=_seconds(record, "duration", zero=False),
        id=_name(record, "id") or (f"{name}@{offset:g}" if offset else name),
        speaker=_name(record, "speaker"),
        offset=offset,
        channel=channel,
        extra={name: value for name, value in record.items() if name not in FIELDS},
        manifest=manifest,
        line=line,
    )


def _existing(folder: Path, written: str) -> str:
    """A path as it is on this machine, where Windows has other separators and macOS other letters.

    Unicode has two forms for an accented letter, which look the same; macOS writes both apart.
    """
    if (written.isascii() and "\\" not in written) or os.path.exists(folder / written):
        return written
    slashed = written.replace("\\", "/")
    forms = (unicodedata.normalize(form, slashed) for form in ("NFC", "NFD"))
    return next((each for each in forms if os.path.exists(folder / each)), slashed)


def _seconds(record: Record, name: str, *, zero: bool) -> float | None:
    value = record.get(name)
    if value is None:
        return None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    # NaN fails every comparison.
    if not number or not (0 <= value <= MAX_SECONDS) or (value == 0 and not zero):
        raise _wrong(record, name, f"a number of seconds {'from 0 up' if zero else 'above 0'}")
    return float(value)


def _channel(record: Record) -> int | None:
    value = record.get("channel")
    if value is None:
        return None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or value not in range(MAX_CHANNELS):  # 1.0 of a table is
        raise _wrong(record, "channel", f"a whole number from 0 to {MAX_CHANNELS - 1}")
    return int(value)


def _name(record: Record, name: str) -> str | None:
    value = record.get(name)
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value.strip():
        raise _wrong(record, name, "a text or a whole number")
    return value


def _wrong(record: Record, name: str, expected: str) -> BadLineError:
    if record.get(name) is None:
        return BadLineError(f"{name} is missing, expected {expected}")
    return BadLineError(f"{name} is {shown(record[name])}, expected {expected}")


def seconds(utterance: Utterance) -> float:
    """The duration [s] of an utterance that was read for a training, where none is unknown."""
    assert utterance.duration is not None, "filled in when read"
    return utterance.duration
