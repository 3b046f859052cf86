"""What a resume needs: a training's state, saved whole and found again, and its model files.

Random draws are no part of it: augmentation is seeded by (seed, epoch, utterance) and dropout by
(seed, step, rank), so a few integers bring all of them back.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from asr.atomic_file import remove_leftovers, replace_bytes, replace_text
from asr.data.manifest import Utterance
from asr.model_file import save_model
from asr.recognizer import Recognizer
from asr.text import printable
from asr.trainer.distributed import World
from asr.trainer.expected_state import Stateful, fitting_states
from asr.untrusted import read_bytes, read_json, record, shown

logger = logging.getLogger(__name__)

STATE_FOLDER = "state"  # in the run's folder
STATE_VERSION = 3
INDEX_VERSION = 1
MAX_INDEX_BYTES = 1 << 20  # some thousands of states
MAX_STATE_BYTES = 1 << 36  # where nobody says how large a state of his may be
MAX_COUNT = 1 << 53  # of steps, seconds and the like: whole numbers that a float can tell apart
BEST_FILE, LAST_FILE = "best.safetensors", "last.safetensors"
_STATE_NAME = re.compile(r"(\d{6,})-step-(\d+)\.pt")  # serial number of the save, and the step
_MODEL_NAME = re.compile(r"model-(\d+)\.safetensors")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass
class Progress:
    """Where a training stands.

    Attributes:
        epoch: being trained, from 0.
        window: being trained, from 0 within the epoch.
        group: optimiser steps done of this window.
        step: optimiser steps done in all.
        left_out: utterances of this epoch that were left out while training.
        validations: validations done.
        best_wer: lowest dev WER so far, a fraction.
        best_cer: dev CER of that validation, a fraction.
        best_step: its step.
        since_best: validations since.
        audio_s: audio trained on [s].
        elapsed_s: time spent training and validating [s].
        train_s: time spent training alone [s].
        recent_steps: optimiser steps since the last validation.
        recent_loss: sum of their losses [nats a character].
        recent_blanks: sum of their shares of blank frames.
        recent_clipped: how many had their gradient clipped.

    Raises:
        ValueError: numbers that no training has.
    """

    epoch: int = 0
    window: int = 0
    group: int = 0
    step: int = 0
    left_out: int = 0
    validations: int = 0
    best_wer: float = float("inf")
    best_cer: float = float("inf")
    best_step: int = 0
    since_best: int = 0
    audio_s: float = 0.0
    elapsed_s: float = 0.0
    train_s: float = 0.0
    recent_steps: int = 0
    recent_loss: float = 0.0
    recent_blanks: float = 0.0
    recent_clipped: int = 0

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            is_rate = each.name in ("best_wer", "best_cer")  # infinite before the first validation
            most = float("inf") if is_rate and not self.validations else MAX_COUNT
            least = -MAX_COUNT if each.name == "recent_loss" else 0  # rounding, where there is none
            if not least <= value <= most:
                raise ValueError(f"{each.name} is {value}, expected {least} to {most}")
        for part, whole in (
            ("best_step", "step"), ("recent_steps", "step"), ("since_best", "validations"),
        ):  # fmt: skip
            if getattr(self, part) > getattr(self, whole):
                raise ValueError(
                    f"{part} is {getattr(self, part)}, expected at most {whole}, which is "
                    f"{getattr(self, whole)}"
                )


@dataclass(frozen=True)
class Origin:
    """Which training a state belongs to.

    Attributes:
        run: name drawn when the run began; all its states have it.
        plan: fingerprint of all that the order of the data depends on; another one is refused.
        surroundings: the environment that the bits of a training depend on (threads, device,
            versions), by name; a difference is told.
        optimizer: class whose moments these are; another one is refused. Empty where the state was
            saved without.
        settings: what the weights depend on, as text by key, when the state was saved; a difference
            is told. Empty where the state was saved without.
    """

    run: str
    plan: str
    surroundings: Mapping[str, str]
    optimizer: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)


class State(NamedTuple):
    """A state as it was read; its parts are to be compared before they are used."""

    origin: Origin
    progress: Progress
    parts: Mapping[str, Any]


def differences(was: Mapping[str, str], now: Mapping[str, str]) -> str:
    """What differs, in words: `name old -> new`; empty where nothing does."""
    names = [name for name in {**now, **was} if was.get(name) != now.get(name)]
    return printable(
        ", ".join(f"{name} {was.get(name, 'none')} -> {now.get(name, 'none')}" for name in names)
    )


# --- a state and its bytes ---------------------------------------------------------------------


def pack_state(progress: Progress, parts: Mapping[str, Stateful], origin: Origin) -> bytes:
    """The training state as a file's content.

    Args:
        progress: where the training stands.
        parts: by name, all that has a state: model, optimiser, gradient scaler.
        origin: of the training.
    """
    content = {
        "version": STATE_VERSION,
        "origin": asdict(origin)
        | {"surroundings": dict(origin.surroundings), "settings": dict(origin.settings)},
        "progress": asdict(progress),
        "parts": {name: part.state_dict() for name, part in parts.items()},
    }
    # In memory: torch's zip writer turns "no space left" into an error without a cause.
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def read_state(content: bytes, where: object) -> State:
    """Parse a state, whose origin is then known, without running code from it.

    Args:
        content: of `pack_state`.
        where: names it in errors.

    Raises:
        ValueError: damaged, or of another version.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > len(content):
                raise ValueError("packed")  # torch packs nothing: a little could become terabytes
        state = dict(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True))
        # What is no plain data is not shown in a message: a forged tensor can crash torch there.
        json.dumps(version := state["version"])
        if version == STATE_VERSION:
            json.dumps([state["origin"], dict(state["progress"])])
            dict(state["parts"])
    except Exception as error:
        # torch.load has no error of its own: zip, pickle, runtime and OS errors all mean damage.
        raise ValueError(f"{where}: damaged training state ({type(error).__name__})") from error
    if version != STATE_VERSION:
        raise ValueError(
            f"{where}: training state version {shown(version)}, expected {STATE_VERSION}"
        )
    origin = record(Origin, state["origin"], f"{where}: origin")
    known = {each.name for each in fields(Progress)} - {"window"}  # a younger one than the version
    if missing := sorted(known - dict(state["progress"]).keys()):
        raise ValueError(f"{where}: progress: content has no {missing[0]}, expected one")
    return State(origin, record(Progress, state["progress"], f"{where}: progress"), state["parts"])


