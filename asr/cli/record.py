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


def check_own_files(run_dir: Path) -> None:
    """See to it that what is written into a run's folder stays there.

    Raises:
        ValueError: a link, or something that is neither file nor folder, where the run has its own
            files: a log that leads into another file, say.
    """
    for folder in (run_dir, run_dir / RECORD, run_dir / "state"):
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            is_link = path.is_symlink()
            if is_link or not (path.is_file() or path.is_dir()):
                what = "a link" if is_link else "neither a file nor a folder"
                raise ValueError(f"{path}: {what}, expected the run's own files")


def write_record(run_dir: Path, config: DictConfig) -> None:
    """Write the settings of the command that runs, its overrides and Hydra's own settings.

    Raises:
        OSError: it cannot be written.
    """
    hydra = HydraConfig.get()
    folder = run_dir / RECORD
    folder.mkdir(exist_ok=True)
    for name, content in (
        ("config.yaml", config),
        ("hydra.yaml", OmegaConf.create({"hydra": OmegaConf.to_container(hydra)})),
        (OVERRIDES, OmegaConf.create(list(hydra.overrides.task))),
    ):
        replace_text(folder / name, OmegaConf.to_yaml(content))
    (folder / ACCEPTED / OVERRIDES).unlink(missing_ok=True)


def overrides_file(run_dir: Path) -> Path | None:
    """The file of a run's own overrides; None where there is no run."""
    files = (run_dir / RECORD / folder / OVERRIDES for folder in (ACCEPTED, ""))
    return next((file for file in files if file.is_file()), None)
