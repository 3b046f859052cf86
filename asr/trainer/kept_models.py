"""The model files of a run: the best, the last, and those of the last validations."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from asr.model_file import save_model
from asr.recognizer import Recognizer

BEST_FILE, LAST_FILE = "best.safetensors", "last.safetensors"
_NAME = re.compile(r"model-(\d+)\.safetensors")


def kept_model(step: int) -> str:
    """File name of the model of the validation after an optimiser step."""
    return f"model-{step}.safetensors"


def save_models(
    run_dir: Path, recognizer: Recognizer, summary: Mapping[str, Any], is_best: bool, num_kept: int
) -> None:
    """Write what a validation leaves behind.

    Args:
        run_dir: folder of the run.
        recognizer: that was validated.
        summary: for the model files; has the step.
        is_best: also the best so far.
        num_kept: models of the last validations that stay beside the best and the last, under
            their step.
    """
    step: int = summary["step"]
    kept = [kept_model(step)] if num_kept else []
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
        if (match := _NAME.fullmatch(path.name)) is not None
    }
    latest = sorted(number for number in found if number <= step)[-num_kept:] if num_kept else []
    for number, path in found.items():
        if number not in latest:
            path.unlink()
