"""The config of a training as dotted keys and plain values: to be compared, and to be told."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from asr.report.runs import Setting

if TYPE_CHECKING:  # `asr runs` needs no torch
    from asr.checkpoint import ModelSpec

# Where a run lies and how it was begun, not what it trains.
NOT_COMPARED = ("name", "resume", "overwrite", "paths.")
REFERENCE = re.compile(r"\$\{[\w.]+\}")  # another key's value, which is listed there
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


def flat_settings(config: DictConfig) -> dict[str, Setting]:
    """The settings of a training as dotted keys and plain values, without what is written twice.

    The class that a section builds is the value of the section itself: optim is AdamW.
    """
    return {
        key: value
        for key, value in _leaves(config, "")
        if not key.startswith(NOT_COMPARED) and key not in NOT_COMPARED
    }


def _leaves(config: DictConfig, prefix: str) -> Iterator[tuple[str, Setting]]:
    raw = OmegaConf.to_container(config, resolve=False)
    assert isinstance(raw, dict)
    for name, value in raw.items():
        key = f"{prefix}{name!s}"
        if name == "_target_":
            yield prefix.rstrip("."), str(value).rsplit(".", 1)[-1]
        elif isinstance(value, dict):
            yield from _leaves(config[name], f"{key}.")
        elif not (isinstance(value, str) and REFERENCE.fullmatch(value)):
            yield key, _plain(config, name, value)


def _plain(config: DictConfig, name: Any, raw: Any) -> Setting:
    """A value with its references followed, where that is possible outside its own program."""
    try:
        value = config[name]
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        items: Any = OmegaConf.to_container(value, resolve=True)
    except OmegaConfBaseException:
        return str(raw)
    return ", ".join(map(str, items))


def deciding_settings(config: DictConfig, spec: ModelSpec) -> dict[str, str]:
    """What the weights of a training depend on, data and devices left aside, as text by key.

    Args:
        config: of the training.
        spec: of its recogniser, whose architecture may come from a model file.
    """
    settings = {
        key: value
        for key, value in flat_settings(config).items()
        if key.split(".")[0] in DECIDING and key not in NOT_DECIDING
    }
    for section, part in (("features", spec.features), ("model", spec.model)):
        settings |= {f"{section}.{name}": value for name, value in part.arguments.items()}
    return {key: _text(value) for key, value in settings.items()}


def _text(value: Any) -> str:
    """A value as a config has it, equal numbers alike: 5 and 5.0 are both 5."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    text = str(value)
    return text.removesuffix(".0") if isinstance(value, float) else text
