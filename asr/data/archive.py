"""Archives from the network or from anybody: fetched and unpacked by name, within bounds.

Not by pooch, which bounds neither what it downloads nor what it unpacks, follows a redirection away
from https, and leaves names and links to the extraction of zipfile and tarfile.
"""

from __future__ import annotations

import gzip
import http.client
import os
import shutil
import stat
import struct
import tarfile
import unicodedata
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeVar

from asr.atomic_file import replacing
from asr.untrusted import HasBytes, open_regular, shown

TIMEOUT_S = 30.0  # [s] of a download without a single byte
DOWNLOAD_BYTES = 1 << 16  # that are read at a time
CHUNK_BYTES = 1 << 20  # of a member that are written at a time
ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
MAX_NAME_LENGTH = 1024  # characters of a member's whole name

# Of a zip's directory [bytes a member]: 46 fixed, then name, extra field and comment.
MAX_ZIP_ENTRY_BYTES = 46 + MAX_NAME_LENGTH
_ZIP_END = struct.Struct("<4s4H2LH")  # end of central directory record (APPNOTE.TXT 4.3.16)
_ZIP64_LOCATOR_LENGTH = 20
_MAX_ZIP_COMMENT = (1 << 16) - 1

BLOCK_BYTES = 1 << 20  # of a tar that are read at a time
# Of a member's headers: its name, and what PAX and GNU write before it. tarfile reads them whole,
# whatever size they announce, and in a time that grows with its square; and so the map of a file
# with holes, which lies where others have their content.
MAX_HEADER_BYTES = 1 << 13

# Name and content of a member; no content of a folder.
Member = tuple[str, IO[bytes] | None]
T = TypeVar("T")


# --- fetched -----------------------------------------------------------------------------------


def download(
    url: str,
    target: Path,
    *,
    max_bytes: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
    handlers: Sequence[urllib.request.BaseHandler] = (),
) -> None:
    """Fetch a file; one that was cut off is fetched again from its beginning.

    Args:
        url: https; so are all redirections.
        target: the file to write, whole or not at all.
        max_bytes: refuse more.
        progress: told how many bytes of how many have come.
        handlers: for urllib, in place of its own of the same class; those honour https_proxy.

    Raises:
        ValueError: for another kind of URL, or more than `max_bytes`.
        OSError: where the network or the disk fails; `target` is then as it was.
    """

    def check_size(size: int) -> None:
        if size > max_bytes:
            raise ValueError(f"{url}: at least {size} bytes, expected at most {max_bytes}")

    _check_https(url)
    opener = urllib.request.build_opener(_HttpsOnlyRedirects(), *handlers)
    try:
        with opener.open(url, timeout=TIMEOUT_S) as response, replacing(target) as file:
            total = int(response.headers.get("Content-Length") or 0)
            check_size(total)
            done = 0
            while chunk := response.read(DOWNLOAD_BYTES):
                done += len(chunk)
                check_size(done)
                file.write(chunk)
                progress(done, max(total, done))
            if done < total:
                raise OSError(f"{url}: the connection ended after {done} bytes, expected {total}")
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise OSError(f"{url}: cannot be downloaded ({reason or type(error).__name__})") from error


def _check_https(url: str) -> None:
    if not url.lower().startswith("https://"):
        raise ValueError(f"{url}: not downloaded, expected an address that begins with https://")


class _HttpsOnlyRedirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirection to https and refuses any other."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> urllib.request.Request | None:
        _check_https(kwargs.get("newurl") or args[5])
        return super().redirect_request(*args, **kwargs)


# --- unpacked ----------------------------------------------------------------------------------


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
        num_files = _unpack_into(temporary, archive, max_members, max_bytes)
        os.rename(temporary, target)
    except BaseException as error:
        shutil.rmtree(temporary)
        # What zipfile, tarfile and gzip raise of damage, and of kinds that they do not know.
        damage = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile)
        if isinstance(error, damage):
            raise ValueError(f"{archive}: damaged archive ({error})") from error
        if isinstance(error, (NotImplementedError, RuntimeError, UnicodeDecodeError, struct.error)):
            raise ValueError(f"{archive}: archive of an unknown kind ({error})") from error
        raise
    return num_files


