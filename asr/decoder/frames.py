"""A batch of log-probabilities as the arrays of its utterances, checked."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def utterances_of(log_probs: Tensor, lengths: Tensor, alphabet: str) -> list[NDArray[np.float64]]:
    """The frames of each utterance, without padding, `(T, V)` float64.

    Args:
        log_probs: `(B, T, V)` [nats].
        lengths: `(B,)` int64 [output frames].
        alphabet: that the labels must fit; empty for any.

    Raises:
        ValueError: log_probs that are not a number or infinite, or a frame in which no label is
            possible; an alphabet that is not the model's.
    """
    if alphabet and len(alphabet) + 1 != log_probs.shape[-1]:
        raise ValueError(
            f"log_probs of {log_probs.shape[-1]} labels, expected {len(alphabet) + 1}: the blank "
            "and the decoder's alphabet"
        )
    rows = log_probs.detach().to("cpu", torch.float64).contiguous().numpy()
    utterances = [row[:length] for row, length in zip(rows, lengths.tolist(), strict=True)]
    for number, utterance in enumerate(utterances):
        _check(number, utterance)
    return utterances


def _check(number: int, log_probs: NDArray[np.float64]) -> None:
    bad = np.isnan(log_probs) | (log_probs == np.inf)
    if bad.any():
        frame, label = np.argwhere(bad)[0]
        raise ValueError(
            f"log_probs of utterance {number}, frame {frame}, label {label}: "
            f"{log_probs[frame, label]}, expected a number below inf"
        )
    dead = np.all(log_probs == -np.inf, axis=1)
    if dead.any():
        raise ValueError(
            f"log_probs of utterance {number}, frame {int(dead.argmax())}: -inf for every label, "
            "expected one that is possible"
        )
