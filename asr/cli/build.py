"""Configs to objects: the one place where settings meet constructors."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Any

import torch
from omegaconf import DictConfig

from asr.cli.construct import construct, plain, target
from asr.data.shar.load import StreamedSplits
from asr.data.splits import Splits
from asr.recognizer import ModelSpec, Part, Recognizer
from asr.trainer import Recipe, Trainer
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
