"""Cuts to utterances: what each kind becomes, and one line for each kind of damage."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from asr.data.manifest import Utterance
from asr.data.shar.cuts import read_cuts
from asr.data.shar.folder import SharFolder
from asr.finding import Finding, Kind

NAME = "cuts.000000.jsonl.gz"


def cut(**changes: object) -> dict[str, object]:
    supervision = {"id": "s", "recording_id": "r", "start": 0.0, "duration": 2.0, "text": "Hi"}
    return {
        "id": "c", "start": 0.0, "duration": 2.0, "channel": 0, "supervisions": [supervision],
        "recording": {"id": "r", "sources": [{"type": "shar", "channels": [0], "source": ""}]},
        "type": "MonoCut",
    } | changes  # fmt: skip


def supervised(**changes: object) -> dict[str, object]:
    return cut(supervisions=[{"id": "s", "start": 0.0, "duration": 2.0, "text": "Hi"} | changes])


def read(folder: Path, content: bytes) -> list[tuple[str, Utterance | Finding]]:
    (folder / NAME).write_bytes(content)
    return read_cuts(SharFolder(folder), NAME, "recording.000000.tar")


def read_one(folder: Path, record: object) -> Utterance | Finding:
    ((_, item),) = read(folder, gzip.compress(json.dumps(record).encode()))
    return item


def test_a_cut_is_an_utterance(tmp_path: Path) -> None:
    record = supervised(speaker="anna") | {"custom": {"lang": "en"}, "start": 0.5}
    assert read_one(tmp_path, record) == Utterance(
        tmp_path / "recording.000000.tar" / "c", "Hi", 2.0, "c", "anna", 0.5, {"lang": "en"}
    )


def test_plain_lines_are_read_as_packed_ones(tmp_path: Path) -> None:
    lines = "".join(json.dumps(cut(id=name)) + "\n" for name in "ab")
    assert [name for name, _ in read(tmp_path, lines.encode())] == ["a", "b"]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (cut(type="MixedCut"), "is a 'MixedCut', expected a MonoCut"),
        (cut(recording=None), "has no recording, expected one"),
        (cut(supervisions=[]), "has 0 supervisions, expected 1"),
        (cut(supervisions=[{}, {}]), "has 2 supervisions, expected 1"),
        (cut(recording={"transforms": [{"name": "Speed"}]}), "its recording has transforms"),
        (supervised(text=None), "its supervision has no text"),
        (supervised(duration=2.1), "its text spans 0 to 2.1 s, expected 0 to 2 s"),
        (supervised(start=-0.2), "its text spans -0.2 to 1.8 s, expected 0 to 2 s"),
    ],
)
def test_what_is_no_utterance_is_left_out_by_name(
    tmp_path: Path, record: dict[str, object], reason: str
) -> None:
    item = read_one(tmp_path, record)
    assert isinstance(item, Finding)
    assert (item.id, item.kind) == ("c", Kind.BAD_LINE)
    assert item.reason.startswith(reason)


def test_a_text_may_end_a_hair_after_its_cut(tmp_path: Path) -> None:
    assert isinstance(read_one(tmp_path, supervised(start=-0.01, duration=2.03)), Utterance)


@pytest.mark.parametrize(
    ("record", "fault"),
    [
        (cut(id=""), "id is '', expected a text"),
        (cut(id=7), "id is 7, expected a text"),
        (cut(duration="2"), "duration is '2', expected a number of seconds"),
        (cut(duration=None), "duration is None, expected a number of seconds"),
        (cut(start=-1.0), "start is -1.0, expected a number of seconds"),
        (cut(custom=[1]), r"custom is \[1\], expected \{...\}"),
        (supervised(start=True), "start is True, expected a number of seconds"),
        ([1], r"\[1\] is no JSON object"),
    ],
)
def test_a_bad_line_names_file_and_line(tmp_path: Path, record: object, fault: str) -> None:
    with pytest.raises(ValueError, match=rf"cuts\.000000\.jsonl\.gz:1: {fault}"):
        read_one(tmp_path, record)


def test_damage_is_named(tmp_path: Path) -> None:
    content = gzip.compress((json.dumps(cut()) + "\n").encode() * 2)
    with pytest.raises(ValueError, match=r"jsonl\.gz:1: damaged gzip"):
        read(tmp_path, content[:40])
    with pytest.raises(ValueError, match=r"jsonl\.gz:1: bad JSON"):
        read(tmp_path, b"no json\n")
    with pytest.raises(ValueError, match=r"jsonl\.gz:2: id 'c' occurs twice, expected once"):
        read(tmp_path, content)


def test_bombs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"jsonl\.gz:10001: 10001 empty lines in a row"):
        read(tmp_path, gzip.compress(b"\n" * 100_000_000))
    rows = [json.dumps(cut(id=str(number))).encode() for number in range(50)]
    with pytest.raises(ValueError, match=r"jsonl\.gz: gzip of .* at most 200 times its size"):
        read(tmp_path, gzip.compress(b"".join(row + b" " * 900_000 + b"\n" for row in rows)))


def test_a_flood_of_cuts_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asr.data.shar.cuts.MAX_CUTS", 3)
    lines = "".join(json.dumps(cut(id=str(number))) + "\n" for number in range(4)).encode()
    with pytest.raises(ValueError, match="more than 3 cuts, expected fewer in a shard"):
        read(tmp_path, gzip.compress(lines))
    monkeypatch.setattr("asr.data.shar.cuts.MAX_CUTS_BYTES", 100)
    with pytest.raises(ValueError, match="more than 100 bytes, expected a shard's cuts"):
        read(tmp_path, lines)
