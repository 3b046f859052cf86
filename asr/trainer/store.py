"""The states of a run on disk: an index says which are whole, newest last, and old ones go."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from asr.atomic_file import remove_leftovers, replace_bytes, replace_text
from asr.text import printable
from asr.trainer.state import read_state
from asr.untrusted import read_bytes, read_json, record, shown

logger = logging.getLogger(__name__)

INDEX_VERSION = 1
MAX_INDEX_BYTES = 1 << 20  # some thousands of states
MAX_STATE_BYTES = 1 << 36  # where nobody says how large a state of his may be
_NAME = re.compile(r"(\d{6,})-step-(\d+)\.pt")  # serial number of the save, and the step
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Entry:
    """A state file as the index knows it.

    Attributes:
        file: name in the folder; no two saves of a run share one.
        step: optimiser steps done.
        size: [bytes].
        sha256: of its content.

    Raises:
        ValueError: what no save has.
    """

    file: str
    step: int
    size: int
    sha256: str

    def __post_init__(self) -> None:
        serial_of(self.file)
        if self.step < 0 or self.size < 0:
            raise ValueError(f"step and size are {self.step} and {self.size}, expected 0 or more")
        if not _SHA256.fullmatch(self.sha256):
            raise ValueError(f"sha256 is {shown(self.sha256)}, expected 64 hexadecimal digits")


@dataclass(frozen=True)
class Index:
    """What a folder says of itself.

    Attributes:
        run: the name of the run whose states these are; None where there is no index.
        states: in the order in which they were saved.
    """

    run: str | None = None
    states: tuple[Entry, ...] = ()

    def newest(self) -> int:
        """Serial number of the last save that is listed; 0 without any."""
        return serial_of(self.states[-1].file) if self.states else 0


def serial_of(name: str) -> int:
    """Which save a state file is of, from 1.

    Raises:
        ValueError: another file's name.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"{shown(name)} is no state file's name")
    return int(match[1])


