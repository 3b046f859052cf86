"""Manifests: what is read, what is refused and with which words, and that writing is atomic."""

from __future__ import annotations

import json
import os
import pickle
import re
from pathlib import Path

import pytest

from asr.data.manifest import (
    Utterance,
    describe_bad_lines,
    findings,
    manifest_bytes,
    read_manifest,
    scan_manifest,
    utterances,
    write_manifest,
)
from asr.untrusted import MAX_LINE_BYTES

GOOD = '{"audio_filepath": "a.wav", "text": "one"}'


def manifest(folder: Path, content: str | bytes, name: str = "train.jsonl") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_every_field_of_a_json_line(tmp_path: Path) -> None:
    line = {
        "audio_filepath": "audio/a.wav",
        "duration": 2.5,
        "text": "caf\u00e9",
        "id": "u1",
        "speaker": "s1",
        "offset": 1.25,
        "channel": 1,
        "engine": {"name": "x", "rate": [1, None]},
    }
    path = manifest(tmp_path, json.dumps(line))
    assert read_manifest(path) == [
        Utterance(
            audio_filepath=tmp_path / "audio" / "a.wav",
            text="caf\u00e9",
            duration=2.5,
            id="u1",
            speaker="s1",
            offset=1.25,
            channel=1,
            extra={"engine": {"name": "x", "rate": [1, None]}},
        )
    ]


def test_what_may_be_missing(tmp_path: Path) -> None:
    path = manifest(tmp_path, '{"audio_filepath": "/abs/a.wav", "text": "", "duration": null}\n')
    (utterance,) = read_manifest(path)
    assert utterance == Utterance(Path("/abs/a.wav"), "", None, "/abs/a.wav")


def test_default_ids_are_the_path_as_written_and_the_offset(tmp_path: Path) -> None:
    lines = [{"audio_filepath": "a.wav", "text": "x", "offset": o} for o in (0, 1.5, 20)]
    path = manifest(tmp_path, "\n".join(map(json.dumps, lines)))
    assert [u.id for u in read_manifest(path)] == ["a.wav", "a.wav@1.5", "a.wav@20"]


def test_each_channel_of_a_file_is_an_utterance_of_its_own(tmp_path: Path) -> None:
    rows = "file,sentence,channel\ncall.wav,hello,0\ncall.wav,yes,1\ncall.wav,both,\n"
    path = manifest(tmp_path, rows, "m.csv")
    read = read_manifest(path)
    names = ["call.wav#0", "call.wav#1", "call.wav"]
    assert [(u.id, u.channel) for u in read] == list(zip(names, [0, 1, None], strict=True))
    assert len({u.place for u in read}) == 3


def test_parts_of_a_long_recording_have_ids_of_their_own(tmp_path: Path) -> None:
    parts = [(10000.01, 2), (10000.04, 2), (10000.04, 3.5), (10000.04, 2), (20, 1), (20, None)]
    lines = [{"audio_filepath": "a.wav", "text": "x", "offset": o, "duration": d} for o, d in parts]
    path = manifest(tmp_path, "\n".join(map(json.dumps, lines)))
    rows = scan_manifest(path)
    assert [row.id for row in utterances(rows)] == [
        "a.wav@10000", "a.wav@10000.04+2.0", "a.wav@10000.04+3.5", "a.wav@20", "a.wav@20.0",
    ]  # fmt: skip
    (same,) = findings(rows)
    assert (same.line, same.reason) == (4, "id 'a.wav@10000.04+2.0' is that of line 2 already")


def test_whole_numbers_as_names(tmp_path: Path) -> None:
    path = manifest(tmp_path, '{"audio_filepath": "a", "text": "x", "id": 7, "speaker": 19}')
    assert [(u.id, u.speaker) for u in read_manifest(path)] == [("7", "19")]


def test_bom_crlf_and_empty_lines(tmp_path: Path) -> None:
    other = GOOD.replace("a.wav", "b.wav")
    path = manifest(tmp_path, b"\xef\xbb\xbf" + f"{GOOD}\r\n\r\n  \n{other}".encode())
    good = utterances(scan_manifest(path))
    assert [u.id for u in good] == ["a.wav", "b.wav"]
    assert [(u.manifest, u.line) for u in good] == [(path, 1), (path, 4)]


