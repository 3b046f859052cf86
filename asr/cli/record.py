"""Record the settings of a run in its folder, read them back, and compare them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asr.atomic_file import replace_text
from asr.cli.conf import config_groups
from asr.cli.overrides import plain_override
from asr.user_yaml import REFERENCE, read_yaml

if TYPE_CHECKING:  # `asr runs` needs neither torch nor Hydra
    from omegaconf import DictConfig

    from asr.model_spec import ModelSpec
    from asr.report.wording import Setting

RECORD = Path(".hydra")  # in a run's folder
CONFIG = RECORD / "config.yaml"
OVERRIDES = "overrides.yaml"
ACCEPTED = "accepted"  # where earlier versions kept what was not refused
# Where a run lies and how it was begun, not what it trains.
NOT_COMPARED = ("name", "resume", "overwrite", "paths.")
# What decides the weights, beside the data and the model file's description.
DECIDING = ("augment", "optim", "schedule", "seed", "trainer")
# Of the trainer: what is written and when, and what a state tells as its surroundings.
NOT_DECIDING = tuple(
    f"trainer.{name}"
    for name in (
        "accelerator", "devices", "keep_models", "keep_states", "log_every", "max_left_out",
        "num_nodes", "num_workers", "precision", "save_every_s", "save_every_steps", "scan_memory",
        "tensorboard", "worst",
    )
)  # fmt: skip


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

    A command does it once it knows that the folder is its own. Hydra would do it at once, so that
    `asr train name=...` of a name that exists, or a resume with settings that do not fit, would
    leave its own for the next resume.

    Raises:
        OSError: it cannot be written.
    """
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    own = HydraConfig.get()
    folder = run_dir / RECORD
    folder.mkdir(exist_ok=True)
    for name, content in (
        ("config.yaml", config),
        ("hydra.yaml", OmegaConf.create({"hydra": OmegaConf.to_container(own)})),
        (OVERRIDES, OmegaConf.create(list(own.overrides.task))),
    ):
        replace_text(folder / name, OmegaConf.to_yaml(content))
    (folder / ACCEPTED / OVERRIDES).unlink(missing_ok=True)


def recorded_overrides(run_dir: Path) -> list[str]:
    """Read the overrides of a training off its record, to go on with it, but for its own resume=.

    Raises:
        ValueError: a folder that is no run, or whose record holds more than plain settings.
        OSError: the record cannot be read.
    """
    files = (run_dir / RECORD / folder / OVERRIDES for folder in (ACCEPTED, ""))
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        raise ValueError(
            f"resume={run_dir}: no run there, expected the folder of an earlier asr train"
        )
    words = read_yaml(file, "the overrides of a training")
    if not isinstance(words, list):
        raise ValueError(f"{file}: no list, expected the overrides of a training")
    return [
        plain_override(word, config_groups(), file)
        for word in words
        if not str(word).startswith("resume=")
    ]


def working_folder(run_dir: Path, words: Sequence[str]) -> Path:
    """Find the folder from which the paths of a run's overrides are meant.

    Args:
        run_dir: of the run.
        words: its overrides, `data.train=a.jsonl` for one.

    Returns:
        The present one, unless a path leads nowhere from there, but does from the folder in which
        the run was begun.
    """
    try:
        hydra = read_yaml(run_dir / RECORD / "hydra.yaml", "Hydra's settings of a training")[
            "hydra"
        ]
        origin = Path(str(hydra["runtime"]["cwd"]))
    except (OSError, ValueError, KeyError, TypeError):  # of no help, and not needed to go on
        return Path.cwd()
    values = [word.partition("=")[2].strip("'\"") for word in words]
    missing = [value for value in values if value and not Path(value).exists()]
    return origin if any((origin / value).exists() for value in missing) else Path.cwd()


def flat_settings(settings: Mapping[str, Any]) -> dict[str, Setting]:
    """Give the settings of a training as dotted keys and plain values, each written once.

    The class that a section builds is the value of the section itself: optim is AdamW. A part of a
    text that refers to another key is followed; whatever else would be looked up stays as written.

    Args:
        settings: of a config, or of its record in a run's folder, as plain data.
    """
    return {
        key: value
        for key, value in _leaves(settings, settings, "")
        if not key.startswith(NOT_COMPARED) and key not in NOT_COMPARED
    }


def _leaves(
    settings: Mapping[str, Any], root: Mapping[str, Any], prefix: str
) -> Iterator[tuple[str, Setting]]:
    for name, value in settings.items():
        key = f"{prefix}{name!s}"
        if name == "_target_":
            yield prefix.rstrip("."), str(value).rsplit(".", 1)[-1]
        elif isinstance(value, dict):
            yield from _leaves(value, root, f"{key}.")
        elif not (isinstance(value, str) and REFERENCE.fullmatch(value)):
            yield key, _plain(value, root)


def _plain(value: Any, root: Mapping[str, Any]) -> Setting:
    if isinstance(value, list):
        return ", ".join(str(_plain(each, root)) for each in value)
    if isinstance(value, str):
        return REFERENCE.sub(lambda match: str(_at(match, root)), value)
    if value is None or isinstance(value, bool | int):
        return value
    return value if isinstance(value, float) and math.isfinite(value) else str(value)


def _at(match: re.Match[str], root: Mapping[str, Any]) -> Any:
    """Find the value that a reference leads to; the reference itself where there is none."""
    value: Any = root
    for name in match[1].split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return match[0] if value is None or isinstance(value, Mapping | list) else value


def deciding_settings(config: DictConfig, spec: ModelSpec) -> dict[str, str]:
    """Find what the weights of a training depend on, data and devices aside, as text by key.

    Args:
        config: of the training.
        spec: of its recogniser, whose architecture may come from a model file.
    """
    from omegaconf import OmegaConf

    raw: Any = OmegaConf.to_container(config, resolve=False)
    settings = {
        key: value
        for key, value in flat_settings(raw).items()
        if key.split(".")[0] in DECIDING and key not in NOT_DECIDING
    }
    for section, part in (("features", spec.features), ("model", spec.model)):
        settings |= {f"{section}.{name}": value for name, value in part.arguments.items()}
    texts = {}
    for key, value in settings.items():  # as a config has it
        if value is None or isinstance(value, bool):
            texts[key] = {None: "null", True: "true", False: "false"}[value]
        elif isinstance(value, float):
            texts[key] = str(value).removesuffix(".0")  # equal numbers are alike: 5 and 5.0
        else:
            texts[key] = str(value)
    return texts
