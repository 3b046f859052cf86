"""The audio of a shard: paired with its cuts, and nothing else that a tar can hold."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from asr.data.shar.folder import SharFolder
from asr.data.shar.recordings import read_recordings

NAME = "recording.000000.tar"


def write(folder: Path, members: list[tuple[str, bytes]], **changes: object) -> None:
    with tarfile.open(folder / NAME, "w") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            for key, value in changes.items():
                setattr(member, key, value)
            tar.addfile(member, io.BytesIO(content))


def read(folder: Path, ids: list[str], wanted: str | None = None) -> dict[str, bytes]:
    return read_recordings(SharFolder(folder), NAME, ids, wanted or "".join(ids))


def pair(name: str, content: bytes = b"audio") -> list[tuple[str, bytes]]:
    return [(f"{name}.flac", content), (f"{name}.json", b"{}")]


def test_audio_of_the_cuts_that_are_wanted(tmp_path: Path) -> None:
    members = [*pair("a", b"1"), ("b.nodata", b""), ("b.nometa", b""), *pair("c", b"3")]
    write(tmp_path, members)
    assert read(tmp_path, ["a", "b", "c"], "ac") == {"a": b"1", "c": b"3"}
    assert read(tmp_path, ["a", "b", "c"], "c") == {"c": b"3"}
    with pytest.raises(ValueError, match=r"'b\.nodata' holds no audio, expected some"):
        read(tmp_path, ["a", "b", "c"], "b")


def test_a_tar_of_other_cuts(tmp_path: Path) -> None:
    write(tmp_path, [*pair("a"), *pair("b")])
    with pytest.raises(ValueError, match=r"goes on with 'b\.flac', expected the audio of cut 'c'"):
        read(tmp_path, ["a", "c"])
    with pytest.raises(ValueError, match=r"tar: ends, expected the audio of cut 'c'"):
        read(tmp_path, ["a", "b", "c"])
    with pytest.raises(ValueError, match=r"has 'b\.flac' as well, expected its cuts' audio alone"):
        read(tmp_path, ["a"])


def test_a_tar_that_was_cut_short(tmp_path: Path) -> None:
    write(tmp_path, [*pair("a"), *pair("b", b"x" * 4000)])
    content = (tmp_path / NAME).read_bytes()
    (tmp_path / NAME).write_bytes(content[:4000])
    with pytest.raises(ValueError, match=r"tar: damaged tar"):
        read(tmp_path, ["a", "b"])
    (tmp_path / NAME).write_bytes(content[:2048])  # at the end of a member
    with pytest.raises(ValueError, match=r"tar: ends, expected the audio of cut 'b'"):
        read(tmp_path, ["a", "b"])
    (tmp_path / NAME).write_bytes(b"no tar at all" * 100)
    with pytest.raises(ValueError, match=r"tar: damaged tar"):
        read(tmp_path, ["a"])


def test_no_packed_tar(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / NAME, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("a.flac"), io.BytesIO())
    with pytest.raises(ValueError, match=r"tar: damaged tar"):
        read(tmp_path, ["a"])


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices(tmp_path: Path, kind: bytes) -> None:
    write(tmp_path, [("a.flac", b"")], type=kind, linkname="/etc/passwd")
    with pytest.raises(ValueError, match=r"'a\.flac' has 0 bytes, expected a plain file"):
        read(tmp_path, ["a"])


def test_a_member_beyond_the_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asr.data.shar.recordings.MAX_AUDIO_BYTES", 4)
    write(tmp_path, pair("a"))
    with pytest.raises(ValueError, match="has 5 bytes, expected a plain file of at most 4"):
        read(tmp_path, ["a"])
