"""asr train: compose, build, fit; on several devices in a process each."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from asr.cli.hydra_app import run_hydra
from asr.cli.processes import leave_together, run_on_processes, tell_parent

RESUME = "resume="


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
    if not given or given[-1] in (RESUME, f"{RESUME}null"):
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

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    logger = logging.getLogger("asr")
    run_dir = Path(HydraConfig.get().runtime.output_dir)
    _check_folder(config, run_dir)
    trainer = build_trainer(config)
    recipe = build_recipe(config, logger.warning)
    trainer.fit(recipe, run_dir, resume=config.resume is not None)


def _check_folder(config: DictConfig, run_dir: Path) -> None:
    from asr.trainer.trainer import STATE_FILE

    state = run_dir / STATE_FILE
    if config.resume is not None:
        if not state.is_file():
            raise ValueError(f"resume={config.resume}: holds no training state {state.name}")
    elif state.exists() and not config.overwrite:
        raise ValueError(
            f"{run_dir} already holds a training, expected a new folder: go on with "
            f"resume={os.path.relpath(run_dir)}, choose another name=, or give overwrite=true"
        )