def test_csv_and_tsv_give_what_json_lines_give(tmp_path: Path) -> None:
    rows = [
        ["audio_filepath", "duration", "text", "id", "speaker", "offset", "accent"],
        ["a.wav", "1.5", "it's one", "", "s1", "", "north"],
        ["b.wav", "", "two", "u2", "", "0.5", ""],
    ]
    as_csv = manifest(tmp_path, "\r\n".join(",".join(row) for row in rows), "m.csv")
    as_tsv = manifest(tmp_path, "\n".join("\t".join(row) for row in rows), "m.TSV")
    assert read_manifest(as_csv) == read_manifest(as_tsv)
    assert read_manifest(as_csv) == [
        Utterance(
            tmp_path / "a.wav", "it's one", 1.5, "a.wav", "s1", 0.0, None, {"accent": "north"}
        ),
        Utterance(tmp_path / "b.wav", "two", None, "u2", None, 0.5, None, {"accent": ""}),
    ]


def test_csv_quotes_but_tsv_does_not(tmp_path: Path) -> None:
    quoted = manifest(tmp_path, 'audio_filepath,text\na.wav,"one, ""two""\nthree"\n', "m.csv")
    assert read_manifest(quoted)[0].text == 'one, "two"\nthree'
    literal = manifest(tmp_path, 'audio_filepath\ttext\na.wav\t"one\nb.wav\ttwo"\n', "m.tsv")
    assert [u.text for u in read_manifest(literal)] == ['"one', 'two"']


def line(**fields: object) -> str:
    return json.dumps({"audio_filepath": "b.wav", "text": "two", **fields})


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("{", "bad JSON at column 2 (Expecting property name enclosed in double quotes)"),
        ("[1, 2]", "[1, 2] is no JSON object, expected {...}"),
        ('"text"', "'text' is no JSON object, expected {...}"),
        ("[" * 100_000, "bad JSON ("),
        ('{"audio_filepath": ' + "9" * 5000 + "}", "bad JSON ("),
        ('{"text": "x", "text": "y"}', "field 'text' occurs twice, expected once"),
        ('{"text": "two"}', "audio_filepath is missing, expected a path"),
        ('{"audio_filepath": "b.wav"}', "text is missing, expected a text"),
        (line(text=3), "text is 3, expected a text"),
        (line(text=None), "text is missing, expected a text"),
        (line(audio_filepath=["b"]), "audio_filepath is ['b'], expected a path"),
        (line(audio_filepath=" "), "audio_filepath is ' ', expected a path"),
        (line(audio_filepath="http://x/a.wav"), "expected a path, not a URL"),
        (line(audio_filepath="s3://x/a.wav"), "expected a path, not a URL"),
        (line(audio_filepath="sox a.mp3 -t wav - |"), "expected a path, not a command"),
        (line(audio_filepath="| rm x"), "expected a path, not a command"),
        (line(audio_filepath="a\x00.wav"), "'a\\x00.wav', expected a path without control"),
        (line(audio_filepath="\x1b[2Ja.wav"), "'\\x1b[2Ja.wav', expected a path without control"),
        (line(duration="1.5"), "duration is '1.5', expected a number of seconds above 0"),
        (line(duration=True), "duration is True, expected a number of seconds above 0"),
        (line(duration=-1), "duration is -1, expected a number of seconds above 0"),
        (line(duration=0), "duration is 0, expected a number of seconds above 0"),
        (line(duration=10**400), "expected a number of seconds above 0"),
        (line(duration=1).replace("1}", "1e999}"), "duration is inf, expected a number of"),
        (line(duration=float("nan")), "bad JSON (NaN is no JSON number)"),
        (line(duration=float("inf")), "bad JSON (Infinity is no JSON number)"),
        (line(offset=-0.5), "offset is -0.5, expected a number of seconds from 0 up"),
        (line(channel=-1), "channel is -1, expected a whole number from 0 to 1023"),
        (line(channel=0.5), "channel is 0.5, expected a whole number from 0 to 1023"),
        (line(channel=True), "channel is True, expected a whole number from 0 to 1023"),
        (line(channel=10**400), "expected a whole number from 0 to 1023"),
        (line(id=""), "id is '', expected a text or a whole number"),
        (line(id=1.5), "id is 1.5, expected a text or a whole number"),
        (line(speaker=[]), "speaker is [], expected a text or a whole number"),
        (line(audio_filepath="a.wav"), "id 'a.wav' is that of line 1 already"),
        (line(text="\udc80"), "half a surrogate pair"),
        (line(note={"x": "\ud800"}), "half a surrogate pair"),
    ],
)
def test_a_bad_json_line_is_named(tmp_path: Path, bad: str, reason: str) -> None:
    path = manifest(tmp_path, f"{GOOD}\n{bad}\n")
    with pytest.raises(ValueError, match=re.escape(f"{path}:2: ")) as caught:
        read_manifest(path)
    message = str(caught.value)
    assert reason in message
    assert "\n" not in message
    assert len(message) < 400
    assert message.isprintable()


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("b.wav", "1 fields, expected 3 as in the header"),
        ("b.wav,two,1,x", "4 fields, expected 3 as in the header"),
        (",two,1", "audio_filepath is '', expected a path"),
        ("b.wav,two,long", "duration is 'long', expected a number of seconds"),
        ("b.wav,two,nan", "duration is nan, expected a number of seconds above 0"),
        ("b.wav,two,-inf", "duration is -inf, expected a number of seconds above 0"),
        ("b.wav,two,1_0", "duration is '1_0', expected a number of seconds above 0"),
        ('b.wav,"two"x,1', "bad CSV ("),
        (f"b.wav,{'x' * 200_000},1", "bad CSV (field larger than field limit"),
    ],
)
def test_a_bad_csv_line_is_named(tmp_path: Path, bad: str, reason: str) -> None:
    content = f"audio_filepath,text,duration\na.wav,one,1\n{bad}\nc.wav,three,1\n"
    path = manifest(tmp_path, content, "m.csv")
    with pytest.raises(ValueError, match=re.escape(f"{path}:3: ")) as caught:
        read_manifest(path)
    assert reason in str(caught.value)
    assert [u.text for u in utterances(scan_manifest(path))] == ["one", "three"]


