"""Excel's workbooks as rows of cells, read by openpyxl within bounds.

A workbook is a zip of XML, and may be anybody's: it is unpacked once, counted and looked through
for entities before openpyxl sees it. Formulas and macros are not run: a cell has the value that was
saved.
"""

from __future__ import annotations

import io
import re
import warnings
import zipfile
import zlib
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from asr.data.archive import check_zip_directory
from asr.untrusted import read_bytes, shown

NEEDS = "pip install 'lstm-asr[table]'"
MAX_FILE_BYTES = 1 << 26  # 64 MiB; a hundred thousand rows take 3 to 5
MAX_UNPACKED_BYTES = 1 << 28  # 256 MiB of XML: half a million rows of four columns
MAX_MEMBERS = 10_000
MAX_ROWS = 1 << 20  # Excel's own limit
MAX_ROWS_ABOVE = 1000  # empty ones above the header
MAX_COLUMNS = 256
COLUMNS_BESIDE = 8  # without a header, in which something too much is seen
BLOCK_BYTES = 1 << 20
_ENCODING = re.compile(rb"""^<\?xml[^>]*encoding\s*=\s*["']([\w.-]*)""")


def read_workbook(path: Path, told: list[str]) -> list[tuple[int, list[str]]]:
    """Read the first sheet of a workbook, formulas by their last values.

    Args:
        path: of an .xlsx file.
        told: gets the sheet's name, where there are several.

    Returns:
        Number, from 1, and cells of each row that is not empty; empty cells behind the last.

    Raises:
        ValueError: openpyxl is missing, or the file is damaged, hostile or too large.
        OSError: missing or unreadable.
    """
    try:
        import openpyxl
    except ImportError as error:
        raise ValueError(
            f"{path}: needs openpyxl ({NEEDS}), or to be saved as CSV by its own program"
        ) from error
    content = read_bytes(path, "a workbook", MAX_FILE_BYTES)
    _check_parts(path, content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of styles and extensions, which are not asked for
            book: Any = openpyxl.load_workbook(
                io.BytesIO(content), read_only=True, data_only=True, keep_links=False
            )
            sheets = [each for each in book.worksheets if each.sheet_state == "visible"]
            sheet = (sheets or book.worksheets)[0]
            # The limits are given: else those that a sheet says of itself would hold, often wrong.
            top = sheet.iter_rows(1, MAX_ROWS_ABOVE, 1, MAX_COLUMNS, values_only=True)
            header: Sequence[Any] = next((cells for cells in top if any(cells)), ())
            width = max((n for n, cell in enumerate(header, 1) if cell is not None), default=0)
            rows = [
                (number, [*map(_text, cells)])
                for number, cells in enumerate(
                    sheet.iter_rows(1, MAX_ROWS, 1, width + COLUMNS_BESIDE, values_only=True), 1
                )
                if any(cell is not None for cell in cells)
            ]
    except Exception as error:  # whatever a library says of damage: KeyError, TypeError, ParseError
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(f"{path}: damaged workbook ({reason[:200]})") from error
    if len(book.worksheets) > 1:
        told.append(f"sheet {shown(sheet.title)}, the first of {len(book.worksheets)}")
    return rows


def _text(value: object) -> str:
    """A cell as the person who wrote it would write it in a text."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    written = value.isoformat() if isinstance(value, date) else str(value).strip()
    return written.removesuffix("T00:00:00")


def _check_parts(path: Path, content: bytes) -> None:
    """Refuse what unpacks to too much, or holds XML that may mean more than it says.

    Raises:
        ValueError: it does.
    """
    file = io.BytesIO(content)
    check_zip_directory(path, file, MAX_MEMBERS)
    left = MAX_UNPACKED_BYTES
    try:
        with zipfile.ZipFile(file) as archive:
            for info in archive.infolist():
                with archive.open(info) as part:
                    tail = b""
                    while block := part.read(BLOCK_BYTES):
                        left -= len(block)
                        if left < 0:
                            raise ValueError(
                                f"{path}: unpacks to more than {MAX_UNPACKED_BYTES} bytes, "
                                "expected a smaller workbook, or a table saved as CSV"
                            )
                        is_first, whole = not tail, tail + block
                        _check_part(path, info.filename, whole, is_first)
                        tail = whole[-len(b"<!DOCTYPE") :]
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"{path}: damaged workbook ({error}), expected .xlsx") from error


def _check_part(path: Path, name: str, block: bytes, is_first: bool) -> None:
    """Refuse declarations, in which entities stand that can grow without end, and hiding them."""
    if is_first and name.endswith((".xml", ".rels")):
        encoding = _ENCODING.match(block.removeprefix(b"\xef\xbb\xbf"))
        is_utf8 = encoding is None or encoding[1].lower() in (b"utf-8", b"utf8", b"us-ascii")
        if not is_utf8 or b"\0" in block[:4] or block[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise ValueError(f"{path}: {shown(name)} is not UTF-8, expected a workbook of Excel's")
    if b"<!DOCTYPE" in block or b"<!ENTITY" in block:
        raise ValueError(
            f"{path}: {shown(name)} declares a document type, expected a workbook without, or a "
            "table saved as CSV"
        )
