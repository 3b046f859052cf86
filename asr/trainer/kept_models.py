"""The models of the last validations, for averaging."""

from __future__ import annotations

import re
from pathlib import Path

_NAME = re.compile(r"model-(\d+)\.safetensors")


def kept_model(run_dir: Path, step: int) -> Path:
    """The model file of the validation after an optimiser step."""
    return run_dir / f"model-{step}.safetensors"


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
