"""One optimiser step: forward, loss, backward, all-reduce, clipping, and what may go wrong."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from asr.augment import SpecAugment
from asr.data.dataset import Batch
from asr.finding import Finding, Kind
from asr.memory import is_out_of_memory
from asr.model.ctc import BLANK, ctc_loss
from asr.recognizer import Recognizer
from asr.trainer.distributed import World

ALIGNMENT = 16  # [elements] between starts of gradients, for vectors of 64 bytes


@dataclass(frozen=True)
class Incidents:
    """What went wrong in a step, on one rank.

    Attributes:
        left_out: utterances that were not learnt from.
        notes: what else a person should know, a line each.
    """

    left_out: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class StepResult:
    """What an optimiser step was.

    Attributes:
        loss: CTC loss over all ranks and accumulated batches [nats a character].
        grad_norm: before clipping; not finite where the step was skipped.
        block_norms: of the gradients of the model's parts, in the order of `block_names`.
        blank_share: share of the output frames, over all ranks, whose best label is the blank.
        losses: of this rank's utterances by id [nats a character].
        incidents: what went wrong on this rank.
        num_incidents: of all ranks.
        is_stop: a rank was asked to stop.
    """

    loss: float
    grad_norm: float
    block_norms: tuple[float, ...]
    blank_share: float
    losses: tuple[tuple[str, float], ...]
    incidents: Incidents
    num_incidents: int
    is_stop: bool


@dataclass
class _Tally:
    """What a rank's batches add up to."""

    nats: float = 0.0
    characters: int = 0
    frames: int = 0
    blanks: int = 0
    losses: list[tuple[str, float]] = field(default_factory=list)


