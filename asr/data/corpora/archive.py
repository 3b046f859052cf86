"""Archives unpacked by name into one new folder: no links, no devices, no way out, bounded."""

from __future__ import annotations

import gzip
import os
import shutil
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from asr.data.tar import tar_members
from asr.untrusted import open_regular, shown

ZIP_SUFFIXES = (".zip",)
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")
ARCHIVE_SUFFIXES = ZIP_SUFFIXES + TAR_SUFFIXES
MAX_NAME_LENGTH = 1024  # characters of a member's whole name
CHUNK_BYTES = 1 << 20
# Of a zip's directory [bytes a member]: 46 fixed, then name, extra field and comment.
MAX_ZIP_ENTRY_BYTES = 46 + MAX_NAME_LENGTH
_ZIP_END = struct.Struct("<4s4H2LH")  # end of central directory record (APPNOTE.TXT 4.3.16)
_ZIP64_LOCATOR_LENGTH = 20
_MAX_ZIP_COMMENT = (1 << 16) - 1


@dataclass(frozen=True)
class _Member:
    """One entry of an archive, as its headers describe it; content is None for a folder."""

    name: str
    content: IO[bytes] | None


def unpack(archive: Path, target: Path, *, max_members: int, max_bytes: int) -> int:
    """Unpack a zip or tar archive into a folder that does not exist yet.

    Every member must be a plain file or a folder whose name leads downwards; any other refuses
    the whole archive. Nothing of the archive but names and contents is used: no owner, mode or
    time. Sizes are counted while they are read, not believed. The folder appears when all is
    unpacked.

    Args:
        archive: .zip, .tar, .tar.gz or .tgz.
        target: the folder to make; its parent must exist.
        max_members: files and folders allowed.
        max_bytes: of all contents together.

    Returns:
        How many files were unpacked.

    Raises:
        ValueError: for another format, a damaged or hostile archive, or too much in it.
        OSError: where the archive cannot be read or a file cannot be written.
    """
    temporary = target.with_name(f"{target.name}.part")
    if temporary.is_dir() and not temporary.is_symlink():
        shutil.rmtree(temporary)
    temporary.mkdir()
    try:
        num_files = 0
        with _members(archive, max_members) as members, closing(members):
            left = max_bytes
            for number, member in enumerate(members, 1):
                if number > max_members:
                    raise ValueError(f"{archive}: expected at most {max_members} members")
                path = temporary.joinpath(*_parts(archive, member.name))
                left -= _write(archive, member, path, left, max_bytes)
                num_files += member.content is not None
        os.rename(temporary, target)
    except BaseException:
        shutil.rmtree(temporary)
        raise
    return num_files


def _parts(archive: Path, name: str) -> list[str]:
    """The components of a member's name, if following them can only lead downwards."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    bad = (
        not parts
        or ".." in parts
        or name.startswith("/")
        or "\\" in name
        or ":" in parts[0]
        or len(name) > MAX_NAME_LENGTH
        or any(unicodedata.category(character) in ("Cc", "Cs") for character in name)
    )
    if bad:
        raise ValueError(
            f"{archive}: has a member {shown(name)}, expected a name inside the archive"
        )
    return parts


def _write(archive: Path, member: _Member, path: Path, left: int, max_bytes: int) -> int:
    """Write one member with at most `left` bytes; how many it had."""
    # Folders and files are all new and made by us, so no component can be a link.
    try:
        if member.content is None:
            path.mkdir(parents=True, exist_ok=True)
            return 0
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "xb")  # noqa: SIM115
    except (FileExistsError, NotADirectoryError) as error:
        raise ValueError(f"{archive}: has {member.name!r} twice, expected it once") from error
    size = 0
    with file:
        while chunk := member.content.read(min(CHUNK_BYTES, left - size + 1)):
            size += len(chunk)
            if size > left:
                raise ValueError(f"{archive}: unpacks to more than the {max_bytes} bytes expected")
            file.write(chunk)
    return size


@contextmanager
def _members(archive: Path, max_members: int) -> Iterator[Generator[_Member, None, None]]:
    name = archive.name.lower()
    if not name.endswith(ARCHIVE_SUFFIXES):
        expected = ", ".join(ARCHIVE_SUFFIXES)
        raise ValueError(f"{archive}: not an archive's name, expected one of {expected}")
    try:
        with open_regular(archive, "an archive") as file:
            if name.endswith(ZIP_SUFFIXES):
                _check_zip_directory(archive, file, max_members)
                with zipfile.ZipFile(file) as opened:
                    yield _zip_members(archive, opened)
            else:
                with _decompressed(file, name) as content:
                    yield _tar_members(archive, content)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{archive}: damaged archive ({error})") from error
    except (NotImplementedError, RuntimeError, UnicodeDecodeError, struct.error) as error:
        raise ValueError(f"{archive}: archive of an unknown kind ({error})") from error


def _zip_members(archive: Path, opened: zipfile.ZipFile) -> Generator[_Member, None, None]:
    for info in opened.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise ValueError(f"{archive}: {info.filename!r} is a link or device, expected a file")
        if info.is_dir() or kind == stat.S_IFDIR:
            yield _Member(info.filename, None)
        else:
            with opened.open(info) as content:
                yield _Member(info.filename, content)


def _tar_members(archive: Path, file: IO[bytes]) -> Generator[_Member, None, None]:
    for info, content in tar_members(file):
        if info.isdir() or content is not None:
            yield _Member(info.name, content)
        else:
            raise ValueError(f"{archive}: {info.name!r} is a link or device, expected a file")


def _check_zip_directory(archive: Path, file: IO[bytes], max_members: int) -> None:
    """Refuse a zip whose directory alone would fill the memory, before zipfile reads it."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _ZIP_END.size - _MAX_ZIP_COMMENT - _ZIP64_LOCATOR_LENGTH))
    tail = file.read()
    # The same place where zipfile looks for it.
    start = len(tail) - _ZIP_END.size
    if start < 0 or tail[start : start + 4] != b"PK\5\6" or tail[-2:] != b"\0\0":
        start = tail.rfind(b"PK\5\6")
    if start < 0 or start + _ZIP_END.size > len(tail):
        raise ValueError(f"{archive}: damaged archive (no directory at its end), expected a zip")
    if tail[:start][-_ZIP64_LOCATOR_LENGTH:].startswith(b"PK\6\7"):
        raise ValueError(f"{archive}: a zip64 archive, expected one below 4 GB and 65535 members")
    directory_bytes = _ZIP_END.unpack_from(tail, start)[5]
    if directory_bytes > max_members * MAX_ZIP_ENTRY_BYTES:
        raise ValueError(
            f"{archive}: its directory has {directory_bytes} bytes, "
            f"expected those of at most {max_members} members"
        )


@contextmanager
def _decompressed(file: IO[bytes], name: str) -> Iterator[IO[bytes]]:
    if name.endswith(".tar"):
        yield file
    else:
        with gzip.GzipFile(fileobj=file, mode="rb") as content:
            yield content  # type: ignore[misc]
