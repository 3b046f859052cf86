"""asr train: compose, build, fit; on several devices in a process each."""

from __future__ import annotations

import logging
import os
import re
import sys
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from asr.cli.hydra_app import run_hydra
from asr.cli.processes import leave_stopped, leave_together, run_on_processes, tell_parent

RESUME = "resume="
AUTO = "auto"  # go on where there is a state, begin where there is none
TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d")  # the name of a run without one


def main(arguments: list[str]) -> int:
    """Run `asr train`; see conf/train.yaml for its settings."""
    return run_hydra("train", _job, _with_resumed_overrides(arguments))


def _with_resumed_overrides(arguments: list[str]) -> list[str]:
    """A resumed run's own overrides, then those given now, in the run's own folder.

    Raises:
        ValueError: a folder that is no run.
    """
    if os.environ.get("RANK", "0") != "0":
        # Ranks share the run's folder; rank 0 alone writes Hydra's record and the log there.
        arguments = [*arguments, "hydra.output_subdir=null", "hydra/job_logging=disabled"]
    given = [word for word in arguments if word.startswith(RESUME)]
    if not given or given[-1].removeprefix(RESUME) in ("", "null", AUTO):
        return arguments
    folder = Path(given[-1].removeprefix(RESUME))
    overrides = folder / ".hydra" / "overrides.yaml"
    if not overrides.is_file():
        raise ValueError(
            f"resume={folder}: no run there, expected the folder of an earlier asr train"
        )
    earlier = [str(word) for word in OmegaConf.load(overrides) if not str(word).startswith(RESUME)]
    return [*earlier, *arguments, f"hydra.run.dir={folder}"]


def _job(config: DictConfig) -> None:
    if config.trainer.devices > 1 and "RANK" not in os.environ:
        run_on_processes(config.trainer.devices, ["train", *sys.argv[1:]])
        return
    with tell_parent():
        _train(config)
        leave_together()


def _train(config: DictConfig) -> None:
    # Imported here: `asr train --help` and completion need no torch.
    from asr.cli.build import build_recipe, build_trainer
    from asr.cli.start import start_recipe
    from asr.trainer.preemption import Stopped

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    logger = logging.getLogger("asr")
    run_dir = Path(HydraConfig.get().runtime.output_dir)
    resume = _is_resumed(config, run_dir)
    trainer = build_trainer(config)
    recipe = build_recipe(config, logger.warning)
    recipe = start_recipe(recipe, config.init_from, run_dir, resume)
    try:
        trainer.fit(recipe, run_dir, resume)
    except Stopped as stopped:
        logger.warning("%s", stopped)
        leave_stopped()


def _is_resumed(config: DictConfig, run_dir: Path) -> bool:
    """Whether to go on from a state in the run's folder.

    Raises:
        ValueError: no state to go on from, one that would be lost, or no lasting name for `auto`.
    """
    from asr.trainer.run import STATE_FOLDER
    from asr.trainer.store import StateStore

    has_state = StateStore(run_dir / STATE_FOLDER).exists()
    if config.resume == AUTO:
        if TIMESTAMP.fullmatch(str(config.name)):
            raise ValueError("resume=auto without a name, expected name=... that stays the same")
        return has_state
    if config.resume is not None:
        if not has_state:
            raise ValueError(f"resume={config.resume}: holds no training state ({STATE_FOLDER}/)")
        return True
    if has_state and not config.overwrite:
        raise ValueError(
            f"{run_dir} already holds a training, expected a new folder: go on with "
            f"resume={os.path.relpath(run_dir)}, choose another name=, or give overwrite=true"
        )
    return False
