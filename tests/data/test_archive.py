"""Archives: unpacked within bounds or refused, a tar's members, downloads."""

from __future__ import annotations

import email.message
import gzip
import hashlib
import http.client
import io
import random
import stat
import struct
import tarfile
import urllib.request
import urllib.response
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from asr.data.archive import MAX_HEADER_BYTES, download, tar_members, unpack
from asr.data.shar import SharFolder, read_recordings

MAX_MEMBERS = 50
MAX_BYTES = 100_000


class House:
    """A folder to unpack into, between folders that nothing may touch."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.target = root / "inner" / "target"
        self.target.parent.mkdir()
        for canary in (root / "canary.txt", root / "inner" / "canary.txt"):
            canary.write_text("untouched")
        self.before = self.snapshot()

    def snapshot(self) -> dict[str, str]:
        """Everything but archives, by relative path."""
        return {
            str(path.relative_to(self.root)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(self.root.rglob("*"))
            if path.is_file() and path.parent.name != "archives"
        }

    def archive(self, name: str) -> Path:
        """Where to write an archive."""
        (self.root / "archives").mkdir(exist_ok=True)
        return self.root / "archives" / name

    def unpack(self, archive: Path) -> int:
        """Unpack with the limits of these tests."""
        return unpack(archive, self.target, max_members=MAX_MEMBERS, max_bytes=MAX_BYTES)


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def make_zip(path: Path, members: list[tuple[zipfile.ZipInfo | str, bytes]]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def tar_member(name: str, content: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def make_tar(path: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> Path:
    mode = "w:gz" if path.name.endswith("gz") else "w"
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return path


FILES = [("top/a.txt", b"first"), ("top/sub/b.bin", bytes(range(256)) * 20), ("./c", b"")]


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tgz", "A.ZIP"])
def test_a_good_archive_comes_out_whole(house: House, name: str) -> None:
    path = house.archive(name)
    if name.lower().endswith(".zip"):
        make_zip(path, [("top/", b""), *FILES])
    else:
        folder = tar_member("top", type=tarfile.DIRTYPE)
        make_tar(path, [folder, *(tar_member(n, c, mode=0o4777, uid=1234) for n, c in FILES)])
    assert house.unpack(path) == 3
    for member, content in FILES:
        assert (house.target / member).read_bytes() == content
        assert not (house.target / member).stat().st_mode & (stat.S_ISUID | stat.S_IXUSR)
    assert not house.target.with_name("target.part").exists()


def test_an_interrupted_unpacking_is_done_anew(house: House) -> None:
    leftover = house.target.with_name("target.part")
    leftover.mkdir()
    (leftover / "half").write_text("half")
    house.unpack(make_zip(house.archive("a.zip"), list(FILES)))
    assert not (house.target / "half").exists()
    assert not leftover.exists()


BAD_NAMES = [
    "../canary.txt",
    "a/../../canary.txt",
    "/tmp/absolute.txt",
    "..",
    "a\\..\\..\\canary.txt",
    "C:/windows.txt",
    "new\nline",
    "\x1b[2J",
    "x/" * 600 + "deep",
    ".",
]


@pytest.mark.parametrize("bad", BAD_NAMES)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_name_that_leads_elsewhere_refuses_the_archive(house: House, bad: str, kind: str) -> None:
    path = house.archive(f"a.{kind}")
    if kind == "zip":
        make_zip(path, [("good.txt", b"x"), (bad, b"bad")])
    else:
        make_tar(path, [tar_member("good.txt", b"x"), tar_member(bad, b"bad")])
    with pytest.raises(ValueError, match="expected a name inside the archive") as caught:
        house.unpack(path)
    assert str(caught.value).isprintable()
    assert house.snapshot() == house.before


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("symlink", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}),
        ("symlink_up", {"type": tarfile.SYMTYPE, "linkname": ".."}),
        ("hardlink", {"type": tarfile.LNKTYPE, "linkname": "../canary.txt"}),
        ("fifo", {"type": tarfile.FIFOTYPE}),
        ("character_device", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 5}),
        ("block_device", {"type": tarfile.BLKTYPE, "devmajor": 8, "devminor": 0}),
    ],
)
def test_links_and_devices_refuse_a_tar(house: House, kind: str, fields: dict[str, object]) -> None:
    members = [tar_member("link", **fields), tar_member("link/canary.txt", b"bad")]
    with pytest.raises(ValueError, match="'link' is a link or device, expected a file"):
        house.unpack(make_tar(house.archive("a.tar"), members))
    assert house.snapshot() == house.before


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK])
def test_links_and_devices_refuse_a_zip(house: House, kind: int) -> None:
    info = zipfile.ZipInfo("link")
    info.external_attr = (kind | 0o777) << 16
    with pytest.raises(ValueError, match="'link' is a link or device, expected a file"):
        house.unpack(make_zip(house.archive("a.zip"), [(info, b"../canary.txt")]))
    assert house.snapshot() == house.before


def test_a_chain_of_links_longer_than_a_path_may_be(house: House) -> None:
    # Python 3.11.7's own filter stops resolving such a chain and lets the last name through.
    name, members = "d" * 200, []
    for step in "abcdefghijklmnop":
        members.append(tar_member(name, type=tarfile.DIRTYPE))
        members.append(tar_member(f"{step}", type=tarfile.SYMTYPE, linkname=name))
        name = f"{step}/{'d' * 200}"
    members.append(tar_member("x", type=tarfile.SYMTYPE, linkname="a/b/c/../../../.."))
    members.append(tar_member("x/canary.txt", b"bad"))
    with pytest.raises(ValueError, match="link or device"):
        house.unpack(make_tar(house.archive("a.tar"), members))
    assert house.snapshot() == house.before


def test_a_file_in_the_place_of_a_folder(house: House) -> None:
    for members in ([("a", b"x"), ("a/b", b"y")], [("a", b"x"), ("./a", b"y")]):
        with pytest.raises(ValueError, match="twice, expected it once"):
            house.unpack(make_zip(house.archive("a.zip"), list(members)))
    assert house.snapshot() == house.before


@pytest.mark.parametrize("name", ["bomb.zip", "bomb.tar", "bomb.tar.gz"])
def test_a_bomb_is_stopped_at_the_limit(house: House, name: str) -> None:
    path = house.archive(name)
    zeros = bytes(5 * MAX_BYTES)
    if name.endswith("zip"):
        make_zip(path, [("zeros", zeros)])
    else:
        make_tar(path, [tar_member("zeros", zeros)])
    with pytest.raises(ValueError, match=r"bomb.*: unpacks to more than the \d+ bytes expected"):
        house.unpack(path)
    assert house.snapshot() == house.before


def test_the_limit_is_on_all_members_together(house: House) -> None:
    half = bytes(MAX_BYTES // 2)
    assert house.unpack(make_zip(house.archive("a.zip"), [("a", half), ("b", half)])) == 2
    house.target = house.target.with_name("other")
    with pytest.raises(ValueError, match="unpacks to more than"):
        house.unpack(make_zip(house.archive("b.zip"), [("a", half), ("b", half), ("c", b"1")]))


def test_a_zip_that_lies_about_its_sizes(house: House) -> None:
    path = make_zip(house.archive("a.zip"), [("zeros", bytes(5 * MAX_BYTES))])
    lying = path.read_bytes().replace(struct.pack("<L", 5 * MAX_BYTES), struct.pack("<L", 10))
    path.write_bytes(lying)
    with pytest.raises(ValueError, match=r"damaged archive|unpacks to more"):
        house.unpack(path)
    assert house.snapshot() == house.before


def test_a_tar_header_that_announces_gigabytes(house: House) -> None:
    path = house.archive("a.tar.gz")
    header = tarfile.TarInfo("x")
    header.type = tarfile.XHDTYPE
    header.size = 8_000_000_000
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(header.tobuf())
        file.write(bytes(3 * MAX_BYTES))
    with pytest.raises(ValueError, match=r"unpacks to more than|damaged archive"):
        house.unpack(path)


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_too_many_members(house: House, kind: str) -> None:
    names = [f"f{number}" for number in range(MAX_MEMBERS + 1)]
    path = house.archive(f"a.{kind}")
    if kind == "zip":
        make_zip(path, [(name, b"") for name in names])
    else:
        make_tar(path, [tar_member(name) for name in names])
    with pytest.raises(ValueError, match="expected at most 50 members"):
        house.unpack(path)
    assert house.snapshot() == house.before


def test_a_zip_directory_of_a_million_members_is_not_even_read(house: House) -> None:
    path = house.archive("a.zip")
    path.write_bytes(
        bytes(50_000) + b"PK\5\6" + struct.pack("<4H2LH", 0, 0, 9, 9, 48_000_000, 0, 0)
    )
    with pytest.raises(ValueError, match="its directory has 48000000 bytes, expected those of"):
        house.unpack(path)
    locator = b"PK\6\7" + bytes(16)
    path.write_bytes(bytes(100) + locator + b"PK\5\6" + struct.pack("<4H2LH", 0, 0, 1, 1, 46, 0, 0))
    with pytest.raises(ValueError, match="a zip64 archive"):
        house.unpack(path)


def test_an_encrypted_zip(house: House) -> None:
    path = make_zip(house.archive("a.zip"), [("a", b"x" * 100)])
    content = bytearray(path.read_bytes())
    for header in (b"PK\3\4", b"PK\1\2"):
        content[content.index(header) + (6 if header == b"PK\3\4" else 8)] |= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="archive of an unknown kind"):
        house.unpack(path)


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
@pytest.mark.parametrize("content", [b"", b"not an archive at all" * 100, bytes(2000)])
def test_no_archive_at_all(house: House, name: str, content: bytes) -> None:
    path = house.archive(name)
    path.write_bytes(content)
    if name == "a.tar" and content == bytes(2000):
        assert house.unpack(path) == 0  # zeros are how a tar ends
        return
    with pytest.raises(ValueError, match=r"damaged archive"):
        house.unpack(path)
    assert house.snapshot() == house.before


def test_other_names_and_missing_archives(house: House) -> None:
    path = house.archive("a.rar")
    path.write_bytes(b"x")
    with pytest.raises(ValueError, match=r"a\.rar: not an archive's name, expected one of \.zip"):
        house.unpack(path)
    with pytest.raises(FileNotFoundError):
        house.unpack(house.archive("missing.zip"))


def damaged(content: bytes, random_source: random.Random) -> bytes:
    mutant = bytearray(content)
    for _ in range(random_source.randint(1, 8)):
        mutant[random_source.randrange(len(mutant))] = random_source.randrange(256)
    if random_source.random() < 0.3:
        del mutant[random_source.randrange(len(mutant)) :]
    return bytes(mutant)


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
def test_damaged_archives_give_one_line_or_their_files(house: House, name: str) -> None:
    seed = 7
    path = house.archive(name)
    make: Callable[[], Path] = (
        (lambda: make_zip(path, list(FILES)))
        if name == "a.zip"
        else (lambda: make_tar(path, [tar_member(n, c) for n, c in FILES]))
    )
    content = make().read_bytes()
    random_source = random.Random(seed)
    refused = 0
    for number in range(80):
        path.write_bytes(damaged(content, random_source))
        target = house.root / "inner" / f"target{number}"
        try:
            unpack(path, target, max_members=MAX_MEMBERS, max_bytes=MAX_BYTES)
        except (ValueError, OSError):
            refused += 1
            assert not target.exists()
    assert refused > 8
    for canary, digest in house.before.items():
        assert house.snapshot()[canary] == digest
    assert {p.name for p in house.root.iterdir()} == {"inner", "canary.txt", "archives"}


# Tars from anybody: plain members come with their content, and forged headers cost nothing.


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


# Downloads, over urllib's own machinery with a connection that a test makes up.


URL = "https://example.org/a.zip"


class Answers(urllib.request.HTTPSHandler):
    """Answers https requests by URL: status, headers, body."""

    def __init__(self, answers: dict[str, tuple[int, dict[str, str], bytes]]) -> None:
        super().__init__()
        self.answers = answers

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        status, headers, body = self.answers[req.full_url]
        message = email.message.Message()
        for name, value in headers.items():
            message[name] = value
        response = urllib.response.addinfourl(io.BytesIO(body), message, req.full_url, status)
        response.msg = "message"  # type: ignore[attr-defined]
        return response  # type: ignore[return-value]


def fetch(
    target: Path, answers: dict[str, tuple[int, dict[str, str], bytes]], max_bytes: int = 10**6
) -> list[tuple[int, int]]:
    steps: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        steps.append((done, total))

    download(URL, target, max_bytes=max_bytes, progress=progress, handlers=[Answers(answers)])
    return steps


def test_a_file_arrives_with_progress(tmp_path: Path) -> None:
    body = bytes(range(256)) * 1000
    steps = fetch(tmp_path / "a", {URL: (200, {"Content-Length": str(len(body))}, body)})
    assert (tmp_path / "a").read_bytes() == body
    assert steps[-1] == (len(body), len(body))
    assert len(steps) > 2


def test_a_redirection_to_https_is_followed(tmp_path: Path) -> None:
    other = "https://cdn.example.org/b"
    fetch(tmp_path / "a", {URL: (302, {"Location": other}, b""), other: (200, {}, b"body")})
    assert (tmp_path / "a").read_bytes() == b"body"


@pytest.mark.parametrize("other", ["http://example.org/b", "ftp://example.org/b", "file:///etc/x"])
def test_a_redirection_to_anything_else_is_refused(tmp_path: Path, other: str) -> None:
    with pytest.raises((ValueError, OSError), match=r"begins with https://|not allowed"):
        fetch(tmp_path / "a", {URL: (302, {"Location": other}, b"")})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["http://x/a", "file:///etc/passwd", "ftp://x/a", "x"])
def test_other_addresses_are_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(ValueError, match="expected an address that begins with https://"):
        download(url, tmp_path / "a", max_bytes=1)


@pytest.mark.parametrize("headers", [{"Content-Length": "101"}, {}])
def test_too_much_is_refused_announced_or_not(tmp_path: Path, headers: dict[str, str]) -> None:
    (tmp_path / "a").write_text("old")
    with pytest.raises(ValueError, match="at least 101 bytes, expected at most 100"):
        fetch(tmp_path / "a", {URL: (200, headers, bytes(101))}, max_bytes=100)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a", "old")]


def test_a_connection_that_ends_early_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="ended after 4 bytes, expected 10"):
        fetch(tmp_path / "a", {URL: (200, {"Content-Length": "10"}, b"four")})
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_is_said_with_its_address(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"example\.org/a\.zip: cannot be downloaded \(message\)"):
        fetch(tmp_path / "a", {URL: (404, {}, b"")})
