"""Configs to objects: the one place where settings meet constructors."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import torch
from omegaconf import DictConfig

from asr.checkpoint import ModelSpec, Part, Recognizer
from asr.cli.construct import construct, plain, target
from asr.data.shar.load import StreamedSplits
from asr.data.splits import Splits
from asr.trainer import Trainer
from asr.trainer.recipe import Recipe
from asr.transcriber import Decoder
from asr.untrusted import check_arguments


def part(config: DictConfig, section: str) -> Part:
    """A section of a config with one of the model's classes, as data for a model file.

    Raises:
        ValueError: a `_target_` that is none of its classes, or an argument of another type.
    """
    arguments = plain(config, section)
    name = arguments.pop("_target_", None)
    constructor = target(name, section, f"asr.{section}")
    checked = check_arguments(constructor, arguments, section, partial=True)
    return Part(str(name).rpartition(".")[-1], checked)


def build_decoder(
    settings: Mapping[str, Any], recognizer: Recognizer, notice: Callable[[str], object]
) -> Decoder:
    """A decoder for a model: with its alphabet, and with hotwords as its text rules have them.

    Args:
        settings: of conf/decoder, or of a user's file: `_target_`, which names a decoder, beside
            plain values.
        recognizer: the model.
        notice: is told in a line which words of a language model can never be written.

    Raises:
        ValueError: a `_target_` that is no decoder, or what its constructor refused.
        OSError: a file that cannot be read.
    """
    arguments = dict(settings)
    constructor = target(arguments.pop("_target_", None), "decoder", "asr.decoder")
    if "alphabet" in inspect.signature(constructor).parameters:
        arguments["alphabet"] = recognizer.tokenizer.alphabet
    arguments = check_arguments(constructor, arguments, "decoder")
    if arguments.get("hotwords"):
        arguments["hotwords"] = {
            recognizer.text(text): nats for text, nats in arguments["hotwords"].items()
        }
    built: Decoder = constructor(**arguments)
    unwritable = getattr(built, "unwritable", ())
    if unwritable:
        notice(
            f"{arguments['language_model']}: {len(unwritable):,} of its words have characters that "
            f"the model does not write, {unwritable[0]!r} first"
        )
    return built


def build_recognizer(config: DictConfig, splits: Splits | StreamedSplits) -> Recognizer:
    """A freshly initialised recogniser, the same for the same seed."""
    torch.manual_seed(config.seed)
    spec = ModelSpec(
        features=part(config, "features"),
        model=part(config, "model"),
        alphabet=splits.alphabet,
        text=asdict(splits.text),
    )
    return Recognizer(spec)


def build_recipe(config: DictConfig, notice: Any) -> Recipe:
    """All that `Trainer.fit` needs."""
    splits: Splits | StreamedSplits = construct(config, "data", notice=notice)
    return Recipe(
        recognizer=build_recognizer(config, splits),
        splits=splits,
        optimizer=construct(config, "optim"),
        schedule=construct(config, "schedule"),
        augment=construct(config, "augment"),
    )


def build_trainer(config: DictConfig) -> Trainer:
    """The trainer, on the devices that the config asks for."""
    launched = {}
    if "LOCAL_WORLD_SIZE" in os.environ:  # under torchrun, whose counts hold
        local = int(os.environ["LOCAL_WORLD_SIZE"])
        launched = {"devices": local, "num_nodes": int(os.environ["WORLD_SIZE"]) // local}
    trainer: Trainer = construct(config, "trainer", **launched)
    return trainer
