"""A folder of shards, on a disk or in object storage."""

from __future__ import annotations

import re
from pathlib import Path
from typing import IO

from asr.untrusted import open_regular

SCHEMES = ("http", "https", "s3", "gs")
NEEDS = "pip install 'lstm-asr[lhotse]' smart_open"  # s3 and gs: smart_open[s3], smart_open[gcs]
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")


class SharFolder:
    """Opens the files of a folder by name; never runs anything, whatever the location says.

    Args:
        location: a local path, or a URL of one of SCHEMES, which is read through lhotse.

    Raises:
        ValueError: a URL of another kind, or a command (`pipe:`).
        NotADirectoryError: a local path that is no folder.
    """

    def __init__(self, location: str | Path) -> None:
        text = str(location).rstrip("/") or "/"
        scheme = _SCHEME.match(text)
        self.path: Path | None = None
        if scheme is None:
            self.path = Path(text)
            if not self.path.is_dir():
                raise NotADirectoryError(20, "is no folder, expected one of Shar shards", text)
        elif scheme[1] not in SCHEMES or not text.startswith(f"{scheme[1]}://"):
            kinds = ", ".join(f"{name}://" for name in SCHEMES)
            raise ValueError(f"{text}: not a folder of shards, expected a path or {kinds}")
        self.location = text

    def __str__(self) -> str:
        return self.location

    def where(self, name: str) -> str:
        """A file as messages name it."""
        return f"{self.location}/{name}"

    def open(self, name: str) -> IO[bytes]:
        """Open a file's bytes, as they lie there.

        Raises:
            ValueError: not a regular file, or lhotse or smart_open is missing for a URL.
            OSError: missing or unreadable.
        """
        if self.path is not None:
            return open_regular(self.path / name, "a file of Shar")
        return _open_url(self.where(name))

    def names(self) -> list[str]:
        """The files of a local folder, sorted.

        Raises:
            ValueError: a URL, which cannot be listed.
        """
        if self.path is None:
            raise ValueError(f"{self}: cannot be listed, expected an index in it: see asr shar")
        return sorted(path.name for path in self.path.iterdir())


def _open_url(url: str) -> IO[bytes]:
    try:
        from lhotse.utils import SmartOpen

        # Without `compression` it would unpack by the name, and the bytes have another sha256.
        file: IO[bytes] = SmartOpen.open(url, "rb", compression="disable")
    except ImportError as error:
        raise ValueError(f"{url}: needs {error.name or 'smart_open'}: {NEEDS}") from error
    return file
