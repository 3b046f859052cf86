"""Build objects of settings: classes of a table, arguments of the types they are declared with."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin

from asr.decoder_file import settings_of
from asr.starter_model import MODEL, model_path
from asr.untrusted import check_arguments, checked, nearest, shown

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from asr.data.shards import StreamedSplits
    from asr.data.splits import Splits, Start
    from asr.model_spec import Part
    from asr.recognizer import Recognizer
    from asr.trainer import Recipe, Trainer

logger = logging.getLogger(__name__)

# All that a `_target_` may name, in conf/ and everywhere else: settings choose from these.
BUILDABLE = frozenset({
    "asr.augment.Augment",
    "asr.augment.Channel",
    "asr.augment.Noise",
    "asr.augment.Pauses",
    "asr.augment.Reverberation",
    "asr.augment.SimulatedRooms",
    "asr.augment.SpecAugment",
    "asr.augment.SyntheticNoise",
    "asr.augment.WaveformAugment",
    "asr.data.corpora.audacity.Audacity",
    "asr.data.corpora.common_voice.CommonVoice",
    "asr.data.corpora.digits_synthetic.prepare_digits_synthetic",
    "asr.data.corpora.folder.Folder",
    "asr.data.corpora.fsdd.prepare_fsdd",
    "asr.data.corpora.huggingface.HuggingFace",
    "asr.data.corpora.kaldi.Kaldi",
    "asr.data.corpora.layout.prepare_layout",
    "asr.data.corpora.lhotse.Lhotse",
    "asr.data.corpora.librispeech.LibriSpeech",
    "asr.data.corpora.ljspeech.LjSpeech",
    "asr.data.corpora.manifest.prepare_manifest",
    "asr.augment.NoiseFiles",
    "asr.augment.RoomFiles",
    "asr.data.shards.load_shar",
    "asr.data.splits.load_splits",
    "asr.decoder.BeamSearch",
    "asr.decoder.Greedy",
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
START_FILE = "start.safetensors"  # in a run's folder: the model that its training began with


def plain(config: DictConfig, section: str) -> dict[str, Any]:
    """Give a section of a config as plain data, its references followed.

    Raises:
        ValueError: no section, or a value of it that is missing.
        omegaconf.errors.OmegaConfBaseException: a value that refers to nothing.
    """
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import MissingMandatoryValue

    part = config[section]
    if not isinstance(part, DictConfig):
        raise ValueError(f"{section} is {shown(part)}, expected settings as in conf/{section}/")
    try:
        content = OmegaConf.to_container(part, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        raise ValueError(f"{error.full_key} is missing, expected {error.full_key}=VALUE") from error
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}


def check_config(config: DictConfig, kinds: Mapping[str, Any]) -> None:
    """Check all settings of a command, of which nothing is imported yet.

    Args:
        config: all settings.
        kinds: by dotted key, the type annotation of a value outside of what is built.

    Raises:
        ValueError: a value of another type, named by its key, a class that is not in the table, or
            an argument that it does not have.
        omegaconf.errors.OmegaConfBaseException: a value that is missing or refers to nothing.
    """
    from omegaconf import OmegaConf

    for key, kind in kinds.items():
        value = OmegaConf.select(config, key, throw_on_missing=True)
        if OmegaConf.is_config(value):
            value = OmegaConf.to_container(value, resolve=True, throw_on_missing=True)
        checked(value, kind, key)
    sections: Any = OmegaConf.to_container(config, resolve=False)
    for section, content in sections.items():
        if isinstance(content, Mapping) and "_target_" in content:
            check_section(plain(config, section), section)


def check_section(settings: Mapping[str, Any], section: str) -> None:
    """Check what one object, and those inside of it, would be built of.

    Args:
        settings: plain data with a `_target_`.
        section: its key in messages; empty for a file of its own.

    Raises:
        ValueError: as of `check_config`.
    """
    name = check_target(settings.get("_target_"), section)
    parameters = settings_of(name)
    for key, value in settings.items():
        if key in ("_target_", "_partial_"):
            continue
        where = f"{section}.{key}" if section else key
        if key not in parameters:
            raise ValueError(f"unknown setting {where}: {nearest(key, parameters)}")
        kind = parameters[key].kind
        takes_mapping = any(get_origin(each) is Mapping for each in (kind, *get_args(kind)))
        if isinstance(value, Mapping) and "_target_" in value:
            check_section(value, where)
        elif isinstance(value, Mapping) and not takes_mapping:
            # An experiment's settings for masks, say, where augment=none has none to set.
            group = section.split(".")[0]
            raise ValueError(
                f"{where} has settings ({', '.join(map(str, value))}) of nothing, expected "
                f"{'an' if group[:1] in 'aeo' else 'a'} {group}= that has it, or {where}=null"
            )
        else:
            checked(value, kind, where)


def check_target(name: object, where: object, stage: str = "") -> str:
    """Check what a `_target_` names, and return it.

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
    return str(name)


def target(name: object, where: object, stage: str = "") -> Any:
    """Import the class or function that a `_target_` names; see `check_target`."""
    module, _, attribute = check_target(name, where, stage).rpartition(".")
    return getattr(import_module(module), attribute)


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
    settings = plain(config, section)
    check_section(settings, section)
    return _built({**settings, **arguments}, section)


