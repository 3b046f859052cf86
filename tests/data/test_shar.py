"""Shards as they lie there: never a command, and one line for each kind of damage."""

from __future__ import annotations

import gzip
import io
import json
import sys
import tarfile
from pathlib import Path
from types import ModuleType

import pytest

from asr.data.manifest import Utterance
from asr.data.shar import SharFolder, read_cuts, read_recordings
from asr.finding import Finding, Kind

# --- where shards lie -------------------------------------------------------------------------


@pytest.mark.parametrize("location", ["pipe:cat x", "pipe://x", "file:///tmp", "s3:x", "ftp://x/y"])
def test_commands_and_other_urls_are_refused(location: str) -> None:
    with pytest.raises(ValueError, match=r"not a folder of shards, expected a path or http://"):
        SharFolder(location)


def test_a_local_folder(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"x")
    (tmp_path / "a").mkdir()
    folder = SharFolder(f"{tmp_path}/")
    assert folder.names() == ["a", "b"]
    assert folder.where("b") == f"{tmp_path}/b"
    with folder.open("b") as file:
        assert file.read() == b"x"
    with pytest.raises(ValueError, match="not a regular file, expected a file of Shar"):
        folder.open("a")
    with pytest.raises(FileNotFoundError):
        folder.open("c")
    with pytest.raises(NotADirectoryError, match="is no folder, expected one of Shar shards"):
        SharFolder(tmp_path / "c")


def test_a_url_is_opened_by_smart_open_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    smart_open = pytest.importorskip("lhotse.utils").SmartOpen
    opened = []

    def fake(uri: str, mode: str, **arguments: object) -> io.BytesIO:
        opened.append((uri, mode, arguments))
        return io.BytesIO(b"x")

    module = ModuleType("smart_open")
    module.open = fake  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "smart_open", module)
    monkeypatch.setattr(smart_open, "smart_open", None)
    folder = SharFolder("s3://bucket/shards/")
    with folder.open("cuts.000000.jsonl.gz") as file:
        assert file.read() == b"x"
    ((uri, mode, arguments),) = opened
    assert (uri, mode) == ("s3://bucket/shards/cuts.000000.jsonl.gz", "rb")
    assert arguments["compression"] == "disable"
    with pytest.raises(ValueError, match="cannot be listed, expected an index in it"):
        folder.names()


@pytest.mark.parametrize("missing", ["lhotse", "smart_open"])
def test_a_url_without_its_packages(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if missing == "smart_open":
        smart_open = pytest.importorskip("lhotse.utils").SmartOpen
        monkeypatch.setattr(smart_open, "smart_open", None)
    monkeypatch.setitem(sys.modules, missing, None)
    if missing == "lhotse":
        monkeypatch.setitem(sys.modules, "lhotse.utils", None)
    with pytest.raises(ValueError, match=r"needs .*: pip install 'lstm-asr\[lhotse\]' smart_open"):
        SharFolder("https://example.org/shards").open("cuts.000000.jsonl.gz")


# --- cuts -------------------------------------------------------------------------------------


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
        tmp_path / "recording.000000.tar" / "c", "Hi", 2.0, "c", "anna", 0.5, None, {"lang": "en"}
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
    monkeypatch.setattr("asr.data.shar.MAX_CUTS", 3)
    lines = "".join(json.dumps(cut(id=str(number))) + "\n" for number in range(4)).encode()
    with pytest.raises(ValueError, match="more than 3 cuts, expected fewer in a shard"):
        read(tmp_path, gzip.compress(lines))
    monkeypatch.setattr("asr.data.shar.MAX_CUTS_BYTES", 100)
    with pytest.raises(ValueError, match="more than 100 bytes, expected a shard's cuts"):
        read(tmp_path, lines)


# --- recordings -------------------------------------------------------------------------------


TAR = "recording.000000.tar"


def write_tar(folder: Path, members: list[tuple[str, bytes]], **changes: object) -> None:
    with tarfile.open(folder / TAR, "w") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            for key, value in changes.items():
                setattr(member, key, value)
            tar.addfile(member, io.BytesIO(content))


def read_tar(folder: Path, ids: list[str], wanted: str | None = None) -> dict[str, bytes]:
    return read_recordings(SharFolder(folder), TAR, ids, wanted or "".join(ids))


def pair(name: str, content: bytes = b"audio") -> list[tuple[str, bytes]]:
    return [(f"{name}.flac", content), (f"{name}.json", b"{}")]


def test_audio_of_the_cuts_that_are_wanted(tmp_path: Path) -> None:
    members = [*pair("a", b"1"), ("b.nodata", b""), ("b.nometa", b""), *pair("c", b"3")]
    write_tar(tmp_path, members)
    assert read_tar(tmp_path, ["a", "b", "c"], "ac") == {"a": b"1", "c": b"3"}
    assert read_tar(tmp_path, ["a", "b", "c"], "c") == {"c": b"3"}
    with pytest.raises(ValueError, match=r"'b\.nodata' holds no audio, expected some"):
        read_tar(tmp_path, ["a", "b", "c"], "b")


def test_a_tar_of_other_cuts(tmp_path: Path) -> None:
    write_tar(tmp_path, [*pair("a"), *pair("b")])
    with pytest.raises(ValueError, match=r"goes on with 'b\.flac', expected the audio of cut 'c'"):
        read_tar(tmp_path, ["a", "c"])
    with pytest.raises(ValueError, match=r"tar: ends, expected the audio of cut 'c'"):
        read_tar(tmp_path, ["a", "b", "c"])
    with pytest.raises(ValueError, match=r"has 'b\.flac' as well, expected its cuts' audio alone"):
        read_tar(tmp_path, ["a"])


def test_a_tar_that_was_cut_short(tmp_path: Path) -> None:
    write_tar(tmp_path, [*pair("a"), *pair("b", b"x" * 4000)])
    content = (tmp_path / TAR).read_bytes()
    (tmp_path / TAR).write_bytes(content[:4000])
    with pytest.raises(ValueError, match=r"tar: damaged tar"):
        read_tar(tmp_path, ["a", "b"])
    (tmp_path / TAR).write_bytes(content[:2048])  # at the end of a member
    with pytest.raises(ValueError, match=r"tar: ends, expected the audio of cut 'b'"):
        read_tar(tmp_path, ["a", "b"])
    (tmp_path / TAR).write_bytes(b"no tar at all" * 100)
    with pytest.raises(ValueError, match=r"tar: damaged tar"):
        read_tar(tmp_path, ["a"])


def test_no_packed_tar(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / TAR, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("a.flac"), io.BytesIO())
    with pytest.raises(ValueError, match=r"tar: damaged tar"):
        read_tar(tmp_path, ["a"])


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices(tmp_path: Path, kind: bytes) -> None:
    write_tar(tmp_path, [("a.flac", b"")], type=kind, linkname="/etc/passwd")
    with pytest.raises(ValueError, match=r"'a\.flac' has 0 bytes, expected a plain file"):
        read_tar(tmp_path, ["a"])


def test_a_member_beyond_the_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asr.data.shar.MAX_AUDIO_BYTES", 4)
    write_tar(tmp_path, pair("a"))
    with pytest.raises(ValueError, match="has 5 bytes, expected a plain file of at most 4"):
        read_tar(tmp_path, ["a"])