def unpack_state(
    content: bytes, parts: Mapping[str, Stateful], now: Origin, where: object
) -> tuple[Progress, Origin]:
    """Bring a state back into the parts it was saved from.

    Args:
        content: of `pack_state`.
        parts: the same names as then.
        now: the training that goes on.
        where: names the state in errors.

    Raises:
        ValueError: damaged, of another version, of another model or optimiser, or of a training on
            other data.
    """
    state = read_state(content, where)
    origin = state.origin
    changed = differences(origin.settings, now.settings) if origin.settings else ""
    if origin.plan != now.plan:
        raise ValueError(
            f"{where}: was saved by a training on other data or settings (plan "
            f"{origin.plan[:12]}), expected plan {now.plan[:12]}: resume with the manifests and "
            f"settings of the run{f'; now: {changed}' if changed else ''}"
        )
    if origin.optimizer not in ("", now.optimizer):
        raise ValueError(
            f"{where}: has the moments of {origin.optimizer}, expected those of {now.optimizer}: "
            "resume with the optimiser of the run, or begin a training with init_from="
        )
    skipped = {"audio", "dev_audio"} - state.parts.keys()  # younger parts than the version
    if origin.surroundings.get("precision") != now.surroundings.get("precision"):
        skipped.add("precision")  # the scale of its gradients says nothing of this one's
    try:
        states = fitting_states(state.parts, parts, skipped)
    except ValueError as error:
        raise ValueError(f"{where}: does not fit this model ({error})") from error
    for name, fitting in states.items():
        parts[name].load_state_dict(fitting)
    return state.progress, origin


def restore(
    store: StateStore, parts: Mapping[str, Stateful], now: Origin, world: World, num_windows: int
) -> tuple[Progress, Origin]:
    """Go on from the newest whole state, which rank 0 reads; what is not as it was is told.

    Args:
        store: of the run.
        parts: what is brought back.
        now: the training that goes on.
        world: its ranks.
        num_windows: of an epoch.

    Returns:
        Where the training stands, and its origin: the run's name, and the surroundings it began in.

    Raises:
        ValueError: no state that is whole, or one that does not fit.
    """

    def read() -> tuple[bytes, Path]:
        store.clean()
        return store.load()

    content, path = world.broadcast(read)
    progress, was = unpack_state(content, parts, now, path)
    if progress.window >= num_windows:
        raise ValueError(
            f"{path}: window {progress.window}, expected one of the {num_windows} of an epoch"
        )
    if world.rank == 0:
        if changed := differences(was.surroundings, now.surroundings):
            logger.warning("resumed, but not to the last bit: %s", changed)
        if was.settings and (changed := differences(was.settings, now.settings)):
            logger.warning("resumed with other settings than before: %s", changed)
        audio = parts.get("audio")
        if isinstance(audio, AudioStamps) and audio.changed:
            paths = dict.fromkeys(audio.paths[position] for position in audio.changed)
            logger.warning(
                "resumed on other audio than before: %d of %d files have another size or time of "
                "change than when the state's training began to read them, %s first; it goes on "
                "with them as they are (files that were copied without their times look so too)",
                len(paths), len(set(audio.paths)), printable(str(next(iter(paths)))),
            )  # fmt: skip
    return progress, replace(now, run=was.run, surroundings=was.surroundings)


# --- audio files --------------------------------------------------------------------------------


