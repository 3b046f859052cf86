"""What a resume needs, in one file that is written whole or not at all.

Random draws are no part of it: augmentation is seeded by (seed, epoch, utterance) and dropout by
(seed, step, rank), so two integers bring all of them back.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from asr.atomic_file import replacing

STATE_VERSION = 2


class Stateful(Protocol):
    """Whatever a resume must bring back."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any: ...


@dataclass
class Progress:
    """Where a training stands.

    Attributes:
        epoch: being trained, from 0.
        group: optimiser steps done of this epoch.
        step: optimiser steps done in all.
        validations: validations done.
        best_wer: lowest dev WER so far, a fraction.
        best_cer: dev CER of that validation, a fraction.
        best_step: its step.
        since_best: validations since.
        audio_s: audio trained on [s].
        elapsed_s: time spent training and validating [s].
        train_s: time spent training alone [s].
    """

    epoch: int = 0
    group: int = 0
    step: int = 0
    validations: int = 0
    best_wer: float = float("inf")
    best_cer: float = float("inf")
    best_step: int = 0
    since_best: int = 0
    audio_s: float = 0.0
    elapsed_s: float = 0.0
    train_s: float = 0.0


def save_state(path: Path, progress: Progress, parts: Mapping[str, Stateful], plan: str) -> None:
    """Write the training state atomically.

    Args:
        path: the state file.
        progress: where the training stands.
        parts: by name, all that has a state: model, optimiser, gradient scaler.
        plan: fingerprint of all that the order of the data depends on.

    Raises:
        OSError: the file cannot be written; a former one is untouched.
    """
    content = {
        "version": STATE_VERSION,
        "plan": plan,
        "progress": asdict(progress),
        "parts": {name: part.state_dict() for name, part in parts.items()},
    }
    # Serialised first: torch's zip writer turns "no space left" into an error without a cause.
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with replacing(path) as file:
        file.write(buffer.getbuffer())


def load_state(path: Path, parts: Mapping[str, Stateful], plan: str) -> Progress:
    """Read a training state into the parts it was saved from.

    Raises:
        ValueError: damaged, of another version, of another model, or of a training on other data.
        OSError: missing or unreadable.
    """
    file = io.BytesIO(path.read_bytes())
    try:
        content: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        version, saved_plan = content["version"], content["plan"]
    except Exception as error:
        # torch.load has no error of its own: zip, pickle, runtime and OS errors all mean damage.
        raise ValueError(f"{path}: damaged training state ({type(error).__name__})") from error
    if version != STATE_VERSION:
        raise ValueError(f"{path}: training state version {version}, expected {STATE_VERSION}")
    if saved_plan != plan:
        raise ValueError(
            f"{path}: was saved by a training on other data or settings (plan {saved_plan[:12]}), "
            f"expected plan {plan[:12]}: resume with the manifests and settings of the run"
        )
    try:
        for name, part in parts.items():
            part.load_state_dict(content["parts"][name])
    except (RuntimeError, ValueError) as error:
        first = str(error).splitlines()[-1].strip()
        raise ValueError(f"{path}: does not fit this model ({first})") from error
    return Progress(**content["progress"])
