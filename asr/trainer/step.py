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
            num_tokens: characters of the step, over all ranks, left out or not.
            label: names the step in warnings.
        """
        loss = torch.zeros((), dtype=torch.float64, device=self.fabric.device)
        learnt = torch.zeros_like(loss)  # characters with a finite loss
        waited = 0.0
        for index in range(count):
            start = time.monotonic()
            batch = next(batches)
            waited += time.monotonic() - start
            with self.fabric.no_backward_sync(self.model, enabled=index < count - 1):
                nats, characters = self._loss_sum(batch.to(self.fabric.device), label)
                # DDP averages the ranks' gradients; the step wants their sum.
                self.fabric.backward(nats / num_tokens * self.fabric.world_size)
            loss += nats.detach()
            learnt += characters
        loss, learnt = sum_over_ranks(self.fabric, torch.stack([loss, learnt])).tolist()
        if 0 < learnt < num_tokens:
            self._scale_gradients(num_tokens / learnt)
        return StepResult(loss / max(learnt, 1), self._update(label), waited)

    def _loss_sum(self, batch: Batch, label: str) -> tuple[Tensor, int]:
        """Sum of a batch's CTC losses and its characters.

        Utterances without finite features or a finite loss are named and left out, and the rest is
        computed anew: NaN times a zero gradient would still be NaN.
        """
        if not batch.utterances:
            return self._zero_loss(), 0
        features, lengths = self._features(batch)
        finite = torch.isfinite(features).flatten(1).all(dim=1)
        if not bool(finite.all()):
            what = f"{label}: features are"
            batch, features, lengths = _leave_out(what, finite, batch, features, lengths)
        buffers = [(buffer, buffer.clone()) for buffer in self.model.buffers()]
        while batch.utterances:
            losses = self._losses(batch, features, lengths)
            finite = torch.isfinite(losses)
            if bool(finite.all()):
                return losses.sum(), int(batch.token_lengths.sum())
            for buffer, before in buffers:
                buffer.copy_(before)  # running statistics of batch norm would stay NaN for ever
            what = f"{label}: loss is"
            batch, features, lengths = _leave_out(what, finite, batch, features, lengths)
        return self._zero_loss(), 0

    def _zero_loss(self) -> Tensor:
        """Of silence: DDP waits until every rank has run the model forward and backward."""
        rate = self.features.sample_rate
        silence = torch.zeros(1, rate, device=self.fabric.device)  # a second
        features, lengths = self.features(silence, torch.tensor([rate], device=silence.device))
        self.model.eval()  # leaves batch norm's running statistics alone
        log_probs: Tensor = self.model(features, lengths)[0]
        self.model.train()
        return log_probs.sum() * 0.0

    @torch.no_grad()
    def _features(self, batch: Batch) -> tuple[Tensor, Tensor]:
        features, lengths = self.features(batch.waveforms, batch.num_samples)
        if self.spec_augment is not None:
            features = self.spec_augment(features, lengths, batch.seeds)
        return features, lengths

    def _losses(self, batch: Batch, features: Tensor, lengths: Tensor) -> Tensor:
        log_probs, log_prob_lengths = self.model(features, lengths)
        return ctc_loss(log_probs, log_prob_lengths, batch.tokens, batch.token_lengths)

    @torch.no_grad()
    def _scale_gradients(self, factor: float) -> None:
        """Divide by the characters that were learnt from, where some were left out."""
        for parameter in self.model.parameters():
            if parameter.grad is not None:
                parameter.grad *= factor

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


def _leave_out(
    what: str, finite: Tensor, batch: Batch, features: Tensor, lengths: Tensor
) -> tuple[Batch, Tensor, Tensor]:
    """The rows where `(B,)` bool is True; the others are named."""
    names = [u.id for u, fine in zip(batch.utterances, finite.tolist(), strict=True) if not fine]
    logger.warning("%s not finite, left out: %s", what, ", ".join(names))
    return batch.keep(finite), features[finite], lengths[finite]


def parameter_groups(model: torch.nn.Module) -> list[dict[str, Any]]:
    """Weight decay for matrices only: shrinking biases and norm gains regularises nothing."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim > 1]},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