class Stepper:
    """Takes optimiser steps.

    Args:
        world: device, precision and ranks.
        recognizer: its features are computed here, its model is trained.
        optimizer: of the model's parameters.
        spec_augment: masks on the features, None for none.
        clip_norm: largest gradient norm; 0 leaves gradients as they are.
    """

    def __init__(
        self,
        world: World,
        recognizer: Recognizer,
        optimizer: torch.optim.Optimizer,
        spec_augment: SpecAugment | None,
        clip_norm: float,
    ) -> None:
        self.world = world
        self.features = recognizer.features
        self.model, self.optimizer = recognizer.model, optimizer
        names = [
            "subsampling",
            *(f"layer{k}" for k in range(1, len(self.model.blocks) - 1)),
            "head",
        ]
        learns = {
            name: [p for module in block for p in module.parameters() if p.requires_grad]
            for name, block in zip(names, self.model.blocks, strict=True)
        }
        self.blocks = {name: block for name, block in learns.items() if block}
        self.gradients = Gradients(p for p in self.model.parameters() if p.requires_grad)
        self.spec_augment = spec_augment
        self.clip_norm = clip_norm
        # With float16 it skips steps that overflow, and learns from them; else it does nothing.
        is_float16 = world.precision == "16-mixed"
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=is_float16)

    @property
    def block_names(self) -> tuple[str, ...]:
        """The parts of the model that learn, from the input to the output."""
        return tuple(self.blocks)

    def step(
        self,
        batches: Sequence[Batch] | None,
        num_tokens: int,
        seed: int = 0,
        is_stop: bool = False,
    ) -> StepResult | None:
        """Learn from batches.

        An utterance whose features, loss or gradient is not finite is left out, and so is one that
        does not fit into memory by itself; the step is then exactly that of the others. All ranks
        meet in two sums, after everything that one of them may have to repeat.

        Args:
            batches: of this rank; None where they could not be had. The rank then takes part in
                what the others wait for it in.
            num_tokens: characters of the step, over all ranks, left out or not.
            seed: of dropout.
            is_stop: this rank was asked to stop; all ranks hear of it.

        Returns:
            What the step was; None where a rank had no batches, and all is as it was before.
        """
        pieces = list(batches or ())
        incidents = Incidents([fault for batch in pieces for fault in batch.faults])
        with self._buffers_kept() as restore:
            while True:
                restore()
                tally, pieces = self._learn(pieces, num_tokens, seed, incidents, restore)
                self.world.sum(self.gradients.flat)
                if self.scaler.is_enabled() or math.isfinite(self.gradients.norm()):
                    break
                found = self._leave_out_culprits(pieces, num_tokens, seed, incidents)
                if not any(self._all_reduce(found)):
                    break  # the sum overflows, no single utterance does
        nats, characters, blanks, frames, stops, lacks, num_incidents = self._all_reduce(
            tally.nats, tally.characters, tally.blanks, tally.frames, is_stop, batches is None,
            len(incidents.left_out) + len(incidents.notes),
        )  # fmt: skip
        if lacks:
            restore()
            return None
        # The losses were divided by all characters before anybody knew which are left out.
        norm, block_norms = self._update(num_tokens / characters if characters else 0.0)
        return StepResult(
            loss=nats / max(characters, 1),
            grad_norm=norm,
            block_norms=tuple(block_norms),
            blank_share=blanks / max(frames, 1),
            losses=tuple(tally.losses),
            incidents=incidents,
            num_incidents=int(num_incidents),
            is_stop=stops > 0,
        )

    def dry_run(self, batch: Batch) -> list[str]:
        """Run a batch forward and backward on this rank alone, without a step.

        Returns:
            Where memory was too small for it, a line each.
        """
        incidents = Incidents()
        with self._buffers_kept() as restore:
            self._learn([batch], 1, 0, incidents, restore)
            restore()
        self.gradients.zero()
        return [*incidents.notes, *(fault.reason for fault in incidents.left_out)]

    def _all_reduce(self, *numbers: float) -> list[float]:
        """The sums of numbers over all ranks."""
        row = torch.tensor(numbers, dtype=torch.float64, device=self.world.device)
        sums: list[float] = self.world.sum(row).tolist()
        return sums

    def _learn(
        self,
        pieces: list[Batch],
        num_tokens: int,
        seed: int,
        incidents: Incidents,
        restore: Callable[[], None],
    ) -> tuple[_Tally, list[Batch]]:
        """Gradients of all pieces; one that memory is too small for is halved, and all is redone.

        Returns:
            The tally, and the pieces that were learnt from.
        """
        while True:
            self.gradients.zero()
            torch.manual_seed(seed)  # the same dropout in every try
            tally, learnt = _Tally(), list[Batch]()
            for piece in pieces:
                known = len(incidents.left_out)
                try:
                    learnt.append(self._backward(piece, num_tokens, tally, incidents))
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error):
                        raise
                    del incidents.left_out[known:]
                    break
            else:
                return tally, learnt
            # Outside of `except`: the error holds every tensor of the pass that failed.
            failed = pieces[len(learnt)]
            halves: tuple[Batch, ...] = ()
            if len(failed.rows) == 1:
                alone = torch.zeros(1, dtype=torch.bool)
                _leave_out(
                    "out of memory, alone in its batch",
                    failed,
                    alone,
                    incidents,
                    Kind.OUT_OF_MEMORY,
                )
            else:
                names = ", ".join(utterance.id for utterance in failed.utterances)
                incidents.notes.append(f"out of memory, batch split in two: {names}")
                halves = failed.halves()
            pieces = [*learnt, *halves, *pieces[len(learnt) + 1 :]]
            restore()
            gc.collect()
            if self.world.device.type == "cuda":
                torch.cuda.empty_cache()

    def _backward(
        self, batch: Batch, num_tokens: int, tally: _Tally, incidents: Incidents
    ) -> Batch:
        """Add the gradient of a batch's loss; returns what was learnt from."""
        batch, outputs = self._finite_losses(batch.to(self.world.device), incidents)
        if outputs is None:
            return batch
        losses, log_probs, lengths = outputs
        torch.autograd.backward(self.scaler.scale(losses.sum() / num_tokens))
        inside = torch.arange(log_probs.shape[1], device=lengths.device) < lengths[:, None]
        tally.blanks += int(((log_probs.detach().argmax(-1) == BLANK) & inside).sum())
        tally.frames += int(lengths.sum())
        nats = losses.detach().double()
        tally.nats += float(nats.sum())
        tally.characters += int(batch.token_lengths.sum())
        each = (nats / batch.token_lengths.clamp(min=1)).tolist()
        # Which of several that are joined is hard is not known.
        rows = zip(batch.rows, each, strict=True)
        tally.losses += [(row[0].id, loss) for row, loss in rows if len(row) == 1]
        return batch

    def _finite_losses(
        self, batch: Batch, incidents: Incidents
    ) -> tuple[Batch, tuple[Tensor, Tensor, Tensor] | None]:
        """The utterances that have a finite loss, with losses, log_probs and their lengths.

        The others are left out and the rest is computed anew: NaN times a zero gradient would
        still be NaN.
        """
        if not batch.rows:
            return batch, None
        with torch.no_grad():
            features, lengths = self.features(batch.waveforms, batch.num_samples)
            if self.spec_augment is not None:
                features = self.spec_augment(features, lengths, batch.seeds)
        finite = torch.isfinite(features).flatten(1).all(dim=1)
        if not bool(finite.all()):
            batch = _leave_out("features are not finite", batch, finite, incidents)
            features, lengths = features[finite], lengths[finite]
        with self._buffers_kept() as restore:
            while batch.rows:
                with self.world.autocast():
                    log_probs, log_prob_lengths = self.model(features, lengths)
                log_probs = log_probs.float()
                losses = ctc_loss(log_probs, log_prob_lengths, batch.tokens, batch.token_lengths)
                finite = torch.isfinite(losses)
                if bool(finite.all()):
                    return batch, (losses, log_probs, log_prob_lengths)
                restore()  # running statistics of batch norm would stay NaN for ever
                batch = _leave_out("loss is not finite", batch, finite, incidents)
                features, lengths = features[finite], lengths[finite]
        return batch, None

    def _leave_out_culprits(
        self, pieces: list[Batch], num_tokens: int, seed: int, incidents: Incidents
    ) -> int:
        """Leave out utterances whose own gradient is not finite; returns how many there are."""
        before = len(incidents.left_out)
        for index, piece in enumerate(pieces):
            finite = torch.ones(len(piece.rows), dtype=torch.bool)
            for row in range(len(finite)):
                self.gradients.zero()
                torch.manual_seed(seed)
                alone = torch.arange(len(finite)) == row
                self._backward(piece.keep(alone), num_tokens, _Tally(), Incidents())
                finite[row] = math.isfinite(self.gradients.norm())
            pieces[index] = _leave_out("gradient is not finite", piece, finite, incidents)
        return len(incidents.left_out) - before

    @contextmanager
    def _buffers_kept(self) -> Iterator[Callable[[], None]]:
        """Gives a function that brings the model's buffers (running statistics) back."""
        before = [(buffer, buffer.clone()) for buffer in self.model.buffers()]

        @torch.no_grad()
        def restore() -> None:
            for buffer, value in before:
                buffer.copy_(value)

        yield restore

    def _update(self, factor: float) -> tuple[float, list[float]]:
        """Scale the gradients, clip, and step; skipped where they are not finite.

        Args:
            factor: all characters over those learnt from; 0 for none, and no step.

        Returns:
            The gradient's norm before clipping, of all and of each block.
        """
        if factor:
            self.scaler.unscale_(self.optimizer)
        if factor not in (0.0, 1.0):
            self.gradients.flat.mul_(factor)
        norm = self.gradients.norm()
        block_norms = self.gradients.norms(list(self.blocks.values()))
        is_finite = math.isfinite(norm)
        if is_finite and 0 < self.clip_norm < norm:
            self.gradients.flat.mul_(self.clip_norm / norm)
        if factor and (is_finite or self.scaler.is_enabled()):
            self.scaler.step(self.optimizer)
            self.scaler.update()
        return norm, block_norms


