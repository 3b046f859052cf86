"""The lines of a manifest file as records of named fields: JSON lines, CSV and TSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from asr.untrusted import MAX_LINE_BYTES, lines, open_regular, shown

JSON_SUFFIXES = (".jsonl", ".json")
TABLE_SUFFIXES = (".csv", ".tsv")
MANIFEST_SUFFIXES = JSON_SUFFIXES + TABLE_SUFFIXES
REQUIRED_FIELDS = ("audio_filepath", "text")
NUMBER_FIELDS = ("duration", "offset")
OPTIONAL_FIELDS = ("duration", "id", "speaker", "offset")
_BOM = b"\xef\xbb\xbf"

Record = dict[str, Any]
Lines = Iterator[tuple[int, bytes]]


class BadLineError(ValueError):
    """A line that cannot be used; the message is the reason."""


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
        yield from json_records(raw) if suffix in JSON_SUFFIXES else _table_records(path, raw)


def _texts(raw_lines: Lines) -> Iterator[tuple[int, str | BadLineError]]:
    for number, raw in raw_lines:
        if len(raw) > MAX_LINE_BYTES:
            yield number, BadLineError(f"longer than {MAX_LINE_BYTES} bytes, expected less")
        else:
            yield number, _decode(raw.removeprefix(_BOM) if number == 1 else raw)


def _decode(raw: bytes) -> str | BadLineError:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        return BadLineError(f"byte 0x{raw[error.start]:02x} at {error.start + 1}, expected UTF-8")


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


def _parse_json(line: str) -> Record:
    try:
        record = json.loads(line, parse_constant=_refuse_constant, object_pairs_hook=_unique)
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


def _refuse_constant(name: str) -> NoReturn:
    raise BadLineError(f"bad JSON ({name} is no JSON number)")


def _unique(pairs: list[tuple[str, Any]]) -> Record:
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise BadLineError(f"field {shown(twice)} occurs twice, expected once")
    return record


def _table_records(path: Path, raw_lines: Lines) -> Iterator[tuple[int, Record | BadLineError]]:
    header: list[str] | None = None
    for line, row in _rows(raw_lines, tabs=path.suffix.lower() == ".tsv"):
        if header is None and isinstance(row, BadLineError):
            raise ValueError(f"{path}:{line}: the header: {row}")
        if isinstance(row, BadLineError):
            yield line, row
        elif header is None:
            header = _check_header(path, line, row)
        else:
            yield line, _table_record(header, row)


def _rows(raw_lines: Lines, *, tabs: bool) -> Iterator[tuple[int, list[str] | BadLineError]]:
    bad: list[BadLineError] = []

    def decoded() -> Iterator[str]:
        for _, line in _texts(raw_lines):
            if isinstance(line, BadLineError):
                bad.append(line)
            # An error raised here would end the reading; csv passes over empty lines.
            yield "\n" if isinstance(line, BadLineError) else line

    rows = csv.reader(
        decoded(),
        delimiter="\t" if tabs else ",",
        quoting=csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL,
        strict=True,
    )
    while True:
        line = rows.line_num + 1
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield line, BadLineError(f"bad {'TSV' if tabs else 'CSV'} ({error})")
            continue
        if bad:
            yield line, bad.pop()
            bad.clear()
        elif row:
            yield line, row


def _check_header(path: Path, line: int, row: list[str]) -> list[str]:
    header = [name.strip() for name in row]
    where = f"{path}:{line}: the header"
    for name in REQUIRED_FIELDS:
        if name not in header:
            raise ValueError(f"{where} has the fields {shown(header)}, expected {name!r} as well")
    if len(set(header)) < len(header):
        raise ValueError(f"{where} has a field twice in {shown(header)}, expected each once")
    return header


def _table_record(header: list[str], row: list[str]) -> Record | BadLineError:
    if len(row) != len(header):
        return BadLineError(f"{len(row)} fields, expected {len(header)} as in the header")
    record: Record = dict(zip(header, row, strict=True))
    for name in OPTIONAL_FIELDS:
        if record.get(name) == "":
            del record[name]
    for name in NUMBER_FIELDS:
        try:
            # Python would read 1_0 as 10.
            if name in record and "_" not in record[name]:
                record[name] = float(record[name])
        except ValueError:
            return BadLineError(f"{name} is {shown(record[name])}, expected a number of seconds")
    return record
