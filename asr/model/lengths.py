"""Lengths of padded batches: masks, reversal of each sequence, frame counts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def length_mask(lengths: Tensor, max_length: int) -> Tensor:
    """True where a padded batch holds its own frames.

    Args:
        lengths: `(B,)` int64 [frames].
        max_length: T [frames].

    Returns:
        `(B, T)` bool.
    """
    return torch.arange(max_length, device=lengths.device) < lengths[:, None]


def mask_padding(x: Tensor, lengths: Tensor) -> Tensor:
    """Set everything beyond each length to zero, NaN included.

    Args:
        x: `(B, T, F)`.
        lengths: `(B,)` int64 [frames].

    Returns:
        `(B, T, F)`.
    """
    return torch.where(length_mask(lengths, x.shape[1])[..., None], x, 0.0)


def subsampled_length(lengths: Tensor, factor: int) -> Tensor:
    """Frames left when every `factor`-th is kept, starting with the first: ceil(length / factor).

    Args:
        lengths: int64, any shape [frames].
        factor: stride [frames].

    Returns:
        int64, the same shape.
    """
    return (lengths + factor - 1) // factor


def reverse_by_length(x: Tensor, lengths: Tensor) -> Tensor:
    """Reverse each sequence within its own length; padding stays where it is.

    With lengths (3, 1) the rows `a b c` and `d - -` become `c b a` and `d - -`. Reversing twice
    gives back the input.

    Args:
        x: `(B, T, F)`.
        lengths: `(B,)` int64 [frames], each at most T.

    Returns:
        `(B, T, F)`.
    """
    return _ReverseByLength.apply(x, lengths)  # type: ignore[no-any-return,no-untyped-call]


class _ReverseByLength(torch.autograd.Function):
    """A row gather whose gradient is the same gather: reversal is its own inverse.

    Indexing alone would get a scatter-add as its gradient, several times slower on a CPU.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, lengths: Tensor) -> Tensor:
        ctx.save_for_backward(lengths)
        return _reverse(x, lengths)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (lengths,) = ctx.saved_tensors
        return reverse_by_length(grads[0], lengths), None


def _reverse(x: Tensor, lengths: Tensor) -> Tensor:
    batch, frames, width = x.shape
    position = torch.arange(frames, device=x.device)
    mirrored = lengths[:, None] - 1 - position
    index = torch.where(mirrored >= 0, mirrored, position)  # (B, T)
    rows = index + frames * torch.arange(batch, device=x.device)[:, None]
    return x.reshape(-1, width).index_select(0, rows.reshape(-1)).reshape(batch, frames, width)
