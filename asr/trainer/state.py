"""What a resume needs, as bytes that say which training they belong to.

Random draws are no part of it: augmentation is seeded by (seed, epoch, utterance) and dropout by
(seed, step, rank), so three integers bring all of them back.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch

from asr.text import printable
from asr.trainer.expected_state import Stateful, fitting_states
from asr.untrusted import record, shown

STATE_VERSION = 3
MAX_COUNT = 1 << 53  # of steps, seconds and the like: whole numbers that a float can tell apart


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
        surroundings: what else the bits of a training depend on (threads, device, versions), by
            name; a difference is told.
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


def differences(was: Mapping[str, str], now: Mapping[str, str]) -> str:
    """What differs, in words: `name old -> new`; empty where nothing does."""
    names = [name for name in {**now, **was} if was.get(name) != now.get(name)]
    return printable(
        ", ".join(f"{name} {was.get(name, 'none')} -> {now.get(name, 'none')}" for name in names)
    )


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


def read_state(content: bytes, where: object) -> dict[str, Any]:
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
        state: dict[str, Any] = torch.load(
            io.BytesIO(content), map_location="cpu", weights_only=True
        )
        # What is no plain data is not shown in a message: a forged tensor can crash torch there.
        json.dumps(version := dict(state)["version"])
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
    state["origin"] = record(Origin, state["origin"], f"{where}: origin")
    known = {each.name for each in fields(Progress)} - {"window"}  # a younger one than the version
    if missing := sorted(known - dict(state["progress"]).keys()):
        raise ValueError(f"{where}: progress: content has no {missing[0]}, expected one")
    state["progress"] = record(Progress, state["progress"], f"{where}: progress")
    return state


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
    origin: Origin = state["origin"]
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
    passed_over = {"audio"} - state["parts"].keys()  # a younger part than the version
    if origin.surroundings.get("precision") != now.surroundings.get("precision"):
        passed_over.add("precision")  # the scale of its gradients says nothing of this one's
    try:
        states = fitting_states(state["parts"], parts, passed_over)
    except ValueError as error:
        raise ValueError(f"{where}: does not fit this model ({error})") from error
    for name, fitting in states.items():
        parts[name].load_state_dict(fitting)
    progress: Progress = state["progress"]
    return progress, origin
