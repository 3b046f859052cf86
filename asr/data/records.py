"""Files of records: JSON lines, a JSON array, or a table as people's programs write it.

A table's encoding, separator and columns are found out, and told where they are not the plain ones:
UTF-8, the separator of its suffix, the names that a manifest has.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import IO, Any, NoReturn

from asr.data.workbook import read_workbook
from asr.untrusted import MAX_LINE_BYTES, HasBytes, lines, open_regular, read_stream, shown

JSON_SUFFIXES = (".jsonl", ".json")
WORKBOOK_SUFFIX = ".xlsx"
TABLE_SUFFIXES = (".csv", ".tsv", WORKBOOK_SUFFIX)
OTHER_WORKBOOKS = (".xls", ".xlsm", ".xlsb", ".ods", ".numbers")
REQUIRED_FIELDS = ("audio_filepath", "text")
NUMBER_FIELDS = ("duration", "offset", "channel")
# What others call the fields, in the order of preference; case, blanks and hyphens do not matter.
FIELD_NAMES = {
    "audio_filepath": (
        "audio_filepath", "audio_path", "audio_file", "path", "file_path", "filepath", "file_name",
        "filename", "file", "audio", "wav", "wav_filename", "recording",
    ),
    "text": ("text", "sentence", "transcript", "transcription"),
    "speaker": ("speaker", "speaker_id", "client_id"),
    "id": ("id", "utterance_id", "utt_id"),
    "duration": ("duration", "duration_s"),
    "offset": ("offset", "offset_s"),
    "channel": ("channel",),
}  # fmt: skip
OPTIONAL_FIELDS = tuple(field for field in FIELD_NAMES if field not in REQUIRED_FIELDS)
TAB = "\t"
SEPARATORS = {",": "commas", ";": "semicolons", TAB: "tabs", "|": "vertical bars"}
QUOTING_SEPARATORS = ",;"
UTF_8, WESTERN = "utf-8", "cp1252"
# cp1252 is a guess that holds where accented letters stand among others, one or two in a row; of
# Greek, Russian or Chinese by their own code pages whole words are such bytes.
MAX_ACCENTED_RUN = 2.0  # bytes in a row, on average
MAX_SCANNED_BYTES = 1 << 28  # 256 MiB that are looked through for what is no UTF-8
MAX_ARRAY_BYTES = 1 << 28  # 256 MiB of a JSON array, which is read whole
HEAD_BYTES = 1 << 20  # by which an encoding and the ends of lines are known
BLOCK_BYTES = 1 << 16
_BOMS = {
    codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32", codecs.BOM_UTF8: UTF_8,
    codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16",
}  # fmt: skip
_BLANKS = re.compile(r"[ \t\r\n]*")

Record = dict[str, Any]
Lines = Iterator[tuple[int, bytes]]
Columns = Mapping[str, str | None]  # the names of columns by the field that they stand for


class BadLineError(ValueError):
    """A line that cannot be used; the message is the reason."""


Cells = Iterator[tuple[int, list[str] | BadLineError]]
Records = Iterator[tuple[int, Record | BadLineError]]


def read_records(
    path: Path,
    columns: Columns | None = None,
    encoding: str | None = None,
    notice: Callable[[str], None] = lambda line: None,
) -> Records:
    """Read a file record by record, without believing that it is what its name says.

    Args:
        path: a regular file whose name ends in one of JSON_SUFFIXES or TABLE_SUFFIXES.
        columns: names of columns by field; what is not named is found by FIELD_NAMES.
        encoding: as Python calls it; None finds it out.
        notice: told in a line what was found out, where it is not the plain.

    Yields:
        Line number from 1, and the record's fields or why there are none. Empty lines are passed
        over. In tables, empty optional fields are left out and numbers are numbers.

    Raises:
        ValueError: for another name, something that is not a regular file, a bad header, an
            encoding that does not fit, or no end of empty lines.
        OSError: missing or unreadable.
    """
    suffix = path.suffix.lower()
    if suffix not in (*JSON_SUFFIXES, *TABLE_SUFFIXES):
        expected = ", ".join((*JSON_SUFFIXES, *TABLE_SUFFIXES))
        hint = "; save it as one of them" if suffix in OTHER_WORKBOOKS else ""
        raise ValueError(
            f"{path}: not a manifest's name, expected one that ends in {expected}{hint}"
        )
    is_table = suffix in TABLE_SUFFIXES
    told: list[str] = []
    if suffix == WORKBOOK_SUFFIX:
        if encoding is not None:
            raise ValueError(f"{path}: a workbook says its encoding itself, expected none for it")
        cells: Cells = iter(read_workbook(path, told))
        yield from _noticed(path, _table_records(path, cells, columns or {}, told), told, notice)
        return
    with open_regular(path, "a manifest") as file:
        text = as_utf8(file, path, encoding, told, may_guess=is_table)
        if is_table:
            rows = _table_rows(lines(text, path), suffix, columns or {}, told)
            records = _table_records(path, rows, columns or {}, told)
        elif text.peek(BLOCK_BYTES).removeprefix(codecs.BOM_UTF8).lstrip()[:1] == b"[":
            records = _json_array(text, path)
        else:
            records = json_records(lines(text, path))
        if not is_table:
            records = _renamed(records, columns or {}, told)
        yield from _noticed(path, records, told, notice)


def _noticed(
    path: Path, records: Records, told: list[str], notice: Callable[[str], None]
) -> Records:
    for number, record in records:
        if told:
            notice(f"{path}: {', '.join(told)}")
            told.clear()
        yield number, record


# --- encodings ---------------------------------------------------------------------------------


def as_utf8(
    file: io.BufferedReader[Any],
    where: object,
    encoding: str | None,
    told: list[str],
    *,
    may_guess: bool,
) -> io.BufferedReader[Any]:
    """A file's text as UTF-8, its lines ended by line feeds.

    Args:
        file: a regular file at its beginning.
        where: names it in messages.
        encoding: as Python calls it; None finds it out by a byte order mark, by the zeros of
            UTF-16, or by what is no UTF-8.
        told: gets what was found out, where it is not UTF-8.
        may_guess: whether what is no UTF-8 may be Windows' Western European code page.

    Raises:
        ValueError: an encoding that Python has not, or none that fits; from reading, too.
    """
    head = file.read(HEAD_BYTES)
    file.seek(0)
    found = encoding
    if encoding is not None:
        try:
            b"a".decode(encoding, "replace")  # refuses codecs that are none of texts, as of zlib
        except LookupError:
            raise ValueError(
                f"encoding is {shown(encoding)}, expected one of texts that Python knows, "
                "as cp1250, cp1251 or shift_jis"
            ) from None
    else:
        bom = next((bom for bom in _BOMS if head.startswith(bom)), None)
        found = _BOMS[bom] if bom else _utf16_by_zeros(head)
    if found is None:
        found = _utf8_or_western(file, where) if may_guess else UTF_8
        file.seek(0)
    if found != UTF_8 and encoding is None:
        told.append(f"read as {found}")
    if found == UTF_8 and (b"\n" in head or b"\r" not in head):
        return file  # the lines of others end in carriage returns alone
    return io.BufferedReader(_Recoded(file, where, found), BLOCK_BYTES)


def _utf16_by_zeros(head: bytes) -> str | None:
    """UTF-16 without a byte order mark: every other byte of its ASCII characters is zero."""
    for encoding, zeros, others in (
        ("utf-16-le", head[1::2], head[::2]),
        ("utf-16-be", head[::2], head[1::2]),
    ):
        if zeros.count(0) > max(0.3 * len(zeros), 1) and not others.count(0):
            return encoding
    return None


def _utf8_or_western(file: IO[bytes], where: object) -> str:
    """UTF-8 or cp1252, by all bytes."""
    good = bad = runs = num_bytes = 0
    rest = b""
    while (block := file.read(HEAD_BYTES)) and num_bytes < MAX_SCANNED_BYTES:
        num_bytes += len(block)
        block = rest + block
        # The last character may go on in the next block; what is longer is none.
        cut = len(block) - next(
            n for n in range(4) if n == 3 or block[-1 - n : len(block) - n] < b"\x80"
        )
        block, rest = block[:cut], block[cut:]
        # Most blocks are ASCII alone, which is known at once.
        for run in [] if block.isascii() else re.findall(rb"[\x80-\xff]+", block):
            try:
                good += len(run.decode())
            except UnicodeDecodeError:
                bad, runs = bad + len(run), runs + 1
    if bad <= 10 * good:
        return UTF_8
    if bad > MAX_ACCENTED_RUN * runs:
        raise ValueError(
            f"{where}: neither UTF-8 nor a Western European code page by its letters, expected "
            "UTF-8 (asr prepare takes others: corpus.encoding=cp1251, for instance)"
        )
    return WESTERN


class _Recoded(io.RawIOBase):
    """A file of another encoding, or with other line ends, as UTF-8 with line feeds."""

    def __init__(self, file: io.BufferedReader[Any], where: object, encoding: str) -> None:
        self._file, self._where, self._encoding = file, where, encoding
        # What is no UTF-8 stays what it is, and is a bad line for who reads on.
        self._errors = "surrogateescape" if encoding == UTF_8 else "surrogatepass"
        decoder = codecs.getincrementaldecoder(encoding)(self._errors)
        self._decoder = io.IncrementalNewlineDecoder(decoder, translate=True)
        self._left = b""

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, target: Any) -> int:
        """Fill a buffer; how many bytes there were for it."""
        while not self._left:
            block = self._file.read(BLOCK_BYTES)
            try:
                text = self._decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{self._where}: not {self._encoding} ({error.reason}), expected a text of "
                    "one encoding throughout"
                ) from error
            self._left = text.encode(errors=self._errors)
            if not block:
                break
        count = min(len(target), len(self._left))
        target[:count], self._left = self._left[:count], self._left[count:]
        return count


# --- JSON --------------------------------------------------------------------------------------


def json_records(raw_lines: Lines) -> Records:
    """`read_records` of the lines of a file of JSON, as `asr.untrusted.lines` gives them."""
    for number, line in texts(raw_lines):
        if isinstance(line, BadLineError):
            yield number, line
        elif line.strip():
            try:
                yield number, _parse_json(line.rstrip())
            except BadLineError as error:
                yield number, error


def read_lines(
    path: Path, expected: str, encoding: str | None = None, told: list[str] | None = None
) -> Iterator[tuple[int, str | BadLineError]]:
    """Read a text that is no table line by line, in whatever encoding it is.

    Args:
        path: a regular file.
        expected: what should be there, for messages.
        encoding: as Python calls it; None finds it out.
        told: gets what was found out, where it is not UTF-8.

    Yields:
        Line number from 1, and the line without its end, or why it is none; empty ones too.

    Raises:
        ValueError: not a regular file, or an encoding that does not fit.
        OSError: missing or unreadable.
    """
    with open_regular(path, expected) as file:
        text = as_utf8(file, path, encoding, [] if told is None else told, may_guess=True)
        for number, line in texts(lines(text, path)):
            yield number, line if isinstance(line, BadLineError) else line.rstrip("\r\n")


def texts(raw_lines: Lines) -> Iterator[tuple[int, str | BadLineError]]:
    """The lines of a file as text, or why they are none."""
    for number, raw in raw_lines:
        if len(raw) > MAX_LINE_BYTES:
            yield number, BadLineError(f"longer than {MAX_LINE_BYTES} bytes, expected less")
            continue
        raw = raw.removeprefix(codecs.BOM_UTF8) if number == 1 else raw
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


def _json_array(file: HasBytes, path: Path) -> Records:
    """The objects of a file that is one JSON array, each by the line on which it begins."""
    raw = read_stream(file, path, "a JSON array; JSON lines may be longer", MAX_ARRAY_BYTES)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 at byte {error.start}, expected a manifest") from error
    decoder, place, line, separator = json.JSONDecoder(), 0, 1, "["
    while True:
        place = _behind_blanks(text, place)
        found = text[place : place + 1]
        if found == "]" and separator == ",":
            break
        if found != separator:
            line = text.count("\n", 0, place) + 1
            raise ValueError(
                f"{path}:{line}: bad JSON ({shown(found)} in an array), expected {separator!r}"
            )
        start = _behind_blanks(text, place + 1)
        line += text.count("\n", place, start)
        separator = ","
        if text[start : start + 1] == "]":  # of an empty array, or behind a comma too many
            place = start
            break
        try:
            _, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            raise ValueError(f"{path}:{line}: bad JSON in an array ({reason})") from error
        try:
            yield line, _parse_json(text[start:end])
        except BadLineError as error:
            yield line, error
        line += text.count("\n", start, end)
        place = end
    if text[place + 1 :].strip():
        raise ValueError(f"{path}: more behind the end of its JSON array, expected nothing")


def _behind_blanks(text: str, place: int) -> int:
    found = _BLANKS.match(text, place)
    assert found is not None, "blanks or none"
    return found.end()


def _renamed(records: Records, columns: Columns, told: list[str]) -> Records:
    """Records of JSON with the fields' own names, which the first that has all decides."""
    decided: dict[str, str] | None = None
    for number, record in records:
        if isinstance(record, BadLineError):
            yield number, record
            continue
        found = decided or _found_names(list(record), columns)
        if decided is None and set(found.values()).issuperset(REQUIRED_FIELDS):
            decided = found
            told += _told_names(found)
        yield number, _with_fields(record, found)


