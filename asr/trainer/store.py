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
_NAME = re.compile(r"step-(\d{9,})\.pt")


@dataclass(frozen=True)
class Entry:
    """A state file as the index knows it.

    Attributes:
        file: name in the folder.
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
        states: by rising step.
    """

    run: str | None = None
    states: tuple[Entry, ...] = ()

    def newest_step(self) -> int:
        """Of the listed states; -1 without any."""
        return self.states[-1].step if self.states else -1


class StateStore:
    """Keeps the newest states of one run in a folder.

    A state is written beside its final name, synced and renamed, then entered into the index, which
    is replaced in the same way, and only then do older states go. A kill between any two of these
    leaves states that are whole; what it left over is removed by `clean`.

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
        path = self.folder / f"step-{step:09d}.pt"
        entry = Entry(path.name, step, len(content), hashlib.sha256(content).hexdigest())
        self.folder.mkdir(parents=True, exist_ok=True)
        replace_bytes(path, content)
        known = self._read_index().states
        # Later ones are damaged, or the training would have gone on from there.
        kept = [*(each for each in known if each.step < step), entry][-self.keep :]
        self._write_index(Index(run, tuple(kept)))
        for old in {each.file for each in known} - {each.file for each in kept}:
            _remove(self.folder / old)
        return path

    def load(self) -> tuple[bytes, Path]:
        """The newest state that is whole; whatever is newer and is not is told.

        Raises:
            ValueError: none is.
            OSError: unreadable.
        """
        index = self._read_index()
        for path, step in self._unlisted(index):
            if step > index.newest_step():  # killed before it was entered
                content = path.read_bytes()
                if self._belongs(path, content, index.run):
                    return content, path
        for entry in reversed(index.states):
            path = self.folder / entry.file
            problem = _problem(path, entry)
            if problem is None:
                return path.read_bytes(), path
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
        for path, step in self._unlisted(index):
            is_old = step <= index.newest_step()
            if is_old and self._belongs(path, path.read_bytes(), index.run):
                path.unlink()

    def clear(self) -> None:
        """Remove all states, for a training that starts anew."""
        for path, _ in self._files():
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

    def _files(self) -> list[tuple[Path, int]]:
        """State files by falling step."""
        if not self.folder.is_dir():
            return []
        matches = [(path, _NAME.fullmatch(path.name)) for path in self.folder.iterdir()]
        files = [(path, int(match[1])) for path, match in matches if match and path.is_file()]
        return sorted(files, key=lambda pair: -pair[1])

    def _unlisted(self, index: Index) -> list[tuple[Path, int]]:
        listed = {entry.file for entry in index.states}
        return [(path, step) for path, step in self._files() if path.name not in listed]

    def _read_index(self) -> Index:
        try:
            content = json.loads(self.index_file.read_text(encoding="utf-8"))
            if content["version"] != INDEX_VERSION:
                raise ValueError(f"version {content['version']}, expected {INDEX_VERSION}")
            states = sorted((Entry(**row) for row in content["states"]), key=lambda each: each.step)
            return Index(str(content["run"]), tuple(states))
        except FileNotFoundError:
            return Index()
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("%s: damaged (%s), states are tried one by one", self.index_file, error)
            return Index()

    def _write_index(self, index: Index) -> None:
        content = {"version": INDEX_VERSION, **asdict(index)}
        replace_text(self.index_file, json.dumps(content, indent=1) + "\n")


def _remove(path: Path) -> None:
    """A state file, or whatever stands in its place."""
    if path.is_dir() and not path.is_symlink():
        return  # nobody of this program made it
    path.unlink(missing_ok=True)


def _problem(path: Path, entry: Entry) -> str | None:
    """What is wrong with a listed file, None where it is what was saved."""
    if not path.exists():
        return "is missing"
    if not path.is_file():
        return "is not a file"
    size = path.stat().st_size
    if size != entry.size:
        return f"has {size} bytes, expected {entry.size}"
    if hashlib.sha256(path.read_bytes()).hexdigest() != entry.sha256:
        return "is damaged: its sha256 is not that of the index"
    return None
