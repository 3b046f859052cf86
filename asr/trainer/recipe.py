"""What a training is made of: the recipe, which names what is trained, and the settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from asr.augment import Augment
from asr.data.shar.load import StreamedSplits
from asr.data.splits import Splits
from asr.recognizer import Recognizer
from asr.trainer.parameters import MakeOptimizer
from asr.trainer.schedule import Schedule


@dataclass(frozen=True)
class Recipe:
    """What is trained, on what, and how it is varied.

    Attributes:
        recognizer: the model to train, with its features and alphabet.
        splits: utterances to learn from and to validate on.
        optimizer: makes the optimiser of parameter groups; its learning rate is the schedule's 1.
        schedule: factor on the learning rate at a share of the training.
        augment: how the utterances are varied.
        start: where the weights came from, for the training summary; empty for fresh ones.
        settings: by the keys of the config, what the weights depend on, as text: what differs from
            those of a state is told where a training goes on from it.
    """

    recognizer: Recognizer
    splits: Splits | StreamedSplits
    optimizer: MakeOptimizer
    schedule: Schedule
    augment: Augment
    start: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(kw_only=True)
class Settings:
    """How a training goes.

    Attributes:
        max_epochs: times every utterance is used.
        batch_duration_s: largest padded batch of a rank [s of audio].
        accumulate: batches of a rank for one optimiser step.
        frozen_layers: lowest blocks of the model that do not learn, see `BiLstmCtc.blocks`.
        layer_decay: learning rate of a block over that of the one above it.
        ema_decay: of the average of the weights that is validated and saved, see `WeightAverage`; 0
            takes the weights themselves.
        clip_norm: largest gradient norm; 0 leaves gradients as they are.
        sort_first_epoch: start with the shortest utterances.
        validate_every: epochs between validations.
        patience: validations without a better one before stopping early; 0 never stops early.
        save_every_s: time between saves of the training state within an epoch [s].
        save_every_steps: optimiser steps between saves; 0 saves by time alone.
        keep_states: newest training states that stay.
        keep_models: models of the last validations that stay, to be averaged.
        log_every: optimiser steps between rows of steps.csv.
        num_workers: loading processes a rank; 0 loads in the training process; None is 0 on a CPU,
            where loading ahead would only take the cores from training, and 4 elsewhere.
        max_left_out: largest share of the training utterances that may be left out: those found
            unusable before the first step, and those that turn out to be while training.
        scan_memory: try the largest batch before the first step.
        worst: training utterances of the highest loss that are listed; 0 lists none.
        precision: "32-true", "bf16-mixed", "16-mixed"; "auto" is bf16-mixed on a GPU
            that has it and 32-true elsewhere. The loss is float32 in any case.
        accelerator: "cpu", "cuda", or "auto": cuda where there is one.
        devices: processes of this machine, one a device.
        num_nodes: machines.
        tensorboard: also write TensorBoard events.
        seed: of data order, augmentation and dropout.

    Raises:
        ValueError: a number that is too low, or a share above 1.
    """

    max_epochs: int
    batch_duration_s: float = 60.0
    accumulate: int = 1
    frozen_layers: int = 0
    layer_decay: float = 1.0
    ema_decay: float = 0.0
    clip_norm: float = 5.0
    sort_first_epoch: bool = True
    validate_every: int = 1
    patience: int = 0
    save_every_s: float = 300.0
    save_every_steps: int = 0
    keep_states: int = 2
    keep_models: int = 0
    log_every: int = 10
    num_workers: int | None = None
    max_left_out: float = 0.05
    scan_memory: bool = True
    worst: int = 50
    precision: str = "auto"
    accelerator: str = "auto"
    devices: int = 1
    num_nodes: int = 1
    tensorboard: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (
            ("max_epochs", 1), ("accumulate", 1), ("validate_every", 1), ("save_every_steps", 0),
            ("keep_states", 1), ("keep_models", 0), ("log_every", 1), ("worst", 0), ("devices", 1),
            ("num_nodes", 1), ("num_workers", 0), ("max_left_out", 0), ("clip_norm", 0),
            ("save_every_s", 0), ("patience", 0),
        ):  # fmt: skip
            count = getattr(self, name)
            if count is not None and count < least:
                raise ValueError(f"trainer.{name} {count}, expected {least} or more")
        if self.max_left_out > 1:
            raise ValueError(f"trainer.max_left_out {self.max_left_out:g}, expected 0 to 1")
