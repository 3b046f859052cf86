"""The CTC loss and the rule which labels an utterance is long enough for."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional

BLANK = 0


def required_frames(tokens: list[int]) -> int:
    """Fewest output frames in which CTC can write these labels: one each, and a blank between
    equal neighbours (Graves et al., "Connectionist temporal classification", ICML 2006).

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
    """Negative log-likelihood of each utterance's labels.

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
    return functional.ctc_loss(
        log_probs.transpose(0, 1),  # time first: (T, B, V)
        tokens,
        log_prob_lengths,
        token_lengths,
        blank=BLANK,
        reduction="none",
    )


def _check_tokens(tokens: Tensor, token_lengths: Tensor, vocab_size: int) -> None:
    inside = torch.arange(tokens.shape[1], device=tokens.device) < token_lengths[:, None]
    wrong = inside & ((tokens <= BLANK) | (tokens >= vocab_size))
    if wrong.any():
        row, column = (int(i) for i in wrong.nonzero()[0])
        raise ValueError(
            f"label {int(tokens[row, column])} at position {column} of row {row} of the batch, "
            f"expected 1 to {vocab_size - 1} ({BLANK} is the blank)"
        )