class StateStore:
    """Keeps the newest states of one run in a folder.

    A state is written beside its final name, synced and renamed, then entered into the index, which
    is replaced in the same way, and only then do older states go. A name is used once, even where a
    step is saved twice (by itself, and after its epoch): otherwise a kill after the renaming would
    leave an index that calls the file damaged. A kill between any two of these leaves states that
    are whole; what it left over is removed by `clean`.

    Args:
        folder: of the states; made when the first one is saved.
        keep: how many of the newest states stay.
        max_bytes: a larger file is none of these states [bytes].

    Raises:
        ValueError: fewer than 1 to keep.
    """

    def __init__(self, folder: Path, keep: int = 2, max_bytes: int = MAX_STATE_BYTES) -> None:
        if keep < 1:
            raise ValueError(f"trainer.keep_states {keep}, expected 1 or more")
        self.folder = folder
        self.keep = keep
        self.max_bytes = max_bytes

    @property
    def index_file(self) -> Path:
        """The file that lists the states."""
        return self.folder / "index.json"

    def exists(self) -> bool:
        """Whether the folder holds a state or what is left of one."""
        return self.index_file.exists() or bool(self._files())

    def save(self, step: int, run: str, content: bytes) -> Path:
        """Add a state as the newest; the others stay as they are until it is safe.

        Args:
            step: optimiser steps done.
            run: the run's name.
            content: of `pack_state`.

        Returns:
            Its file.

        Raises:
            OSError: no space or no permission; it names the file and the bytes needed.
        """
        index = self._read_index()
        serial = 1 + max([index.newest(), *(serial_of(path.name) for path in self._files())])
        path = self.folder / f"{serial:06d}-step-{step}.pt"
        entry = Entry(path.name, step, len(content), hashlib.sha256(content).hexdigest())
        self.folder.mkdir(parents=True, exist_ok=True)
        replace_bytes(path, content)
        # Those of later steps are damaged, or the training would have gone on from there.
        kept = [*(each for each in index.states if each.step <= step), entry][-self.keep :]
        self._write_index(Index(run, tuple(kept)))
        for old in {each.file for each in index.states} - {each.file for each in kept}:
            if (self.folder / old).is_file():
                (self.folder / old).unlink()
        return path

    def load(self) -> tuple[bytes, Path]:
        """The newest state that is whole; whatever is newer and is not is told.

        Raises:
            ValueError: none is.
            OSError: unreadable.
        """
        index = self._read_index()
        for path in self._unlisted(index):
            if serial_of(path.name) > index.newest():  # killed before it was entered
                content = self._own(path, index.run)
                if content is not None:
                    return content, path
        for entry in reversed(index.states):
            path = self.folder / entry.file
            try:
                return self._listed(path, entry), path
            except ValueError as problem:
                logger.warning("%s; looking for an older state", problem)
        raise ValueError(
            f"{self.folder}: holds no whole training state, expected one: start anew with "
            "overwrite=true"
        )

    def clean(self) -> None:
        """Remove what a kill left: unfinished files, and states that the index no longer lists.

        States of another run are left alone.
        """
        if not self.folder.is_dir():
            return
        remove_leftovers(self.folder)
        index = self._read_index()
        for path in self._unlisted(index):
            is_old = serial_of(path.name) < index.newest()
            if is_old and self._own(path, index.run) is not None:
                path.unlink()

    def clear(self) -> None:
        """Remove all states, for a training that starts anew."""
        for path in self._files():
            path.unlink()
        self.index_file.unlink(missing_ok=True)

    def _own(self, path: Path, run: str | None) -> bytes | None:
        """The content of an unlisted file that is a whole state of this run; why not is told."""
        try:
            content = read_bytes(path, "a training state", self.max_bytes)
            origin = read_state(content, path)["origin"]
        except ValueError as error:
            logger.warning("%s; it is not in the index and is passed over", error)
            return None
        if run is not None and origin.run != run:
            logger.warning("%s: of another run, passed over", path)
            return None
        return content

    def _listed(self, path: Path, entry: Entry) -> bytes:
        """The content of a listed file, if it is what was saved.

        Raises:
            ValueError: what is wrong with it.
        """
        if not path.exists():
            raise ValueError(f"{path}: is missing")
        content = read_bytes(path, "a training state", min(entry.size, self.max_bytes))
        if len(content) != entry.size:
            raise ValueError(f"{path}: has {len(content)} bytes, expected {entry.size}")
        if hashlib.sha256(content).hexdigest() != entry.sha256:
            raise ValueError(f"{path}: is damaged: its sha256 is not that of the index")
        return content

    def _files(self) -> list[Path]:
        """State files, the last one saved first."""
        if not self.folder.is_dir():
            return []
        files = [p for p in self.folder.iterdir() if _NAME.fullmatch(p.name) and p.is_file()]
        return sorted(files, key=lambda path: -serial_of(path.name))

    def _unlisted(self, index: Index) -> list[Path]:
        listed = {entry.file for entry in index.states}
        return [path for path in self._files() if path.name not in listed]

    def _read_index(self) -> Index:
        try:
            content = read_json(self.index_file, "the index of states", MAX_INDEX_BYTES)
            if not isinstance(content, dict) or content.get("version") != INDEX_VERSION:
                raise ValueError(f"{self.index_file}: expected an index of version {INDEX_VERSION}")
            del content["version"]
            index = record(Index, content, self.index_file)
        except FileNotFoundError:
            return Index()
        except (OSError, ValueError) as error:
            logger.warning("damaged index, states are tried one by one: %s", printable(str(error)))
            return Index()
        states = sorted(index.states, key=lambda each: serial_of(each.file))
        return Index(index.run, tuple(states))

    def _write_index(self, index: Index) -> None:
        content = {"version": INDEX_VERSION, **asdict(index)}
        replace_text(self.index_file, json.dumps(content, indent=1) + "\n")
