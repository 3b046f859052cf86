"""Configs to objects: the one place where settings meet constructors."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import hydra
import torch
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from asr import decoder
from asr.checkpoint import FEATURES, MODELS, ModelSpec, Part, Recognizer
from asr.data.shar.load import StreamedSplits
from asr.data.splits import Splits
from asr.trainer import Trainer
from asr.trainer.recipe import Recipe
from asr.transcriber import Decoder

DECODERS = tuple(f"asr.decoder.{name}" for name in decoder.__all__ if name != "Hypothesis")


def build(config: DictConfig, **arguments: Any) -> Any:
    """Instantiate a config that has a `_target_`, as plain Python arguments.

    Raises:
        ValueError: what the constructor refused, named by the config's key.
    """
    try:
        return hydra.utils.instantiate(config, _convert_="all", **arguments)
    except hydra.errors.InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, ValueError | OSError):
            raise cause from error
        if isinstance(cause, TypeError):
            raise ValueError(f"config {config._get_full_key(None)}: {cause}") from error
        raise


def part(config: DictConfig, known: Mapping[str, Any]) -> Part:
    """A config of one of the model's classes as data for a model file.

    Raises:
        ValueError: a `_target_` that is none of the known classes.
    """
    arguments = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(arguments, dict)
    name = str(arguments.pop("_target_")).rsplit(".", 1)[-1]
    if name not in known:
        raise ValueError(f"_target_ {name!r}, expected one of {', '.join(known)}")
    return Part(name, {str(key): value for key, value in arguments.items()})


def build_decoder(
    config: DictConfig, recognizer: Recognizer, notice: Callable[[str], object]
) -> Decoder:
    """A decoder for a model: with its alphabet, and with hotwords as its text rules have them.

    Args:
        config: of conf/decoder, or of a user's file, which therefore names a decoder only.
        recognizer: the model.
        notice: is told in a line which words of a language model can never be written.

    Raises:
        ValueError: a `_target_` that is no decoder, or what its constructor refused.
        OSError: a file that cannot be read.
    """
    if config._target_ not in DECODERS:
        raise ValueError(f"_target_ {config._target_!r}, expected one of {', '.join(DECODERS)}")
    config = config.copy()
    OmegaConf.set_struct(config, False)
    if "alphabet" in inspect.signature(get_object(config._target_)).parameters:
        config.alphabet = recognizer.tokenizer.alphabet
    if config.get("hotwords"):
        config.hotwords = {recognizer.text(text): nats for text, nats in config.hotwords.items()}
    built: Decoder = build(config)
    unwritable = getattr(built, "unwritable", ())
    if unwritable:
        notice(
            f"{config.language_model}: {len(unwritable):,} of its words have characters that the "
            f"model does not write, {unwritable[0]!r} first"
        )
    return built


def build_recognizer(config: DictConfig, splits: Splits | StreamedSplits) -> Recognizer:
    """A freshly initialised recogniser, the same for the same seed."""
    torch.manual_seed(config.seed)
    spec = ModelSpec(
        features=part(config.features, FEATURES),
        model=part(config.model, MODELS),
        alphabet=splits.alphabet,
        text=asdict(splits.text),
    )
    return Recognizer(spec)


def build_recipe(config: DictConfig, notice: Any) -> Recipe:
    """All that `Trainer.fit` needs."""
    splits: Splits | StreamedSplits = build(config.data, notice=notice)
    return Recipe(
        recognizer=build_recognizer(config, splits),
        splits=splits,
        optimizer=build(config.optim),
        schedule=build(config.schedule),
        augment=build(config.augment),
    )


def build_trainer(config: DictConfig) -> Trainer:
    """The trainer, on the devices that the config asks for."""
    launched = {}
    if "LOCAL_WORLD_SIZE" in os.environ:  # under torchrun, whose counts hold
        local = int(os.environ["LOCAL_WORLD_SIZE"])
        launched = {"devices": local, "num_nodes": int(os.environ["WORLD_SIZE"]) // local}
    trainer: Trainer = build(config.trainer, **launched)
    return trainer