# --- tables ------------------------------------------------------------------------------------


def _table_rows(raw_lines: Lines, suffix: str, columns: Columns, told: list[str]) -> Cells:
    """The cells of each row that is not empty, the header first."""
    bad: list[BadLineError] = []

    def decoded() -> Iterator[str]:
        for _, line in texts(raw_lines):
            if isinstance(line, BadLineError):
                bad.append(line)
            # An error raised here would end the reading; csv passes over empty lines.
            yield "\n" if isinstance(line, BadLineError) else line

    texts_of_lines = decoded()
    first, skipped = "", 0
    for first in texts_of_lines:
        if first.strip() or bad:
            break
        skipped += 1
    plain = TAB if suffix == ".tsv" else ","
    asked = re.fullmatch(r"sep=(.)\s*", first)  # Excel's own, for other programs
    if asked:
        separator, skipped, first = asked[1], skipped + 1, next(texts_of_lines, "")
    else:
        separator = _separator_of(first, plain, columns)
    if separator != plain:
        told.append(f"separated by {SEPARATORS.get(separator, shown(separator))}")
    is_quoted = separator in QUOTING_SEPARATORS
    rows = csv.reader(
        chain([first], texts_of_lines),
        delimiter=separator,
        quoting=csv.QUOTE_MINIMAL if is_quoted else csv.QUOTE_NONE,
        strict=True,
    )
    while True:
        line = skipped + rows.line_num + 1
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield line, BadLineError(f"bad {'TSV' if separator == TAB else 'CSV'} ({error})")
            continue
        if bad:
            yield line, bad.pop()
            bad.clear()
        elif any(row):
            yield line, row if is_quoted else [_unquoted(cell) for cell in row]