class AudioStamps:
    """A short number for the file of each utterance, kept with the training's state.

    Args:
        utterances: of a manifest, in an order that the plan's fingerprint fixes.
        is_writer: whether this rank saves states; the others look at no file.

    Attributes:
        paths: of the utterances' files.
        changed: once a state is loaded, positions of utterances whose file has another size or time
            of change than it had then; none where there is no state.
    """

    def __init__(self, utterances: Sequence[Utterance], is_writer: bool = True) -> None:
        self.paths = [utterance.audio_filepath for utterance in utterances]
        # One look at a file, however many utterances are cut from it.
        known = {path: _stamp(path) for path in dict.fromkeys(self.paths)} if is_writer else {}
        stamps = [known.get(path, 0) for path in self.paths]
        self.stamps = torch.tensor(stamps, dtype=torch.int32)
        self.is_writer = is_writer
        self.changed: list[int] | None = None

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` compares with."""
        return {"stamps": self.stamps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Note what has changed since a state of as many utterances was saved."""
        differ = self.stamps != state_dict["stamps"]
        self.changed = torch.nonzero(differ).flatten().tolist() if self.is_writer else []


def _stamp(path: Path) -> int:
    """32 bits, signed, of a file's size and time of change; 0 where it is gone."""
    try:
        found = os.stat(path)
    except OSError:
        return 0
    stamp = zlib.crc32(f"{found.st_size} {found.st_mtime_ns}".encode())
    return stamp - (1 << 32 if stamp >> 31 else 0)


# --- states on disk ----------------------------------------------------------------------------


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
    match = _STATE_NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"{shown(name)} is no state file's name")
    return int(match[1])


class StateStore:
    """Keeps the newest states of one run in a folder, with an index that says which are whole.

    A state is written beside its final name, synced and renamed, then entered into the index, which
    is replaced in the same way, and only then do older states go. A name is used once, even where a
    step is saved twice (by itself, and after its epoch): otherwise a kill after the renaming would
    leave an index that calls the file damaged. A kill between any two of these leaves states that
    are whole; what it left over is removed by `clean`.

    Args:
        folder: of the states; made when the first one is saved.
        keep: how many of the newest states stay.
        max_bytes: a larger file is none of these states [bytes].
    """

    def __init__(self, folder: Path, keep: int = 2, max_bytes: int = MAX_STATE_BYTES) -> None:
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
        listed = {"version": INDEX_VERSION, **asdict(Index(run, tuple(kept)))}
        replace_text(self.index_file, json.dumps(listed, indent=1) + "\n")
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
            origin = read_state(content, path).origin
        except ValueError as error:
            logger.warning("%s; it is not in the index and is skipped", error)
            return None
        if run is not None and origin.run != run:
            logger.warning("%s: of another run, skipped", path)
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
        files = [p for p in self.folder.iterdir() if _STATE_NAME.fullmatch(p.name) and p.is_file()]
        return sorted(files, key=lambda path: -serial_of(path.name))

    def _unlisted(self, index: Index) -> list[Path]:
        listed = {entry.file for entry in index.states}
        return [path for path in self._files() if path.name not in listed]

    def _read_index(self) -> Index:
        try:
            content = read_json(self.index_file, "the index of states", MAX_INDEX_BYTES)
            if not isinstance(content, dict) or content.pop("version", None) != INDEX_VERSION:
                raise ValueError(f"{self.index_file}: expected an index of version {INDEX_VERSION}")
            index = record(Index, content, self.index_file)
        except FileNotFoundError:
            return Index()
        except (OSError, ValueError) as error:
            logger.warning("damaged index, states are tried one by one: %s", printable(str(error)))
            return Index()
        states = sorted(index.states, key=lambda each: serial_of(each.file))
        return Index(index.run, tuple(states))


# --- model files -------------------------------------------------------------------------------


def save_models(
    run_dir: Path, recognizer: Recognizer, summary: Mapping[str, Any], is_best: bool, num_kept: int
) -> None:
    """Write the model files that a validation leaves behind.

    Args:
        run_dir: folder of the run.
        recognizer: that was validated.
        summary: for the model files; has the step.
        is_best: also the best so far.
        num_kept: models of the last validations that stay beside the best and the last, as
            model-STEP.safetensors.
    """
    step: int = summary["step"]
    kept = [f"model-{step}.safetensors"] if num_kept else []
    for name in [BEST_FILE, LAST_FILE, *kept] if is_best else [LAST_FILE, *kept]:
        save_model(run_dir / name, recognizer, summary)
    if num_kept:
        drop_models(run_dir, step, num_kept)


def drop_models(run_dir: Path, step: int, num_kept: int) -> None:
    """Delete a run's kept models but the latest ones.

    Models of later steps go as well: they are of a training that is overwritten, or of validations
    after the state that is resumed from, which will be done again.

    Args:
        run_dir: folder of the run.
        step: optimiser steps done.
        num_kept: models to leave.
    """
    found = {
        int(match[1]): path
        for path in run_dir.iterdir()
        if (match := _MODEL_NAME.fullmatch(path.name)) is not None
    }
    latest = sorted(number for number in found if number <= step)[-num_kept:] if num_kept else []
    for number, path in found.items():
        if number not in latest:
            path.unlink()
