"""Tables as people's programs write them: what is found out of them, and told."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from asr.data.manifest import Form, Utterance, findings, scan_manifest, utterances
from asr.data.records import MAX_ARRAY_BYTES, BadLineError, read_lines, read_records

ROWS = [("a.wav", "Die Straße ist naß."), ("b.wav", "Größe, \u201eschön\u201c; ja")]


def table(separator: str = ",", header: str = "audio_filepath{}text", end: str = "\r\n") -> str:
    """The rows as a spreadsheet program writes them."""

    def cell(text: str) -> str:
        return f'"{text}"' if separator in text else text

    lines = [header.format(separator), *(separator.join(map(cell, row)) for row in ROWS)]
    return "".join(line + end for line in lines)


def read(path: Path, content: bytes, form: Form | None = None) -> tuple[list[Utterance], list[str]]:
    """The utterances of a file, and what was told of it."""
    path.write_bytes(content)
    told: list[str] = []
    rows = scan_manifest(path, form, told.append)
    assert not findings(rows)
    return utterances(rows), [line.removeprefix(f"{path}: ") for line in told]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("m.csv", table().encode(), []),
        ("m.csv", table().encode("utf-8-sig"), []),
        ("m.tsv", table("\t").encode("utf-8-sig"), []),
        ("m.csv", table(";").encode("utf-8-sig"), ["separated by semicolons"]),
        ("m.csv", ("sep=;\r\n" + table(";")).encode(), ["separated by semicolons"]),
        ("m.csv", table("|").encode(), ["separated by vertical bars"]),
        ("m.csv", table("\t").encode("utf-16"), ["read as utf-16, separated by tabs"]),
        ("m.tsv", table("\t").encode("utf-16-be"), ["read as utf-16-be"]),
        ("m.csv", table().encode("cp1252"), ["read as cp1252"]),
        ("m.csv", table(end="\r").encode(), []),
        ("m.csv", table(end="\r").encode("cp1252"), ["read as cp1252"]),
        (
            "m.CSV",
            table(";", "File Name{}Sentence").encode(),
            ["separated by semicolons, 'File Name' for audio_filepath, 'Sentence' for text"],
        ),
        (
            "m.csv",
            table(header="PATH{}TEXT").encode(),
            ["'PATH' for audio_filepath, 'TEXT' for text"],
        ),
        ("m.csv", re.sub("\r\n", ",,\r\n", table() + ",").encode(), []),
    ],
)
def test_tables_of_any_program(tmp_path: Path, name: str, content: bytes, told: list[str]) -> None:
    found, lines = read(tmp_path / name, content)
    assert [(each.audio_filepath.name, each.text, each.extra) for each in found] == [
        (*row, {}) for row in ROWS
    ]
    assert lines == told


def test_columns_are_those_that_are_asked_for(tmp_path: Path) -> None:
    content = "Datei;text;Satz;Wer;Sekunden\na.wav;roh;Hallo;anna;1,5\n"
    columns = {
        "audio_filepath": "Datei", "text": "satz", "speaker": "Wer", "duration": "Sekunden",
        "id": None,
    }  # fmt: skip
    (one,), _ = read(tmp_path / "m.csv", content.encode(), Form(columns))
    assert (one.text, one.speaker, one.duration) == ("Hallo", "anna", 1.5)
    assert one.extra == {"original_text": "roh"}
    with pytest.raises(ValueError, match=r"m\.csv:1: the header .* expected 'Wort' as well"):
        scan_manifest(tmp_path / "m.csv", Form({**columns, "text": "Wort"}))
    with pytest.raises(
        ValueError, match=r"expected 'audio_filepath' .*corpus\.columns\.audio=NAME"
    ):
        scan_manifest(tmp_path / "m.csv")


def test_recordings_lie_in_the_folder_that_is_named_once(tmp_path: Path) -> None:
    form = Form(audio_folder=tmp_path / "sound")
    (one,), _ = read(tmp_path / "m.csv", b"file,text\na.wav,x\n", form)
    assert one.audio_filepath == tmp_path / "sound" / "a.wav"


def test_paths_of_windows_and_names_of_macos_lead_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "de").mkdir()
    apart, together = "u\u0308.wav", "\u00fc.wav"
    (tmp_path / "de" / apart).touch()
    (tmp_path / "x\\y.wav").touch()
    content = f"audio_filepath,text\nde\\00.wav,x\nx\\y.wav,x\nde/{together},x\n"
    found, _ = read(tmp_path / "m.csv", content.encode())
    paths = [each.audio_filepath.relative_to(tmp_path).as_posix() for each in found]
    assert paths == ["de/00.wav", "x\\y.wav", f"de/{apart}"]


def test_other_code_pages_are_asked_for_and_not_guessed(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    content = "audio_filepath,text\na.wav,привет мир\n".encode("cp1251")
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"m\.csv: neither UTF-8 nor .*corpus\.encoding=cp1251"):
        scan_manifest(path)
    (one,), told = read(path, content, Form(encoding="cp1251"))
    assert (one.text, told) == ("привет мир", [])
    for wrong in ("klingon", "zlib"):
        with pytest.raises(ValueError, match=f"encoding is '{wrong}', expected one of texts"):
            scan_manifest(path, Form(encoding=wrong))
    with pytest.raises(ValueError, match=r"m\.csv: not ascii .*expected a text of one encoding"):
        scan_manifest(path, Form(encoding="ascii"))


def test_excels_quotes_go_from_cells_between_tabs(tmp_path: Path) -> None:
    cells = ['"Sie sagte: ""Ja""."', '"one', 'two"', '"a" and "b"']
    content = "audio_filepath\ttext\n" + "".join(f"{n}.wav\t{c}\n" for n, c in enumerate(cells))
    found, _ = read(tmp_path / "m.tsv", content.encode())
    assert [each.text for each in found] == ['Sie sagte: "Ja".', *cells[1:]]


def test_json_of_others_has_other_names_for_fields(tmp_path: Path) -> None:
    lines = [
        {"path": "a.wav", "sentence": "one", "client_id": "s", "up_votes": 2},
        {"path": "b.wav", "sentence": "two", "duration": 2.0},
    ]
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    found, told = read(tmp_path / "m.jsonl", content)
    assert [(u.id, u.text, u.speaker, u.duration) for u in found] == [
        ("a.wav", "one", "s", None),
        ("b.wav", "two", None, 2.0),
    ]
    assert found[0].extra == {"up_votes": 2}
    assert told == ["'path' for audio_filepath, 'sentence' for text, 'client_id' for speaker"]


def test_a_json_array_is_read_with_its_lines(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    path.write_text('[\n {"audio_filepath": "a.wav",\n  "text": "one"},\n 7,\n {"audio_filepath": '
                    '"b.wav", "text": "two"}\n]\n')  # fmt: skip
    good, bad = utterances(rows := scan_manifest(path)), findings(rows)
    assert [(each.text, each.line) for each in good] == [("one", 2), ("two", 5)]
    assert [(each.line, each.reason) for each in bad] == [
        (4, "7 is no JSON object, expected {...}")
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "holds no utterances"),
        (
            '[{"audio_filepath": "a", "text": "x"}',
            r"json:1: bad JSON \('' in an array\), expected ','",
        ),
        ('[{"a": 1}\n{"b": 2}]', r"json:2: bad JSON \('{' in an array\), expected ','"),
        ('[{"a": }]', r"json:1: bad JSON in an array \(Expecting value\)"),
        ("[" * 100_000, "json:1: bad JSON in an array"),
        ('[{"a": 1}] {}', "more behind the end of its JSON array"),
    ],
)
def test_a_damaged_array_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "m.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        scan_manifest(path)
    assert "\n" not in str(caught.value)


def test_what_is_read_whole_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    with open(path, "wb") as file:
        file.write(b"[")
        file.truncate(MAX_ARRAY_BYTES + 2)
    with pytest.raises(ValueError, match=f"more than {MAX_ARRAY_BYTES} bytes"):
        list(read_records(path))


def test_lines_of_any_text(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    told: list[str] = []
    path.write_bytes("für\r\n\r\nTür".encode("cp1252"))
    assert list(read_lines(path, "a text", told=told)) == [(1, "für"), (2, ""), (3, "Tür")]
    assert told == ["read as cp1252"]
    path.write_bytes("é\n".encode() + b"\xff\n" + "ü\n".encode())
    lines = [line for _, line in read_lines(path, "a text")]
    assert (lines[0], lines[2]) == ("é", "ü")
    assert isinstance(lines[1], BadLineError)


def test_the_spreadsheets_of_people(speech_cases: Path) -> None:
    folder = speech_cases / "import-formats" / "spreadsheet"
    names = ["comma", "comma_bom", "HEAD", "backslash", "cp1252", "mac_cr", "semi_bom", "utf16"]
    files = [folder / f"{name}.csv" for name in names] + [
        folder / "excel.tsv",
        folder / "utf16.tsv",
    ]
    for path in files:
        rows = scan_manifest(path, notice=lambda line: None)
        assert [each.text for each in utterances(rows)] == [
            "Die Straße ist naß.", "Grüße aus Köln, schöne Grüße!",
            'Sie sagte: "Übermorgen".',
        ], path.name  # fmt: skip
        assert all(each.audio_filepath.is_file() for each in utterances(rows)), path.name