def _built(settings: Mapping[str, Any], section: str) -> Any:
    constructor = target(settings.get("_target_"), section)
    is_partial = settings.get("_partial_") is True
    arguments = {
        name: _built(value, f"{section}.{name}")
        if isinstance(value, Mapping) and "_target_" in value
        else value
        for name, value in settings.items()
        if name not in ("_target_", "_partial_")
    }
    # Once more, now that the classes are here: what was built is of the type that is asked for.
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


# --- what a training is built of -----------------------------------------------------------------


def part(config: DictConfig, section: str) -> Part:
    """Give a section with one of the model's classes as data for a model file.

    Raises:
        ValueError: a `_target_` that is none of its classes, or an argument of another type.
    """
    from asr.model_spec import Part

    arguments = plain(config, section)
    name = arguments.pop("_target_", None)
    constructor = target(name, section, f"asr.{section}")
    checked = check_arguments(constructor, arguments, section, partial=True)
    return Part(str(name).rpartition(".")[-1], checked)


def build_recognizer(config: DictConfig, splits: Splits | StreamedSplits) -> Recognizer:
    """Build a freshly initialised recogniser, the same for the same seed."""
    import torch

    from asr.data.splits import Splits
    from asr.model_spec import ModelSpec, lexicon_fields
    from asr.recognizer import Recognizer

    torch.manual_seed(config.seed)
    lexicon = splits.lexicon if isinstance(splits, Splits) else None
    spec = ModelSpec(
        features=part(config, "features"),
        model=part(config, "model"),
        alphabet=splits.alphabet,
        text=asdict(splits.text),
        **({} if lexicon is None else lexicon_fields(lexicon)),
    )
    return Recognizer(spec)


def start_file(init_from: str | None, run_dir: Path, is_resumed: bool) -> Path | None:
    """Find the model that a training begins with, if it does with one.

    Args:
        init_from: a model file, a run's folder or a name; None for fresh weights.
        run_dir: folder of the run.
        is_resumed: the training has begun: its start is in the run's folder, as the file that it
            came from may be gone.

    Raises:
        ValueError: a resume of a training that began with fresh weights.
        OSError: missing.
    """
    if init_from is None:
        return None
    stored = run_dir / START_FILE
    if not is_resumed:
        return model_path(init_from)
    if not stored.exists():
        raise ValueError(
            f"init_from={init_from}: {run_dir} has no {START_FILE}, so it began with fresh "
            "weights, expected init_from=null to go on with it"
        )
    return stored


def build_recipe(config: DictConfig, notice: Any, start: Path | None = None) -> Recipe:
    """Build all that `Trainer.fit` needs, with fresh weights.

    Args:
        config: all settings.
        notice: told in a line what is worth knowing of the data.
        start: the model that the training begins with, whose characters or phones it keeps.
    """
    from asr.data.splits import Splits
    from asr.trainer import Recipe

    begin = {} if start is None else {"start": _written_by(start)}
    splits: Splits | StreamedSplits = construct(config, "data", notice=notice, **begin)
    if isinstance(splits, Splits) and config.data.limit is None:  # not of a trial of a few
        for remark in splits.remarks():
            notice(remark)
    return Recipe(
        recognizer=build_recognizer(config, splits),
        splits=splits,
        optimizer=construct(config, "optim"),
        schedule=construct(config, "schedule"),
        augment=construct(config, "augment"),
    )


def _written_by(model_file: Path) -> Start:
    from asr.data.splits import Start
    from asr.model_file import load_model

    recognizer, _ = load_model(model_file)
    return Start(recognizer.tokenizer.alphabet, recognizer.lexicon)


def start_recipe(recipe: Recipe, start: Path | None, run_dir: Path, is_resumed: bool) -> Recipe:
    """Give a recipe the weights of a model, if there is one.

    The model that the training starts with is put into the run's folder, where a resume finds it.

    Args:
        recipe: as the settings ask for it, with fresh weights.
        start: of `start_file`; None keeps the fresh weights.
        run_dir: folder of the run.
        is_resumed: the training has begun.

    Raises:
        ValueError: not a model file.
        OSError: missing or unreadable.
    """
    from asr.model_file import origin_of, save_model, transfer_model

    stored = run_dir / START_FILE
    writes = os.environ.get("RANK", "0") == "0" and not is_resumed
    if start is None:
        if writes:
            stored.unlink(missing_ok=True)  # of a training that is overwritten
        return recipe
    transfer = transfer_model(start, recipe.recognizer.spec)
    origin = transfer.training if is_resumed else origin_of(start)
    if start.name == MODEL:  # which all that come with asr are called
        origin = {**origin, "init_from": f"{start.parent.name}/{MODEL}"}
    if writes:
        save_model(stored, transfer.recognizer, origin)
        logger.info("start: %s", start)
        for note in transfer.notes:
            logger.info("%s", note)
    return replace(recipe, recognizer=transfer.recognizer, start=origin)


def build_trainer(config: DictConfig) -> Trainer:
    """Build the trainer, on the devices that the config asks for."""
    launched = {}
    if "LOCAL_WORLD_SIZE" in os.environ:  # under torchrun, whose counts hold
        local = int(os.environ["LOCAL_WORLD_SIZE"])
        launched = {"devices": local, "num_nodes": int(os.environ["WORLD_SIZE"]) // local}
    trainer: Trainer = construct(config, "trainer", **launched)
    return trainer
