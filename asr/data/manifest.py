"""Manifests: one utterance a line, as JSON lines, CSV or TSV, read with every line checked."""

from __future__ import annotations

import csv
import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

from asr.atomic_file import replace_bytes
from asr.finding import Finding, Kind
from asr.untrusted import MAX_LINE_BYTES, lines, open_regular, shown

JSON_SUFFIXES = (".jsonl", ".json")
MANIFEST_SUFFIXES = (*JSON_SUFFIXES, ".csv", ".tsv")
REQUIRED_FIELDS = ("audio_filepath", "text")
OPTIONAL_FIELDS = ("duration", "id", "speaker", "offset")
NUMBER_FIELDS = ("duration", "offset")
FIELDS = frozenset((*REQUIRED_FIELDS, *OPTIONAL_FIELDS))
MAX_SECONDS = 1e9  # [s] what is longer is no time but a slip
SHOWN_LINES = 5  # numbers of further bad lines, in a message
MAX_BAD_LINES = 100_000  # bad lines of a manifest that are listed, where they are not the fewer
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_BOM = b"\xef\xbb\xbf"

Record = dict[str, Any]
Lines = Iterator[tuple[int, bytes]]


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
        Utterances in the file's order, at least one.

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
    by_id: dict[str, Utterance] = {}
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
            first = by_id.setdefault(row.id, row)
            # An id of ours has six digits of the offset, as ever: two parts of a long recording
            # may need all of them, and the duration.
            is_named = isinstance(record, dict) and record.get("id")
            if first is not row and not is_named and _part(first) != _part(row):
                length = "" if row.duration is None else f"+{row.duration!r}"
                stem = row.id.removesuffix(f"@{row.offset:g}")
                row = replace(row, id=f"{stem}@{row.offset!r}{length}")
                first = by_id.setdefault(row.id, row)
            if first is not row:
                reason = f"id {shown(row.id)} is that of line {first.line} already"
                row = row.finding(Kind.DUPLICATE_ID, reason)
        rows.append(row)
        if isinstance(row, Finding):
            bad.append(row)
    if not rows:
        raise ValueError(f"{path}: holds no utterances, expected at least one")
    return rows


def _part(utterance: Utterance) -> tuple[float, float | None]:
    return utterance.offset, utterance.duration


