"""Excel's workbooks as manifests, and those that are made to do harm."""

from __future__ import annotations

import datetime
import sys
import zipfile
from pathlib import Path

import pytest

from asr.data import workbook
from asr.data.manifest import Form, scan_manifest, utterances

openpyxl = pytest.importorskip("openpyxl", reason="openpyxl is an extra")


def write(path: Path, *rows: list[object], sheets: tuple[str, ...] = ()) -> Path:
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    for title in sheets:
        book.create_sheet(title)
    book.save(path)
    return path


def replaced(path: Path, part: str, old: bytes, new: bytes) -> None:
    """Change a part of a workbook."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    assert old in parts[part]
    parts[part] = parts[part].replace(old, new, 1)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


def test_a_workbook_is_a_table(tmp_path: Path) -> None:
    path = write(
        tmp_path / "m.xlsx",
        [None, None],
        ["File", "Sentence", "Speaker", "Duration", "when", "n", None],
        ["a.wav", "Die Stra\u00dfe", 7.0, 1.5, datetime.date(2024, 5, 1), True],
        [],
        ["b.wav", 12, "eve", None, None, None],
        sheets=("notes",),
    )
    told: list[str] = []
    first, second = utterances(scan_manifest(path, notice=told.append))
    assert (first.text, first.speaker, first.duration, first.line) == (
        "Die Stra\u00dfe",
        "7",
        1.5,
        3,
    )
    assert first.extra == {"when": "2024-05-01", "n": "true"}
    assert (second.text, second.speaker, second.line) == ("12", "eve", 5)
    assert told == [
        f"{path}: sheet 'Sheet', the first of 2, 'File' for audio_filepath, 'Sentence' for text, "
        "'Speaker' for speaker, 'Duration' for duration"
    ]


def test_what_a_sheet_says_of_its_size_is_not_believed(tmp_path: Path) -> None:
    path = write(tmp_path / "m.xlsx", ["file", "text"], ["a.wav", "one"], ["b.wav", "two"])
    replaced(path, "xl/worksheets/sheet1.xml", b'ref="A1:B3"', b'ref="A1:A2"')
    assert [each.text for each in utterances(scan_manifest(path))] == ["one", "two"]


def test_a_header_without_recordings_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "m.xlsx", ["Datei", "text"], ["a.wav", "one"])
    with pytest.raises(ValueError, match=r"m\.xlsx:1: the header has .* expected 'audio_filepath'"):
        scan_manifest(path)
    assert len(scan_manifest(path, Form({"audio_filepath": "Datei"}))) == 1
    with pytest.raises(ValueError, match="a workbook says its encoding itself"):
        scan_manifest(path, Form(encoding="cp1252"))
    with pytest.raises(
        ValueError, match=r"m\.xls: not a manifest's name.*; save it as one of them"
    ):
        scan_manifest(tmp_path / "m.xls")


def test_what_is_no_workbook_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.xlsx"
    for content in (b"", b"file,text\n", b"PK\3\4" + b"x" * 100):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"m\.xlsx: damaged archive"):
            scan_manifest(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "x")
    with pytest.raises(ValueError, match=r"m\.xlsx: damaged workbook \(KeyError"):
        scan_manifest(path)
    write(path, ["file", "text"], ["a.wav", "one"])
    replaced(path, "xl/worksheets/sheet1.xml", b"</sheetData>", b"<")
    with pytest.raises(ValueError, match=r"m\.xlsx: damaged workbook \(ParseError"):
        scan_manifest(path)


def test_entities_are_refused(tmp_path: Path) -> None:
    part = "xl/worksheets/sheet1.xml"
    bomb = b'<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><worksheet'
    path = write(tmp_path / "m.xlsx", ["file", "text"], ["a.wav", "one"])
    replaced(path, part, b"<worksheet", bomb)
    with pytest.raises(ValueError, match=r"sheet1\.xml' declares a document type"):
        scan_manifest(path)
    for encoding in ("utf-16", "cp037"):
        write(path, ["file", "text"], ["a.wav", "one"])
        head = f"<?xml version='1.0' encoding='{encoding}'?>"
        replaced(path, part, b"<worksheet", f"{head}<worksheet".encode())
        with pytest.raises(ValueError, match=r"sheet1\.xml' is not UTF-8"):
            scan_manifest(path)


def test_bombs_are_refused_before_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workbook, "MAX_UNPACKED_BYTES", 1 << 20)
    path = write(tmp_path / "m.xlsx", ["file", "text"], ["a.wav", "one"])
    replaced(path, "xl/worksheets/sheet1.xml", b"</sheetData>", b"</sheetData>" + b" " * (1 << 21))
    assert path.stat().st_size < 1 << 16
    with pytest.raises(ValueError, match="unpacks to more than 1048576 bytes"):
        scan_manifest(path)
    monkeypatch.setattr(workbook, "MAX_FILE_BYTES", 1 << 10)
    with pytest.raises(ValueError, match="expected a workbook of at most 1024"):
        scan_manifest(path)


def test_far_cells_take_no_time_and_no_memory(tmp_path: Path) -> None:
    path = write(tmp_path / "m.xlsx", ["file", "text"], ["a.wav", "one"])
    far = b'<row r="999999999"><c r="XFD999999999"><v>1</v></c></row></sheetData>'
    replaced(path, "xl/worksheets/sheet1.xml", b"</sheetData>", far)
    assert len(scan_manifest(path)) == 1


def test_without_openpyxl_the_way_out_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    (tmp_path / "m.xlsx").touch()
    with pytest.raises(
        ValueError, match=r"needs openpyxl \(pip install 'lstm-asr\[table\]'\), or to be"
    ):
        scan_manifest(tmp_path / "m.xlsx")