def _separator_of(header: str, plain: str, columns: Columns) -> str:
    """The separator that shows most of the required fields in a header, then most columns."""

    def found(separator: str) -> tuple[int, int]:
        try:
            cells = next(csv.reader([header], delimiter=separator), [])
        except csv.Error:
            cells = [header]
        names = _found_names(cells, columns)
        return sum(field in names.values() for field in REQUIRED_FIELDS), len(cells)

    return max([plain, *(each for each in SEPARATORS if each != plain)], key=found)


def _unquoted(cell: str) -> str:
    """A cell without the quotes that Excel puts around it; other quotes are part of a text."""
    if re.fullmatch(r'"(?:[^"]|"")*"', cell):
        return cell[1:-1].replace('""', '"')
    return cell


def _table_records(path: Path, rows: Cells, columns: Columns, told: list[str]) -> Records:
    line, first = next(rows, (0, []))
    if not line:
        return
    where = f"{path}:{line}: the header"
    if isinstance(first, BadLineError):
        raise ValueError(f"{where}: {first}")
    header = [name.strip() for name in first]
    while header and not header[-1]:  # behind a separator at the end of every line
        header.pop()
    if len(set(header)) < len(header):
        raise ValueError(f"{where} has a field twice in {shown(header)}, expected each once")
    found = _found_names(header, columns)
    _check_names(found, header, columns, where)
    told += _told_names(found)
    for line, row in rows:
        if isinstance(row, BadLineError):
            yield line, row
            continue
        while len(row) > len(header) and not row[-1]:
            row.pop()
        if len(row) != len(header):
            fault = f"{len(row)} fields, expected {len(header)} as in the header"
            yield line, BadLineError(fault)
            continue
        record = _with_fields(dict(zip(header, row, strict=True)), found)
        for name in OPTIONAL_FIELDS:
            if record.get(name) == "":
                del record[name]
        for name in NUMBER_FIELDS:
            if name in record:
                record[name] = _number(record[name])
        yield line, record


