"""Log-probabilities of long recordings, computed in overlapping chunks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from asr.model.bilstm_ctc import BiLstmCtc

AT_ONCE = 4  # chunks in a batch


@dataclass(frozen=True)
class Chunk:
    """A stretch of a recording and what lies around it, in feature frames.

    Attributes:
        start: of what the model is run on.
        end: of what the model is run on.
        first: from here on its output is used.
        last: up to here.
    """

    start: int
    end: int
    first: int
    last: int


def log_probs_in_chunks(
    model: BiLstmCtc,
    features: Tensor,
    chunk_frames: int,
    context_frames: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Tensor:
    """Run a model on one long recording in memory that does not grow with it, but for the result.

    Each chunk is run with its neighbourhood on both sides, whose output is thrown away: the first
    and last frames of a chunk then see nearly as much before and after them as in the whole. What
    is no longer than a chunk is run as a whole, with the very same result.

    Args:
        model: in evaluation mode.
        features: `(T, F)`, normalised.
        chunk_frames: feature frames whose output a chunk gives.
        context_frames: feature frames around them on either side.
        progress: told how many feature frames of how many are done.

    Returns:
        log_probs `(T', V)` float32 on the model's device.
    """
    num_frames = len(features)
    step = model.subsampling_factor
    if num_frames <= chunk_frames:
        plan = [Chunk(0, num_frames, 0, num_frames)]
    else:
        plan = list(_plan(num_frames, chunk_frames, context_frames, step))
    parts: list[Tensor] = []
    for number in range(0, len(plan), AT_ONCE):
        batch = plan[number : number + AT_ONCE]
        padded = torch.nn.utils.rnn.pad_sequence(
            [features[chunk.start : chunk.end] for chunk in batch], batch_first=True
        )
        sizes = torch.tensor([chunk.end - chunk.start for chunk in batch], device=features.device)
        log_probs, lengths = model(padded, sizes)
        for row, length, chunk in zip(log_probs, lengths.tolist(), batch, strict=True):
            before = (chunk.first - chunk.start) // step * model.upsampling
            wanted = -(-(chunk.last - chunk.first) // step) * model.upsampling
            # A copy: a view would keep the output of the whole batch.
            parts.append(row[before : min(before + wanted, length)].clone())
        progress(batch[-1].last, num_frames)
    return torch.cat(parts)


def _plan(num_frames: int, chunk_frames: int, context_frames: int, step: int) -> Iterator[Chunk]:
    """Chunks that begin on an output frame, the last one up to the end."""
    chunk_frames = max(1, chunk_frames // step) * step
    context_frames = -(-context_frames // step) * step
    for first in range(0, num_frames, chunk_frames):
        last = min(first + chunk_frames, num_frames)
        yield Chunk(
            max(0, first - context_frames), min(last + context_frames, num_frames), first, last
        )
