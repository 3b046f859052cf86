"""The states of a run on disk: an index says which are whole, newest last, and old ones go."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from asr.atomic_file import remove_leftovers, replace_bytes, replace_text
from asr.trainer.state import read_state

logger = logging.getLogger(__name__)

INDEX_VERSION = 1
_NAME = re.compile(r"(\d{6,})-step-(\d+)\.pt")  # serial number of the save, and the step


@dataclass(frozen=True)
class Entry:
    """A state file as the index knows it.

    Attributes:
        file: name in the folder; no two saves of a run share one.
        step: optimiser steps done.
        size: [bytes].
        sha256: of its content.
    """

    file: str
    step: int
    size: int
    sha256: str


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
        raise ValueError(f"{name!r} is no state file's name")
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

    Raises:
        ValueError: fewer than 1 to keep.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        if keep < 1:
            raise ValueError(f"trainer.keep_states {keep}, expected 1 or more")
        self.folder = folder
        self.keep = keep

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
                content = path.read_bytes()
                if self._belongs(path, content, index.run):
                    return content, path
        for entry in reversed(index.states):
            path = self.folder / entry.file
            try:
                return _read_whole(path, entry), path
            except ValueError as problem:
                logger.warning("%s: %s; looking for an older state", path, problem)
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
            if is_old and self._belongs(path, path.read_bytes(), index.run):
                path.unlink()

    def clear(self) -> None:
        """Remove all states, for a training that starts anew."""
        for path in self._files():
            path.unlink()
        self.index_file.unlink(missing_ok=True)

    def _belongs(self, path: Path, content: bytes, run: str | None) -> bool:
        """Whether an unlisted file is a whole state of this run; why not is told."""
        try:
            origin = read_state(content, path)["origin"]
        except ValueError as error:
            logger.warning("%s; it is not in the index and is passed over", error)
            return False
        if run is not None and origin.run != run:
            logger.warning("%s: of another run, passed over", path)
            return False
        return True

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
            content = json.loads(self.index_file.read_text(encoding="utf-8"))
            if content["version"] != INDEX_VERSION:
                raise ValueError(f"version {content['version']}, expected {INDEX_VERSION}")
            states = [Entry(**row) for row in content["states"]]
            states.sort(key=lambda each: serial_of(each.file))
            return Index(str(content["run"]), tuple(states))
        except FileNotFoundError:
            return Index()
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("%s: damaged (%s), states are tried one by one", self.index_file, error)
            return Index()

    def _write_index(self, index: Index) -> None:
        content = {"version": INDEX_VERSION, **asdict(index)}
        replace_text(self.index_file, json.dumps(content, indent=1) + "\n")


def _read_whole(path: Path, entry: Entry) -> bytes:
    """A listed file, if it is what was saved.

    Raises:
        ValueError: what is wrong with it.
    """
    if not path.exists():
        raise ValueError("is missing")
    if not path.is_file():
        raise ValueError("is not a file")
    content = path.read_bytes()
    if len(content) != entry.size:
        raise ValueError(f"has {len(content)} bytes, expected {entry.size}")
    if hashlib.sha256(content).hexdigest() != entry.sha256:
        raise ValueError("is damaged: its sha256 is not that of the index")
    return content