class Gradients:
    """The gradients of a model in one buffer: one all-reduce a step, one norm, one look for NaN.

    Every parameter's `.grad` is a view of the buffer, which backward passes add into.

    Args:
        parameters: of one dtype and device; their gradients are replaced.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self.parameters = list(parameters)
        starts, size = [], 0
        for parameter in self.parameters:
            starts.append(size)
            size += math.ceil(parameter.numel() / ALIGNMENT) * ALIGNMENT
        first = self.parameters[0]
        self.flat = torch.zeros(size, dtype=first.dtype, device=first.device)
        self.views = [
            # In the parameter's own memory layout: optimisers go over both side by side.
            self.flat.as_strided(parameter.size(), parameter.stride(), start)
            for parameter, start in zip(self.parameters, starts, strict=True)
        ]
        self.zero()

    def zero(self) -> None:
        """Before the first backward pass of a step."""
        self.flat.zero_()
        for parameter, view in zip(self.parameters, self.views, strict=True):
            parameter.grad = view

    def norm(self) -> float:
        """Of all gradients together; infinite or NaN where one is."""
        return float(torch.linalg.vector_norm(self.flat))

    def norms(self, blocks: Sequence[Iterable[nn.Parameter]]) -> list[float]:
        """Of each block's gradients; 0 where none of it learns."""
        views = zip(self.parameters, self.views, strict=True)
        squares = {parameter: view.square().sum() for parameter, view in views}
        zero = self.flat.new_zeros(())
        sums = [sum((squares.get(p, zero) for p in block), zero) for block in blocks]
        norms: list[float] = torch.stack(sums).sqrt().tolist()
        return norms


def _leave_out(
    reason: str, batch: Batch, finite: Tensor, incidents: Incidents, kind: Kind = Kind.NOT_FINITE
) -> Batch:
    """The batch without the rows where `(B,)` bool is False, whose utterances are noted."""
    for row, is_fine in zip(batch.rows, finite.tolist(), strict=True):
        joined = f", joined with {len(row) - 1} others" if len(row) > 1 else ""
        if not is_fine:
            incidents.left_out.extend(each.finding(kind, reason + joined) for each in row)
    return batch.keep(finite)


def check_finite(recognizer: Recognizer, step: int, run_dir: Path) -> None:
    """Make sure that every weight is a number, before it is saved.

    Raises:
        ValueError: one is not.
    """
    for name, value in recognizer.state_dict().items():
        if not bool(value.isfinite().all()):
            raise ValueError(
                f"weight {name} is not finite after step {step}, nothing was saved: go on from the "
                f"last state with a lower rate, resume={run_dir} optim.lr=..."
            )