def _unpack_into(folder: Path, archive: Path, max_members: int, max_bytes: int) -> int:
    name = archive.name.lower()
    if not name.endswith(ARCHIVE_SUFFIXES):
        expected = ", ".join(ARCHIVE_SUFFIXES)
        raise ValueError(f"{archive}: not an archive's name, expected one of {expected}")
    num_files, left = 0, max_bytes
    with ExitStack() as stack:
        file: Any = stack.enter_context(open_regular(archive, "an archive"))
        if name.endswith(".zip"):
            check_zip_directory(archive, file, max_members)
            members = _zip_members(archive, stack.enter_context(zipfile.ZipFile(file)))
        else:
            if not name.endswith(".tar"):
                file = stack.enter_context(gzip.GzipFile(fileobj=file, mode="rb"))
            members = _tar_members(archive, file)
        stack.callback(members.close)
        for number, (member, content) in enumerate(members, 1):
            if number > max_members:
                raise ValueError(f"{archive}: expected at most {max_members} members")
            path = folder.joinpath(*_parts(archive, member))
            # Folders and files are all new and made by us, so no component can be a link.
            try:
                if content is None:
                    path.mkdir(parents=True, exist_ok=True)
                    continue
                path.parent.mkdir(parents=True, exist_ok=True)
                written = open(path, "xb")  # noqa: SIM115
            except (FileExistsError, NotADirectoryError) as error:
                raise ValueError(f"{archive}: has {member!r} twice, expected it once") from error
            num_files += 1
            with written:
                while chunk := content.read(min(CHUNK_BYTES, left + 1)):
                    left -= len(chunk)
                    if left < 0:
                        raise ValueError(
                            f"{archive}: unpacks to more than the {max_bytes} bytes expected"
                        )
                    written.write(chunk)
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


def _zip_members(archive: Path, opened: zipfile.ZipFile) -> Generator[Member, None, None]:
    for info in opened.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise ValueError(f"{archive}: {info.filename!r} is a link or device, expected a file")
        if info.is_dir() or kind == stat.S_IFDIR:
            yield info.filename, None
        else:
            with opened.open(info) as content:
                yield info.filename, content


def _tar_members(archive: Path, file: IO[bytes]) -> Generator[Member, None, None]:
    for info, content in tar_members(file):
        if not info.isdir() and content is None:
            raise ValueError(f"{archive}: {info.name!r} is a link or device, expected a file")
        yield info.name, content


def check_zip_directory(archive: Path, file: IO[bytes], max_members: int) -> None:
    """Refuse a zip whose directory alone would fill the memory, before zipfile reads it.

    Args:
        archive: names it in messages.
        file: of the zip, that can be sought.
        max_members: allowed.

    Raises:
        ValueError: no zip, a zip64, or one with more.
    """
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


# --- a tar's members ---------------------------------------------------------------------------


def tar_members(file: HasBytes) -> Generator[tuple[tarfile.TarInfo, IO[bytes] | None], None, None]:
    """Go once through the members of a tar that is not packed.

    Args:
        file: read from where it is.

    Yields:
        A member and, where it is a plain file, its content, which can be read until the next member
        is asked for: None for folders, and for links, devices and files with holes. Whoever asks
        for the next has looked at the member's size: so much is passed over.

    Raises:
        tarfile.TarError: damaged, or headers beyond MAX_HEADER_BYTES.
    """
    bounded: Any = _Bounded(file)  # all it needs is read
    # Not "r|*": what is packed once more could unpack to any size.
    begin = partial(
        tarfile.open, fileobj=bounded, mode="r|", bufsize=BLOCK_BYTES,
        encoding="utf-8", errors="strict",
    )  # fmt: skip
    tar: Any = _careful(begin)
    member: tarfile.TarInfo | None
    while (member := _careful(tar.next)) is not None:
        tar.members.clear()  # tarfile would keep them all
        if member.size < 0:
            raise tarfile.ReadError(f"{member.name!r} has {member.size} bytes")
        padded = -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
        bounded.limit = member.offset_data + padded + MAX_HEADER_BYTES
        is_plain = member.isreg() and not member.issparse()
        yield member, tar.extractfile(member) if is_plain else None


def _careful(step: Callable[[], T]) -> T:
    """What a step of tarfile gives; names that are no UTF-8 and sizes that are none are damage."""
    try:
        return step()
    except ValueError as error:
        raise tarfile.ReadError(str(error)) from error


class _Bounded:
    """A file of which no more is read than up to a limit.

    Attributes:
        limit: from the beginning [bytes].
    """

    def __init__(self, file: HasBytes) -> None:
        self._file = file
        self._taken = 0
        self.limit = MAX_HEADER_BYTES

    def read(self, size: int) -> bytes:
        """The next bytes, fewer before the limit.

        Raises:
            tarfile.TarError: there are none before it.
        """
        left = self.limit - self._taken
        if left <= 0:
            raise tarfile.ReadError(f"headers of more than {MAX_HEADER_BYTES} bytes")
        block = self._file.read(min(size, left))
        self._taken += len(block)
        return block