def scan_manifests(paths: Sequence[Path]) -> list[Row]:
    """Read the manifests that make up a split, as `scan_manifest` does.

    Args:
        paths: regular files, at least one. The ids of several get their folder's name in front.

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
        for row in scan_manifest(path):
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


def manifest_bytes(path: Path | str, written: Iterable[Utterance]) -> bytes:
    """What `write_manifest` writes."""
    folder = _plain(Path(path)).parent
    rows: list[str] = []
    for utterance in written:
        audio = _plain(utterance.audio_filepath)
        if audio.is_relative_to(folder):
            audio = audio.relative_to(folder)
        record: Record = {"audio_filepath": audio.as_posix()}
        if utterance.duration is not None:
            record["duration"] = utterance.duration
        record |= {"text": utterance.text, "id": utterance.id}
        if utterance.speaker is not None:
            record["speaker"] = utterance.speaker
        if utterance.offset:
            record["offset"] = utterance.offset
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


class BadLineError(ValueError):
    """A line that cannot be used; the message is the reason."""


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


def _seconds(record: Record, name: str, *, zero: bool) -> float | None:
    value = record.get(name)
    if value is None:
        return None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    # NaN fails every comparison.
    if not number or not (0 <= value <= MAX_SECONDS) or (value == 0 and not zero):
        raise _wrong(record, name, f"a number of seconds {'from 0 up' if zero else 'above 0'}")
    return float(value)


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


# --- lines as records of named fields ----------------------------------------------------------


def read_records(path: Path) -> Iterator[tuple[int, Record | BadLineError]]:
    """Read a file line by line, without believing that it is what its name says.

    Args:
        path: a regular file whose name ends in one of MANIFEST_SUFFIXES.

    Yields:
        Line number from 1, and the line's fields or why there are none. Empty lines are passed
        over. In tables, empty optional fields are left out and numbers are numbers.

    Raises:
        ValueError: for another name, something that is not a regular file, a bad header, or no end
            of empty lines.
        OSError: missing or unreadable.
    """
    suffix = path.suffix.lower()
    if suffix not in MANIFEST_SUFFIXES:
        expected = ", ".join(MANIFEST_SUFFIXES)
        raise ValueError(f"{path}: not a manifest's name, expected one that ends in {expected}")
    with open_regular(path, "a manifest") as file:
        raw = lines(file, path)
        if suffix in JSON_SUFFIXES:
            yield from json_records(raw)
        else:
            yield from _table_records(path, _table_rows(raw, has_tabs=suffix == ".tsv"))


def json_records(raw_lines: Lines) -> Iterator[tuple[int, Record | BadLineError]]:
    """`read_records` of the lines of a file of JSON, as `asr.untrusted.lines` gives them."""
    for number, line in _texts(raw_lines):
        if isinstance(line, BadLineError):
            yield number, line
        elif line.strip():
            try:
                yield number, _parse_json(line.rstrip())
            except BadLineError as error:
                yield number, error


def _texts(raw_lines: Lines) -> Iterator[tuple[int, str | BadLineError]]:
    for number, raw in raw_lines:
        if len(raw) > MAX_LINE_BYTES:
            yield number, BadLineError(f"longer than {MAX_LINE_BYTES} bytes, expected less")
            continue
        raw = raw.removeprefix(_BOM) if number == 1 else raw
        try:
            yield number, raw.decode()
        except UnicodeDecodeError as error:
            where = f"byte 0x{raw[error.start]:02x} at {error.start + 1}"
            yield number, BadLineError(f"{where}, expected UTF-8")


def _parse_json(line: str) -> Record:
    def refuse(name: str) -> NoReturn:
        raise BadLineError(f"bad JSON ({name} is no JSON number)")

    def unique(pairs: list[tuple[str, Any]]) -> Record:
        record = dict(pairs)
        if len(record) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise BadLineError(f"field {shown(twice)} occurs twice, expected once")
        return record

    try:
        record = json.loads(line, parse_constant=refuse, object_pairs_hook=unique)
        # An escape alone can make half a surrogate pair, which no file can hold.
        if "\\u" in line:
            json.dumps(record, ensure_ascii=False).encode()
    except BadLineError:
        raise
    except json.JSONDecodeError as error:
        raise BadLineError(f"bad JSON at column {error.colno} ({error.msg})") from error
    except UnicodeEncodeError as error:
        raise BadLineError("half a surrogate pair (\\ud800 to \\udfff), expected text") from error
    except (ValueError, RecursionError) as error:
        raise BadLineError(f"bad JSON ({error})") from error
    if not isinstance(record, dict):
        raise BadLineError(f"{shown(record)} is no JSON object, expected {{...}}")
    return record


def _table_rows(
    raw_lines: Lines, *, has_tabs: bool
) -> Iterator[tuple[int, list[str] | BadLineError]]:
    """The cells of each row of a CSV or TSV that is not empty."""
    bad: list[BadLineError] = []

    def decoded() -> Iterator[str]:
        for _, line in _texts(raw_lines):
            if isinstance(line, BadLineError):
                bad.append(line)
            # An error raised here would end the reading; csv passes over empty lines.
            yield "\n" if isinstance(line, BadLineError) else line

    rows = csv.reader(
        decoded(),
        delimiter="\t" if has_tabs else ",",
        quoting=csv.QUOTE_NONE if has_tabs else csv.QUOTE_MINIMAL,
        strict=True,
    )
    while True:
        line = rows.line_num + 1
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield line, BadLineError(f"bad {'TSV' if has_tabs else 'CSV'} ({error})")
            continue
        if bad:
            yield line, bad.pop()
            bad.clear()
        elif row:
            yield line, row


def _table_records(
    path: Path, rows: Iterator[tuple[int, list[str] | BadLineError]]
) -> Iterator[tuple[int, Record | BadLineError]]:
    line, first = next(rows, (0, []))
    if not line:
        return
    where = f"{path}:{line}: the header"
    if isinstance(first, BadLineError):
        raise ValueError(f"{where}: {first}")
    header = [name.strip() for name in first]
    for name in REQUIRED_FIELDS:
        if name not in header:
            raise ValueError(f"{where} has the fields {shown(header)}, expected {name!r} as well")
    if len(set(header)) < len(header):
        raise ValueError(f"{where} has a field twice in {shown(header)}, expected each once")
    for line, row in rows:
        if isinstance(row, BadLineError):
            yield line, row
            continue
        if len(row) != len(header):
            fault = f"{len(row)} fields, expected {len(header)} as in the header"
            yield line, BadLineError(fault)
            continue
        record: Record = dict(zip(header, row, strict=True))
        for name in OPTIONAL_FIELDS:
            if record.get(name) == "":
                del record[name]
        for name in NUMBER_FIELDS:
            # What is no number stays as it is written, and is refused as such; and so does 1_0,
            # which Python would read as 10.
            with suppress(ValueError):
                if "_" not in record.get(name, "_"):
                    record[name] = float(record[name])
        yield line, record
