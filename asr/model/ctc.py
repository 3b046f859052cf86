"""The CTC loss and the rule which labels an utterance is long enough for."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from asr.model.lengths import length_mask, reverse_by_length

BLANK = 0


def required_frames(tokens: Sequence[int]) -> int:
    """Count the fewest output frames in which CTC can write these labels.

    One each, and a blank between equal neighbours (Graves et al., "Connectionist temporal
    classification", ICML 2006).

    Args:
        tokens: label ids without blanks.

    Returns:
        [output frames].
    """
    repeats = sum(a == b for a, b in pairwise(tokens))
    return len(tokens) + repeats


def ctc_loss(
    log_probs: Tensor, log_prob_lengths: Tensor, tokens: Tensor, token_lengths: Tensor
) -> Tensor:
    """Negative log-likelihood of each utterance's labels; the same bits each time.

    Args:
        log_probs: `(B, T, V)`; computed in float32 (float64 stays), whatever its type.
        log_prob_lengths: `(B,)` int64 [output frames].
        tokens: `(B, U)` int64, padding may hold anything.
        token_lengths: `(B,)` int64, 0 for an empty transcript.

    Returns:
        `(B,)` float32 [nats]; inf where the labels need more frames than there are.

    Raises:
        ValueError: a label that is the blank or outside 1 to V - 1, which torch's CPU loss takes.
    """
    _check_tokens(tokens, token_lengths, log_probs.shape[-1])
    if log_probs.dtype != torch.float64:
        log_probs = log_probs.float()
    frames_first = log_probs.transpose(0, 1)  # (T, B, V)
    if repeats_itself(log_probs.device):
        return functional.ctc_loss(
            frames_first, tokens, log_prob_lengths, token_lengths, BLANK, reduction="none"
        )
    return _OrderedCtc.apply(  # type: ignore[no-any-return,no-untyped-call]
        frames_first, tokens, log_prob_lengths, token_lengths
    )


def repeats_itself(device: torch.device) -> bool:
    """Whether torch's own gradient of the loss has the same bits each time.

    On a GPU it adds up a label's occurrences in any order (pytorch/pytorch#17798).
    """
    return device.type != "cuda"


class _OrderedCtc(torch.autograd.Function):
    """The loss with a gradient whose sums have a fixed order.

    A state (a blank or a label at its place) is occupied at a frame with the probability of all
    paths to it and from it over that of all paths. Those to it are torch's forward recursion; those
    from it are the same recursion over frames and labels in reverse. A matrix product adds up the
    states of each label.
    """

    @staticmethod
    def forward(
        ctx: Any, log_probs: Tensor, tokens: Tensor, lengths: Tensor, token_lengths: Tensor
    ) -> Tensor:
        """Losses `(B,)` of log_probs `(T, B, V)`."""
        losses, to_states = torch._ctc_loss(log_probs, tokens, lengths, token_lengths, BLANK)
        if not ctx.needs_input_grad[0]:
            return losses
        num_states = 2 * token_lengths + 1
        rows = log_probs.transpose(0, 1)  # (B, T, V)
        _, from_states = torch._ctc_loss(
            reverse_by_length(rows, lengths).transpose(0, 1),
            reverse_by_length(tokens[:, :, None], token_lengths)[:, :, 0],
            lengths, token_lengths, BLANK,
        )  # fmt: skip
        from_states = reverse_by_length(from_states, lengths).transpose(1, 2)
        from_states = reverse_by_length(from_states, num_states).transpose(1, 2)

        labels = tokens.new_full((len(tokens), to_states.shape[2]), BLANK)  # (B, S)
        labels[:, 1::2] = tokens.where(length_mask(token_lengths, tokens.shape[1]), BLANK)
        own = rows.gather(2, labels[:, None, :].expand_as(to_states))  # counted in both
        occupied = (to_states + from_states - own + losses[:, None, None]).exp()
        is_state = length_mask(lengths, len(log_probs))[:, :, None] & ~own.isneginf()
        is_state &= length_mask(num_states, labels.shape[1])[:, None, :]
        occupied = occupied.where(is_state, 0.0)
        of_labels = functional.one_hot(labels, log_probs.shape[2]).to(occupied.dtype)
        with torch.autocast(log_probs.device.type, enabled=False):
            ctx.save_for_backward(-torch.bmm(occupied, of_labels).transpose(0, 1))
        return losses

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        """The gradient of log_probs."""
        (gradient,) = ctx.saved_tensors
        return gradient * grads[0][None, :, None], None, None, None


def _check_tokens(tokens: Tensor, token_lengths: Tensor, vocab_size: int) -> None:
    inside = torch.arange(tokens.shape[1], device=tokens.device) < token_lengths[:, None]
    wrong = inside & ((tokens <= BLANK) | (tokens >= vocab_size))
    if wrong.any():
        row, column = (int(i) for i in wrong.nonzero()[0])
        raise ValueError(
            f"label {int(tokens[row, column])} at position {column} of row {row} of the batch, "
            f"expected 1 to {vocab_size - 1} ({BLANK} is the blank)"
        )
