"""Before the first step: does the largest batch fit into memory?"""

from __future__ import annotations

import resource
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from asr.data.batch import Batch
from asr.data.manifest import Utterance
from asr.data.window import Tokens
from asr.memory import machine_memory
from asr.trainer.step import Stepper

GIB = 1 << 30  # [bytes]


@dataclass(frozen=True)
class MemoryScan:
    """What the largest batch took.

    Attributes:
        utterances: of that batch.
        longest_s: its longest utterance, at the slowest speed [s].
        peak: largest memory in use during its step, of the process or on its GPU [bytes].
        total: memory of the machine, or of the GPU [bytes].
        notes: where it did not fit.
    """

    utterances: int
    longest_s: float
    peak: int
    total: int
    notes: tuple[str, ...]


def scan_memory(
    stepper: Stepper,
    batches: Sequence[tuple[int, ...]],
    durations: Sequence[float],
    tokens: Sequence[Tokens],
    slowest: float,
) -> MemoryScan:
    """Run the largest batch of a plan forward and backward, on noise, without a step.

    Args:
        stepper: whose model is tried; its gradients are zero afterwards.
        batches: of a plan, positions of utterances.
        durations: of every utterance [s].
        tokens: of every utterance.
        slowest: smallest speed factor of the augmentation; it makes the longest waveforms.
    """
    device = stepper.world.device
    largest = max(batches, key=lambda batch: _padded(batch, durations))
    longest_s = max(durations[position] for position in largest) / slowest
    batch = _noise(largest, longest_s, stepper.features.sample_rate, tokens)
    is_cuda = device.type == "cuda"
    if is_cuda:
        torch.cuda.reset_peak_memory_stats(device)
    notes = stepper.rehearse(batch)
    if is_cuda:
        peak = torch.cuda.max_memory_allocated(device)
        total = torch.cuda.get_device_properties(device).total_memory
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        total = machine_memory()
    return MemoryScan(len(largest), longest_s, peak, total, tuple(notes))


def _padded(batch: tuple[int, ...], durations: Sequence[float]) -> float:
    return len(batch) * max((durations[position] for position in batch), default=0.0)


def _noise(batch: tuple[int, ...], longest_s: float, rate: int, tokens: Sequence[Tokens]) -> Batch:
    """A batch of this size, each utterance as long as the longest."""
    generator = torch.Generator().manual_seed(0)
    num_samples = int(longest_s * rate)
    labels = [torch.tensor(tokens[position], dtype=torch.int64) for position in batch]
    return Batch(
        waveforms=torch.randn((len(batch), num_samples), generator=generator) * 0.1,
        num_samples=torch.full((len(batch),), num_samples, dtype=torch.int64),
        tokens=torch.nn.utils.rnn.pad_sequence(labels, batch_first=True),
        token_lengths=torch.tensor([len(row) for row in labels], dtype=torch.int64),
        seeds=tuple(range(len(batch))),
        utterances=tuple(Utterance(Path(), "", longest_s, f"#{row}") for row in range(len(batch))),
    )
