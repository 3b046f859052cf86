"""Manifests: one utterance a line, as JSON lines, CSV or TSV, read with every line checked."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from asr.atomic_file import replace_bytes
from asr.data.records import BadLineError, Record, read_records
from asr.finding import Finding, Kind
from asr.untrusted import shown

MAX_SECONDS = 1e9  # [s] what is longer is no time but a slip
SHOWN_LINES = 5  # numbers of further bad lines, in a message
MAX_BAD_LINES = 100_000  # bad lines of a manifest that are listed, where they are not the fewer
FIELDS = ("audio_filepath", "duration", "text", "id", "speaker", "offset")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


@dataclass(frozen=True)
class Utterance:
    """One recording, or a part of one, with what was said.

    Attributes:
        audio_filepath: absolute, or relative to the working directory.
        text: transcript.
        duration: [s] from the offset; None where the manifest does not say.
        id: unique in its manifest.
        speaker: None where the manifest does not say.
        offset: where in the file the utterance begins [s].
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
    extra: Mapping[str, object] = field(default_factory=dict, hash=False)
    manifest: Path | None = field(default=None, compare=False)
    line: int | None = field(default=None, compare=False)

    @property
    def where(self) -> str:
        """`manifest:line`, or the id where that is not known."""
        return self.id if self.manifest is None else f"{self.manifest}:{self.line}"

    def finding(self, kind: Kind, reason: str) -> Finding:
        """What is wrong with this utterance."""
        return Finding(kind, reason, self.id, self.manifest, self.line, self.audio_filepath)


Row = Utterance | Finding


def read_manifest(path: Path | str) -> list[Utterance]:
    """Read a manifest of which every line must be good.

    JSON lines (`.jsonl`, `.json`), or CSV and TSV with a header; TSV has no quoting. Fields:
    `audio_filepath` (relative to the manifest's folder, or absolute; never a URL or a command)
    and `text`; optional `duration` [s], `id`, `speaker`, `offset` [s]; others are kept in `extra`.
    Without `id` it is `audio_filepath` as written, with `@offset` where the offset is not 0. Audio
    is not looked at.

    Args:
        path: a regular file, UTF-8 with or without a byte order mark.

    Returns:
        Utterances in the file's order.

    Raises:
        ValueError: `file:line: what is wrong`, with the numbers of further bad lines; also for an
            empty manifest and an unknown format.
        OSError: missing or unreadable.
    """
    rows = scan_manifest(path)
    if bad := findings(rows):
        raise ValueError(describe_bad_lines(bad))
    return utterances(rows)


def scan_manifest(path: Path | str) -> list[Row]:
    """Read a manifest line by line; the format is `read_manifest`'s.

    Args:
        path: a regular file.

    Returns:
        In the file's order, at least one: the utterance of a good line, else what is wrong with it.

    Raises:
        ValueError: for an empty manifest, an unknown format, something that is not a regular file,
            a bad header, or far more bad lines than good ones.
        OSError: missing or unreadable.
    """
    path = Path(path)
    folder = path.absolute().parent
    rows: list[Row] = []
    bad: list[Finding] = []
    line_of_id: dict[str, int] = {}
    for line, record in read_records(path):
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
            first = line_of_id.setdefault(row.id, line)
            if first != line:
                reason = f"id {shown(row.id)} is that of line {first} already"
                row = row.finding(Kind.DUPLICATE_ID, reason)
        rows.append(row)
        if isinstance(row, Finding):
            bad.append(row)
    if not rows:
        raise ValueError(f"{path}: holds no utterances, expected at least one")
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


def write_manifest(path: Path | str, written: Iterable[Utterance]) -> None:
    """Write a manifest as JSON lines; the file is there whole or, after any failure, as it was.

    Args:
        path: its folder is made where it is missing.
        written: audio inside the manifest's folder is written relative to it, other audio
            with its absolute path.

    Raises:
        ValueError: for a number that is not finite, or an extra field with a field's name.
        OSError: from writing.
    """
    content = manifest_bytes(path, written)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    replace_bytes(Path(path), content)


def manifest_bytes(path: Path | str, written: Iterable[Utterance]) -> bytes:
    """What `write_manifest` writes."""
    folder = _plain(Path(path)).parent
    return "".join(_written(utterance, folder) for utterance in written).encode()


def _written(utterance: Utterance, folder: Path) -> str:
    record = _record(utterance, folder)
    try:
        return json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"
    except ValueError as error:
        raise ValueError(f"utterance {utterance.id}: {error}") from error


def _record(utterance: Utterance, folder: Path) -> dict[str, object]:
    audio = _plain(utterance.audio_filepath)
    if audio.is_relative_to(folder):
        audio = audio.relative_to(folder)
    record: dict[str, object] = {"audio_filepath": audio.as_posix()}
    if utterance.duration is not None:
        record["duration"] = utterance.duration
    record |= {"text": utterance.text, "id": utterance.id}
    if utterance.speaker is not None:
        record["speaker"] = utterance.speaker
    if utterance.offset:
        record["offset"] = utterance.offset
    clash = sorted(utterance.extra.keys() & set(FIELDS))
    if clash:
        raise ValueError(f"utterance {utterance.id}: extra has {clash[0]!r}, expected another name")
    return record | dict(utterance.extra)


def _plain(path: Path) -> Path:
    # `..` cannot be taken away from a path without looking for links.
    return path.resolve() if ".." in path.parts else path.absolute()


def _utterance(record: Record | BadLineError, folder: Path, manifest: Path, line: int) -> Utterance:
    if isinstance(record, BadLineError):
        raise record
    written = _audio_filepath(record)
    offset = _seconds(record, "offset", zero=True) or 0.0
    text = record.get("text")
    if not isinstance(text, str):
        raise BadLineError(_wrong(record, "text", "a text"))
    return Utterance(
        audio_filepath=folder / written,
        text=text,
        duration=_seconds(record, "duration", zero=False),
        id=_name(record, "id") or (f"{written}@{offset:g}" if offset else written),
        speaker=_name(record, "speaker"),
        offset=offset,
        extra={name: value for name, value in record.items() if name not in FIELDS},
        manifest=manifest,
        line=line,
    )


def _audio_filepath(record: Record) -> str:
    written = record.get("audio_filepath")
    if not isinstance(written, str) or not written.strip():
        raise BadLineError(_wrong(record, "audio_filepath", "a path"))
    if _URL.match(written):
        raise BadLineError(_wrong(record, "audio_filepath", "a path, not a URL"))
    if written.strip()[0] == "|" or written.strip()[-1] == "|":
        raise BadLineError(_wrong(record, "audio_filepath", "a path, not a command"))
    if any(unicodedata.category(character) == "Cc" for character in written):
        raise BadLineError(_wrong(record, "audio_filepath", "a path without control characters"))
    return written


def _seconds(record: Record, name: str, *, zero: bool) -> float | None:
    value = record.get(name)
    if value is None:
        return None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    # NaN fails every comparison.
    if not number or not (0 <= value <= MAX_SECONDS) or (value == 0 and not zero):
        bound = "from 0 up" if zero else "above 0"
        raise BadLineError(_wrong(record, name, f"a number of seconds {bound}"))
    return float(value)


def _name(record: Record, name: str) -> str | None:
    value = record.get(name)
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value.strip():
        raise BadLineError(_wrong(record, name, "a text or a whole number"))
    return value


def _wrong(record: Record, name: str, expected: str) -> str:
    if record.get(name) is None:
        return f"{name} is missing, expected {expected}"
    return f"{name} is {shown(record[name])}, expected {expected}"
