"""Settings to objects: classes of a table, arguments of the types that they are declared with."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from importlib import import_module
from typing import Any, get_args

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue

from asr.untrusted import annotations_of, check_arguments, checked, shown

# All that a `_target_` may name, in conf/ and everywhere else: settings choose from these.
BUILDABLE = frozenset({
    "asr.augment.Augment",
    "asr.augment.Noise",
    "asr.augment.Reverberation",
    "asr.augment.SimulatedRooms",
    "asr.augment.SpecAugment",
    "asr.augment.SyntheticNoise",
    "asr.augment.WaveformAugment",
    "asr.data.corpora.digits_synthetic.prepare_digits_synthetic",
    "asr.data.corpora.fsdd.prepare_fsdd",
    "asr.data.corpora.manifest.prepare_manifest",
    "asr.augment.NoiseFiles",
    "asr.augment.RoomFiles",
    "asr.data.shar.load.load_shar",
    "asr.data.splits.load_splits",
    "asr.decoder.BeamSearch",
    "asr.decoder.Greedy",
    "asr.decoder.LexiconBeamSearch",
    "asr.features.LogMel",
    "asr.model.BiLstmCtc",
    "asr.text.TextNormalizer",
    "asr.trainer.Trainer",
    "asr.trainer.optim.Constant",
    "asr.trainer.optim.Cosine",
    "asr.trainer.optim.InverseSqrt",
    "asr.trainer.optim.Linear",
    "torch.optim.Adam",
    "torch.optim.AdamW",
    "torch.optim.RMSprop",
    "torch.optim.SGD",
})  # fmt: skip


def plain(config: DictConfig, section: str) -> dict[str, Any]:
    """A section of a config as plain data, its references followed.

    Raises:
        ValueError: no section, or a value of it that is missing.
        omegaconf.errors.OmegaConfBaseException: a value that refers to nothing.
    """
    part = config[section]
    if not isinstance(part, DictConfig):
        raise ValueError(f"{section} is {shown(part)}, expected settings as in conf/{section}/")
    try:
        content = OmegaConf.to_container(part, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        key = f"{section}.{error.full_key}"
        raise ValueError(f"{key} is missing, expected {key}=VALUE") from error
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}


def check_settings(config: DictConfig, kinds: Mapping[str, Any]) -> None:
    """Check the settings that stand outside of what is built.

    Args:
        config: all settings.
        kinds: by dotted key, the type annotation of the value.

    Raises:
        ValueError: a value of another type, named by its key.
        omegaconf.errors.OmegaConfBaseException: a value that is missing.
    """
    for key, kind in kinds.items():
        value = OmegaConf.select(config, key, throw_on_missing=True)
        if OmegaConf.is_config(value):
            value = OmegaConf.to_container(value, resolve=True, throw_on_missing=True)
        checked(value, kind, key)


def construct(config: DictConfig, section: str, **arguments: Any) -> Any:
    """Build what a section of a config describes, and what is described inside of it.

    Args:
        config: all settings.
        section: name of the one with a `_target_`.
        arguments: beside those of the section; they take the place of its own.

    Raises:
        ValueError: a class that is not in the table, an argument of another type, or what a
            constructor refused.
        OSError: a constructor could not read a file.
    """
    return _built({**plain(config, section), **arguments}, section)


def target(name: object, where: object, stage: str = "") -> Any:
    """The class or function that a `_target_` names.

    Args:
        name: as it was read.
        where: names the source in messages.
        stage: the package that it must be of, `asr.decoder` for instance; empty for any.

    Raises:
        ValueError: it is not in the table.
    """
    known = sorted(each for each in BUILDABLE if each.startswith(f"{stage}." if stage else ""))
    if name not in known:
        expected = f"one of {', '.join(known)}" if stage else "a class that conf/ names"
        raise ValueError(f"{where}: _target_ is {shown(name)}, expected {expected}")
    module, _, attribute = str(name).rpartition(".")
    return getattr(import_module(module), attribute)


def _built(settings: Mapping[str, Any], section: str) -> Any:
    constructor = target(settings.get("_target_"), section)
    is_partial = settings.get("_partial_") is True
    hints = annotations_of(constructor)
    arguments = {}
    for name, value in settings.items():
        if name in ("_target_", "_partial_"):
            continue
        key = f"{section}.{name}"
        if isinstance(value, Mapping) and "_target_" in value:
            value = _built(value, key)
        elif isinstance(value, Mapping) and not _may_be_mapping(hints.get(name)):
            # An experiment's settings for masks, say, where augment=none has none to set.
            group = section.split(".")[0]
            raise ValueError(
                f"{key} has settings ({', '.join(map(str, value))}) of nothing, expected "
                f"{'an' if group[0] in 'aeo' else 'a'} {group}= that has it, or {key}=null"
            )
        arguments[name] = value
    arguments = check_arguments(constructor, arguments, section, partial=is_partial)
    if is_partial:
        return partial(constructor, **arguments)
    try:
        return constructor(**arguments)
    except ValueError as error:
        # A constructor names its argument; which of many settings that is, only we know.
        named = re.match(r"(\w+)[ \[]", str(error))
        if named and named[1] in arguments:
            raise ValueError(f"{section}.{error}") from error
        raise


def _may_be_mapping(kind: Any) -> bool:
    """Whether an annotation takes plain names and values."""
    return any(getattr(choice, "__origin__", None) is Mapping for choice in (kind, *get_args(kind)))