def _number(cell: str) -> float | str:
    """What is no number stays as it is written, and is refused as such."""
    # Python would read 1_0 as 10; half of Europe writes 1,5.
    written = re.sub(r"(\d),(\d)", r"\1.\2", cell)
    with suppress(ValueError):
        return cell if "_" in cell else float(written)
    return cell


# --- names of fields ---------------------------------------------------------------------------


def _found_names(names: Sequence[str], columns: Columns) -> dict[str, str]:
    """The fields, by the names that columns have for them, as far as there are any."""
    by_key: dict[str, str] = {}
    for name in names:
        by_key.setdefault(_key(name), name)
    found: dict[str, str] = {}
    for field, asked in columns.items():
        if asked is not None:
            there = [asked] if asked in names else [by_key.get(_key(asked))]
            found |= {name: field for name in there if name is not None}
    for field, known in FIELD_NAMES.items():
        if columns.get(field) is None:
            candidates = (by_key.get(key) for key in known)
            if first := next((each for each in candidates if each and each not in found), None):
                found[first] = field
    return found


def _key(name: str) -> str:
    return re.sub(r"[\s-]+", "_", name.strip().lower())


def _check_names(found: Mapping[str, str], names: Sequence[str], columns: Columns, at: str) -> None:
    """Refuse a header without a column that is asked for, or that every manifest needs."""
    for field, asked in columns.items():
        if asked is not None and field not in found.values():
            raise ValueError(f"{at} has the fields {shown(names)}, expected {asked!r} as well")
    for field in REQUIRED_FIELDS:
        if field not in found.values():
            others = ", ".join(FIELD_NAMES[field][1:])
            setting = f"corpus.columns.{'audio' if field == 'audio_filepath' else field}"
            raise ValueError(
                f"{at} has the fields {shown(names)}, expected {field!r} as well (or one of "
                f"{others}; asr prepare takes any other: {setting}=NAME)"
            )


def _told_names(found: Mapping[str, str]) -> list[str]:
    return [f"{shown(name)} for {field}" for name, field in found.items() if name != field]


def _with_fields(record: Record, found: Mapping[str, str]) -> Record:
    """A record by the fields' names; a column whose name another one stands for gets a new one."""
    taken = set(found.values())
    return {
        found.get(name) or (f"original_{name}" if name in taken else name): value
        for name, value in record.items()
    }
