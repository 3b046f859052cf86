"""Tars from anybody: plain members come with their content, and forged headers cost nothing."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from asr.data.shar.folder import SharFolder
from asr.data.shar.recordings import read_recordings
from asr.data.tar import MAX_HEADER_BYTES, tar_members


def member(name: str, content: bytes = b"", **changes: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in changes.items():
        setattr(info, key, value)
    return info, content


def tar(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as writer:
        for info, content in members:
            writer.addfile(info, io.BytesIO(content))
    return file.getvalue()


class Counted(io.BytesIO):
    """A file that knows how much of it was read."""

    def read(self, size: int | None = -1, /) -> bytes:
        block = super().read(size)
        self.num_bytes = getattr(self, "num_bytes", 0) + len(block)
        return block


def read(content: bytes) -> list[tuple[str, bytes | None]]:
    return [
        (info.name, None if file is None else file.read())
        for info, file in tar_members(io.BytesIO(content))
    ]


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_members_come_in_order_with_their_content(form: int) -> None:
    long = "d" * 100 + "/" + "n" * 90
    large = bytes(range(256)) * 20_000
    members = [member("a", b"1"), member(long, large), member("empty"), member("d", type=b"5")]
    expected = [("a", b"1"), (long, large), ("empty", b""), ("d", None)]
    assert read(tar(*members, form=form)) == expected


def test_content_that_nobody_reads_is_passed_over() -> None:
    content = tar(*(member(str(n), bytes(3_000_000)) for n in range(3)))
    names = [info.name for info, _ in tar_members(io.BytesIO(content))]
    assert names == ["0", "1", "2"]


def test_names_of_a_thousand_characters() -> None:
    name = "/".join(["é" * 100] * 9)
    assert read(tar(member(name, b"1"))) == [(name, b"1")]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_have_no_content(kind: bytes) -> None:
    content = tar(member("a", type=kind, linkname="/etc/passwd"), member("b", b"1"))
    assert read(content) == [("a", None), ("b", b"1")]


def sparse(num_holes: int) -> bytes:
    """A file with holes as GNU tar writes it, format 1.0: the map is where the content begins."""
    holes = f"{num_holes}\n" + "0\n" * (2 * num_holes)
    holes += "\0" * (-len(holes) % tarfile.BLOCKSIZE)
    headers = {
        "GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "a",
        "GNU.sparse.realsize": "0",
    }  # fmt: skip
    return tar(member("a", holes.encode(), pax_headers=headers))


def test_a_file_with_holes_has_no_content() -> None:
    assert read(sparse(3)) == [("a", None)]


FORGED = {
    "a map of a million holes": sparse(1_000_000),
    "a PAX header of a megabyte": tar(member("a", pax_headers={"comment": "1" * 1_000_000})),
    "a name of a megabyte": tar(member("n" * 1_000_000), form=tarfile.GNU_FORMAT),
    "a PAX header of digits": tar(member("a", b"1" * 1_000_000, type=tarfile.XHDTYPE)),
}


@pytest.mark.parametrize("content", list(FORGED.values()), ids=list(FORGED))
def test_forged_headers_are_not_read(content: bytes) -> None:
    file = Counted(content)
    with pytest.raises(tarfile.TarError):
        list(tar_members(file))
    assert file.num_bytes <= MAX_HEADER_BYTES


def test_many_small_headers_do_not_add_up_to_a_large_one() -> None:
    small = tar(*(member(str(n)) for n in range(500)))[: 500 * tarfile.BLOCKSIZE]
    file = Counted(small + FORGED["a name of a megabyte"])
    with pytest.raises(tarfile.ReadError, match="headers of more than 8192 bytes"):
        list(tar_members(file))
    assert file.num_bytes <= len(small) + MAX_HEADER_BYTES


def test_damage_is_a_tar_error() -> None:
    content = tar(member("a", b"x" * 4000))
    negative = tarfile.TarInfo("a")
    negative.size = -512
    for damaged in (
        b"no tar at all" * 100,
        content[:700],
        negative.tobuf(tarfile.GNU_FORMAT),
        tarfile.TarInfo("é").tobuf(tarfile.GNU_FORMAT, "latin-1"),
    ):
        with pytest.raises(tarfile.TarError):
            read(damaged)


def test_a_shard_with_a_sparse_file_takes_no_memory(tmp_path: Path) -> None:
    (tmp_path / "recording.000000.tar").write_bytes(FORGED["a map of a million holes"])
    with pytest.raises(ValueError, match=r"tar: damaged tar \(headers of more than 8192 bytes\)"):
        read_recordings(SharFolder(tmp_path), "recording.000000.tar", ["a"], ["a"])
