"""The recordings of a shard: encoded audio out of its tar, paired with its cuts."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import PurePosixPath
from typing import IO

from asr.data.archive import tar_members
from asr.data.shar.cuts import check_sha256
from asr.data.shar.folder import SharFolder

MAX_AUDIO_BYTES = 2**31  # of one recording: 4 hours of 16-bit samples at 48 kHz take 1.4e9
BLOCK_BYTES = 1 << 20  # that are hashed at a time
MAX_DESCRIPTION_BYTES = 1 << 20  # of one recording's
MAX_REST_BYTES = 1 << 21  # 2 MiB; tars are filled up to whole records, of 10 KiB or more
NO_DATA = ".nodata"  # the suffix that stands for a cut without audio


def read_recordings(
    folder: SharFolder,
    name: str,
    cut_ids: Sequence[str],
    wanted: Collection[str],
    sha256: str | None = None,
) -> dict[str, bytes]:
    """Read a shard's tar from end to end: two members a cut, its audio and a description.

    Args:
        folder: where it lies.
        name: of the tar.
        cut_ids: of the shard, in order; the tar's must be the same.
        wanted: the cuts whose audio is to be kept.
        sha256: of the tar; None does not check.

    Returns:
        Encoded audio by cut id.

    Raises:
        ValueError: damaged, cut short, changed, or not the tar of these cuts.
        OSError: missing or unreadable.
    """
    where = folder.where(name)
    with folder.open(name) as file:
        hashed = HashedReader(file)
        try:
            audio = _extract(where, tar_members(hashed), cut_ids, wanted)
            actual = hashed.finish()
        except tarfile.TarError as error:
            raise ValueError(f"{where}: damaged tar ({error})") from error
        check_sha256(where, actual, sha256)
    return audio


class HashedReader:
    """A file that is hashed while it is read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._digest = hashlib.sha256()

    def read(self, size: int) -> bytes:
        """The next bytes."""
        block = self._file.read(size)
        self._digest.update(block)
        return block

    def finish(self) -> str:
        """The sha256 of the whole file, of whose rest no more is read than fills a tar up.

        Raises:
            tarfile.TarError: there is more.
        """
        left = MAX_REST_BYTES
        while block := self.read(BLOCK_BYTES):
            left -= len(block)
            if left < 0:
                raise tarfile.ReadError(f"more than {MAX_REST_BYTES} bytes behind its end")
        return self._digest.hexdigest()


def _extract(
    where: str,
    members: Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]],
    cut_ids: Sequence[str],
    wanted: Collection[str],
) -> dict[str, bytes]:
    audio: dict[str, bytes] = {}
    for cut_id in cut_ids:
        member, file = next(members, (None, None))
        path = PurePosixPath("" if member is None else member.name)
        if member is None or str(path.parent / path.stem) != cut_id:
            found = "ends" if member is None else f"goes on with {member.name!r}"
            raise ValueError(f"{where}: {found}, expected the audio of cut {cut_id!r}")
        _check(where, member, file, MAX_AUDIO_BYTES)
        if cut_id in wanted:
            if member.name.endswith(NO_DATA):
                raise ValueError(
                    f"{where}: {member.name!r} holds no audio, expected some as its cut says"
                )
            assert file is not None, "a plain file"
            audio[cut_id] = file.read()
        description, file = next(members, (None, None))  # of the audio, which the cut repeats
        if description is not None:
            _check(where, description, file, MAX_DESCRIPTION_BYTES)
    more, _ = next(members, (None, None))
    if more is not None:
        raise ValueError(f"{where}: has {more.name!r} as well, expected its cuts' audio alone")
    return audio


def _check(where: str, member: tarfile.TarInfo, file: IO[bytes] | None, max_bytes: int) -> None:
    if file is None or member.size > max_bytes:
        raise ValueError(
            f"{where}: {member.name!r} has {member.size} bytes, expected a plain file of at most "
            f"{max_bytes}"
        )
