"""Where a training starts: with fresh weights, or with those of a model file."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path

from asr.model_file import origin_of, save_model, transfer_model
from asr.trainer import Recipe

logger = logging.getLogger(__name__)

START_FILE = "start.safetensors"


def start_recipe(recipe: Recipe, init_from: str | None, run_dir: Path, is_resumed: bool) -> Recipe:
    """The recipe with the weights of `init_from`, if it is given.

    The model that the training starts with is put into the run's folder: a resume needs the
    architecture, and finds it there when the file that it came from is gone.

    Args:
        recipe: as the settings ask for it, with fresh weights.
        init_from: a model file; None keeps the fresh weights.
        run_dir: folder of the run.
        is_resumed: start from the model in the run's folder.

    Raises:
        ValueError: not a model file, or a resume of a training that began with fresh weights.
        OSError: missing or unreadable.
    """
    stored = run_dir / START_FILE
    writes = os.environ.get("RANK", "0") == "0" and not is_resumed
    if init_from is None:
        if writes:
            stored.unlink(missing_ok=True)  # of a training that is overwritten
        return recipe
    if is_resumed and not stored.exists():
        raise ValueError(
            f"init_from={init_from}: {run_dir} has no {START_FILE}, so it began with fresh "
            "weights, expected init_from=null to go on with it"
        )
    path = stored if is_resumed else Path(init_from)
    transfer = transfer_model(path, recipe.recognizer.spec)
    origin = transfer.training if is_resumed else origin_of(path)
    if writes:
        save_model(stored, transfer.recognizer, origin)
        logger.info("start: %s", path)
        for note in transfer.notes:
            logger.info("%s", note)
    return replace(recipe, recognizer=transfer.recognizer, start=origin)
