"""Which audio files of a corpus are written, and from what: read again after a kill."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

from asr.atomic_file import replace_text
from asr.data.corpora.corpus_folder import STATE_DIR


@dataclass(frozen=True)
class Written:
    """A file that was written.

    Attributes:
        fingerprint: of the source and the settings it was made from.
        num_samples: of its audio.
        num_clipped: samples that were beyond full scale.
        num_bytes: of the whole file, by which a cut one is found out.
    """

    fingerprint: str
    num_samples: int
    num_clipped: int
    num_bytes: int


class Journal:
    """Written files by their path in the corpus folder; one line each, added when it is in place.

    Attributes:
        done: what is noted.
    """

    def __init__(self, path: Path, file: TextIO, done: dict[str, Written]) -> None:
        self._path = path
        self._file = file
        self.done = done

    def add(self, name: str, written: Written) -> None:
        """Note that a file is in place."""
        self.done[name] = written
        self._file.write(_line(name, written))

    def forget(self, names: Collection[str]) -> None:
        """Strike files that are gone."""
        for name in names:
            del self.done[name]
        _rewrite(self._path, self.done)


@contextmanager
def open_journal(folder: Path) -> Iterator[Journal]:
    """Read a corpus folder's journal and keep it open for additions."""
    path = folder / STATE_DIR / "audio.jsonl"
    lines = path.read_text().splitlines() if path.is_file() else []
    entries = [entry for entry in map(_parse, lines) if entry is not None]
    # Without it, the first new line would be the rest of one that a kill cut.
    _rewrite(path, dict(entries))
    with open(path, "a", buffering=1) as file:
        yield Journal(path, file, dict(entries))


def _rewrite(path: Path, done: dict[str, Written]) -> None:
    replace_text(path, "".join(_line(*entry) for entry in done.items()))


def _line(name: str, written: Written) -> str:
    return json.dumps({"file": name, **asdict(written)}) + "\n"


def _parse(line: str) -> tuple[str, Written] | None:
    """The entry of a line; none where a kill or a full disk cut it: that file is made again."""
    try:
        entry = json.loads(line)
        return entry.pop("file"), Written(**entry)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
