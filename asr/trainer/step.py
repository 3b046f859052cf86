"""One optimiser step: the loss of its batches, the gradient, the update, and their faults."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from asr.augment import SpecAugment
from asr.checkpoint import Recognizer
from asr.data.batch import Batch
from asr.model.ctc import ctc_loss
from asr.trainer.validation import sum_over_ranks

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepResult:
    """What an optimiser step was.

    Attributes:
        loss: CTC loss over all ranks and accumulated batches [nats a character].
        grad_norm: before clipping; NaN where the strategy cannot tell.
        waited_s: time this rank spent waiting for data [s].
    """

    loss: float
    grad_norm: float
    waited_s: float


class Stepper:
    """Takes optimiser steps.

    Args:
        fabric: device, precision and ranks.
        recognizer: its features are computed here, its model is trained.
        optimizer: of the model's parameters.
        spec_augment: masks on the features, None for none.
        clip_norm: largest gradient norm; 0 leaves gradients as they are.
    """

    def __init__(
        self,
        fabric: Fabric,
        recognizer: Recognizer,
        optimizer: torch.optim.Optimizer,
        spec_augment: SpecAugment | None,
        clip_norm: float,
    ) -> None:
        self.fabric = fabric
        self.features = recognizer.features
        self.model, self.optimizer = fabric.setup(recognizer.model, optimizer)
        self.spec_augment = spec_augment
        self.clip_norm = clip_norm
        # With float16 the gradient scaler skips steps that overflow itself, and learns from them.
        self.has_scaler = getattr(fabric._precision, "scaler", None) is not None

    def step(self, batches: Iterator[Batch], count: int, num_tokens: int, label: str) -> StepResult:
        """Learn from the next batches.

        Args:
            batches: where they come from.
            count: how many of them this rank takes for the step.
            num_tokens: characters of the step, over all ranks.
            label: names the step in warnings.
        """
        loss = torch.zeros((), device=self.fabric.device)
        waited = 0.0
        for index in range(count):
            start = time.monotonic()
            batch = next(batches)
            waited += time.monotonic() - start
            with self.fabric.no_backward_sync(self.model, enabled=index < count - 1):
                part = self._loss_sum(batch.to(self.fabric.device), label) / num_tokens
                # DDP averages the ranks' gradients; the step wants their sum.
                self.fabric.backward(part * self.fabric.world_size)
            loss += part.detach()
        norm = self._update(label)
        return StepResult(float(sum_over_ranks(self.fabric, loss)), norm, waited)

    def _loss_sum(self, batch: Batch, label: str) -> Tensor:
        """Sum of a batch's CTC losses; utterances without a finite one are named, left out."""
        buffers = [(buffer, buffer.clone()) for buffer in self.model.buffers()]
        losses = self._losses(batch)
        finite = torch.isfinite(losses)
        if bool(finite.all()):
            return losses.sum()
        for buffer, before in buffers:
            buffer.copy_(before)  # running statistics of batch norm would stay NaN for ever
        names = [
            u.id for u, fine in zip(batch.utterances, finite.tolist(), strict=True) if not fine
        ]
        logger.warning("%s: loss is not finite, left out: %s", label, ", ".join(names))
        if not finite.any():
            # Every parameter takes part with gradient zero, as DDP expects of each rank.
            return torch.stack([p.sum() for p in self.model.parameters()]).sum() * 0.0
        # Computed anew without them: NaN times a zero gradient would still be NaN.
        return self._losses(batch.keep(finite)).sum()

    def _losses(self, batch: Batch) -> Tensor:
        with torch.no_grad():
            features, lengths = self.features(batch.waveforms, batch.num_samples)
            if self.spec_augment is not None:
                features = self.spec_augment(features, lengths, batch.seeds)
        log_probs, log_prob_lengths = self.model(features, lengths)
        return ctc_loss(log_probs, log_prob_lengths, batch.tokens, batch.token_lengths)

    def _update(self, label: str) -> float:
        """Clip and take the optimiser step; one with a gradient that is not finite is skipped."""
        clipped = self.fabric.clip_gradients(
            self.model,
            self.optimizer,
            max_norm=self.clip_norm or math.inf,
            error_if_nonfinite=False,
        )
        norm = math.nan if clipped is None else float(clipped)
        if math.isfinite(norm) or self.has_scaler:
            self.optimizer.step()
        else:
            logger.warning("%s: gradient is not finite, skipped", label)
        self.optimizer.zero_grad()
        return norm


def parameter_groups(model: torch.nn.Module) -> list[dict[str, Any]]:
    """Weight decay for matrices only: shrinking biases and norm gains regularises nothing."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim > 1]},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