@pytest.mark.parametrize("name", ["m.jsonl", "m.tsv"])
def test_bad_utf_8_and_over_long_lines_cost_only_themselves(tmp_path: Path, name: str) -> None:
    header, rows = "", [f'{{"audio_filepath": "{c}", "text": "x"}}\n'.encode() for c in "ab"]
    if name == "m.tsv":
        header, rows = "audio_filepath\ttext\n", ["a\tx\u00e9\n".encode(), b"b\tx\n"]
    bad = [b"\xff" + rows[0], b'"' + b"x" * (3 * MAX_LINE_BYTES) + b"\n"]
    path = manifest(tmp_path, header.encode() + rows[0] + b"".join(bad) + rows[1], name)
    rows = scan_manifest(path)
    first = 2 if header else 1
    assert [row.line for row in rows] == [first, first + 1, first + 2, first + 3]
    assert [u.line for u in utterances(rows)] == [first, first + 3]
    assert [(each.line, each.reason) for each in findings(rows)] == [
        (first + 1, "byte 0xff at 1, expected UTF-8"),
        (first + 2, f"longer than {MAX_LINE_BYTES} bytes, expected less"),
    ]


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("what,sentence", "has the fields ['what', 'sentence'], expected 'audio_filepath' as well"),
        ("audio_filepath,words", "expected 'text' as well"),
        ("audio_filepath,text,text", "has a field twice in"),
        ("\udcffx\u00e9", "the header: byte 0xff at 1, expected UTF-8"),
    ],
)
def test_a_bad_header_is_named(tmp_path: Path, header: str, reason: str) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes(f"{header}\na,b\n".encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=re.escape(reason)) as caught:
        read_manifest(path)
    assert str(caught.value).startswith(f"{path}:1: the header")


def test_all_bad_lines_are_counted_in_one_line(tmp_path: Path) -> None:
    path = manifest(tmp_path, "\n".join([GOOD] + ["x"] * 9))
    with pytest.raises(ValueError, match="bad JSON at column 1") as caught:
        read_manifest(path)
    assert str(caught.value).startswith(f"{path}:2: ")
    assert str(caught.value).endswith(" (and 8 more bad lines: 3, 4, 5, 6, 7, ...)")
    two = findings(scan_manifest(path))[:2]
    assert describe_bad_lines(two).endswith("(and 1 more bad line: 3)")


