"""The record of a run's settings in its folder, for a resume and for `asr runs`.

A command writes it itself once it knows that the folder is its own: Hydra would write it at once,
so that `asr train name=...` of a name that exists, or a resume with settings that do not fit, would
leave its own for the next resume.
"""

from __future__ import annotations

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from asr.atomic_file import replace_text

RECORD = Path(".hydra")
CONFIG = RECORD / "config.yaml"
OVERRIDES = "overrides.yaml"
ACCEPTED = "accepted"  # where earlier versions kept what was not refused


def write_record(run_dir: Path, config: DictConfig) -> None:
    """Write the settings of the command that runs, its overrides and Hydra's own settings.

    Raises:
        ValueError: a link in place of the folder: what it leads to is not the run's.
        OSError: it cannot be written.
    """
    hydra = HydraConfig.get()
    folder = run_dir / RECORD
    if folder.is_symlink():
        raise ValueError(f"{folder}: a link, expected a folder of the run's own")
    folder.mkdir(exist_ok=True)
    for name, content in (
        ("config.yaml", config),
        ("hydra.yaml", OmegaConf.create({"hydra": OmegaConf.to_container(hydra)})),
        (OVERRIDES, OmegaConf.create(list(hydra.overrides.task))),
    ):
        replace_text(folder / name, OmegaConf.to_yaml(content))
    if not (folder / ACCEPTED).is_symlink():
        (folder / ACCEPTED / OVERRIDES).unlink(missing_ok=True)


def overrides_file(run_dir: Path) -> Path | None:
    """The file of a run's own overrides; None where there is no run."""
    files = (run_dir / RECORD / folder / OVERRIDES for folder in (ACCEPTED, ""))
    return next((file for file in files if file.is_file()), None)