@pytest.mark.parametrize("name", ["m.jsonl", "m.csv"])
def test_an_empty_manifest_is_refused(tmp_path: Path, name: str) -> None:
    path = manifest(tmp_path, "\n", name)
    with pytest.raises(ValueError, match=r"m\.\w+: holds no utterances, expected at least one"):
        read_manifest(path)


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"m\.txt: not a manifest's name, expected one that ends"):
        read_manifest(manifest(tmp_path, GOOD, "m.txt"))
    with pytest.raises(FileNotFoundError):
        read_manifest(tmp_path / "missing.jsonl")


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.jsonl")
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "zero.jsonl").symlink_to("/dev/zero")
    for name in ("fifo", "folder", "zero"):
        with pytest.raises(ValueError, match=r"not a regular file, expected a manifest"):
            read_manifest(tmp_path / f"{name}.jsonl")


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    written = [
        Utterance(tmp_path / "out" / "audio" / "a.wav", "na\u00efve\u2028x", 1.25, "u1", "s"),
        Utterance(Path("/elsewhere/b.wav"), "", None, "u2", None, 3.5, 0, {"k": [1, {"x": None}]}),
    ]
    path = tmp_path / "out" / "train.jsonl"
    write_manifest(path, written)
    assert read_manifest(path) == written
    first, second = map(json.loads, path.read_text().rstrip("\n").split("\n"))
    assert first["audio_filepath"] == "audio/a.wav"
    assert "offset" not in first
    assert second["audio_filepath"] == "/elsewhere/b.wav"
    assert list(second) == ["audio_filepath", "text", "id", "offset", "channel", "k"]


def test_paths_with_parents_are_written_by_where_they_lead(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "deep" / "er")
    # Through the link, `..` is deep/ and not tmp_path.
    utterance = Utterance(tmp_path / "link" / ".." / "a.wav", "x", None, "u")
    write_manifest(tmp_path / "deep" / "m.jsonl", [utterance])
    (read,) = read_manifest(tmp_path / "deep" / "m.jsonl")
    assert read.audio_filepath == tmp_path / "deep" / "a.wav"


def test_what_cannot_be_read_back_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text(GOOD)
    for bad in (
        Utterance(Path("/a"), "x", float("nan"), "u"),
        Utterance(Path("/a"), "x", 1.0, "u", extra={"text": "y"}),
    ):
        with pytest.raises(
            ValueError, match=r"^utterance u: (Out of range float|extra has 'text')"
        ):
            write_manifest(path, [bad])
    assert path.read_text() == GOOD
    assert [p.name for p in tmp_path.iterdir()] == ["m.jsonl"]


def test_utterances_travel_to_workers(tmp_path: Path) -> None:
    utterance = Utterance(tmp_path, "x", 1.0, "u", extra={"k": 1})
    assert pickle.loads(pickle.dumps(utterance)) == utterance
    assert {utterance: 1}[utterance] == 1


def test_bytes_are_those_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    written = [Utterance(tmp_path / "a.wav", "x", 1.0, "u")]
    write_manifest(path, written)
    assert manifest_bytes(path, written) == path.read_bytes()


def test_a_file_of_bad_lines_is_no_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.jsonl"
    good = [f'{{"audio_filepath": "{number}.wav", "text": "x"}}' for number in range(6)]
    monkeypatch.setattr("asr.data.manifest.MAX_BAD_LINES", 4)
    path.write_text("\n".join([*good, *["{}"] * 7, ""]))
    assert len(findings(scan_manifest(path))) == 7
    path.write_text("\n".join(["{}"] * 5))
    assert len(findings(scan_manifest(path))) == 5
    path.write_text("\n".join([*good[:1], *["{}"] * 6]))
    with pytest.raises(
        ValueError,
        match=r"jsonl:2: .* \(and 4 more bad lines before line 7, 1 good ones\), expected a manif",
    ):
        scan_manifest(path)


def test_a_file_of_empty_lines_is_no_manifest(tmp_path: Path) -> None:
    for name, begin in (("m.jsonl", ""), ("m.csv", "audio_filepath,text\n")):
        path = tmp_path / name
        path.write_text(begin + "\n" * 50_000)
        with pytest.raises(ValueError, match=rf"{name}:\d+: 10001 empty lines in a row"):
            scan_manifest(path)
