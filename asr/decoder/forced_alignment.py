"""Forced alignment: which frames of the most likely CTC path write each label of a known text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from asr.decoder.greedy import BLANK, Hypothesis
from asr.decoder.viterbi import Frames, Path
from asr.decoder.viterbi_kernel import fast_best_path

MAX_LOG_PROB = 1e-3  # [nats] above 0 by rounding only

Search = Callable[[Frames, Sequence[int]], Path]


def forced_alignment(
    log_probs: Tensor,
    lengths: Tensor,
    tokens: Tensor,
    token_lengths: Tensor,
    search: Search = fast_best_path,
) -> list[Hypothesis]:
    """Align a batch of utterances with their labels.

    Args:
        log_probs: `(B, T, V)`; padding may hold anything.
        lengths: `(B,)` int64 [output frames].
        tokens: `(B, U)` int64; padding may hold anything.
        token_lengths: `(B,)` int64, 0 for an empty text.
        search: of the path; `asr.decoder.viterbi.best_path` is the readable one.

    Returns:
        A hypothesis each, whose tokens are those given; none depends on the others.

    Raises:
        ValueError: too few frames for the labels, a label that is the blank or out of range, a
            log-probability that is NaN or above 0 by more than rounding, or labels whose every path
            has probability 0.
    """
    rows = zip(log_probs, lengths.tolist(), tokens, token_lengths.tolist(), strict=True)
    return [
        align_one(_array(row[:length]), own[:count].tolist(), search, f"utterance {number}")
        for number, (row, length, own, count) in enumerate(rows)
    ]


def align_one(
    log_probs: Frames,
    tokens: Sequence[int],
    search: Search = fast_best_path,
    name: str = "utterance",
) -> Hypothesis:
    """Align one utterance with its labels.

    Args:
        log_probs: `(T, V)`.
        tokens: U label ids without blanks.
        search: of the path.
        name: of the utterance, in errors.

    Raises:
        ValueError: as `forced_alignment`.
    """
    _check(log_probs, tokens, name)
    path = search(log_probs, tokens)
    if path.score == -np.inf:
        raise ValueError(f"{name}: every path of its labels has probability 0, expected more")
    return _hypothesis(log_probs, tokens, path)


def _array(log_probs: Tensor) -> Frames:
    if log_probs.dtype != torch.float64:
        log_probs = log_probs.float()
    return log_probs.detach().cpu().numpy()


def _check(log_probs: Frames, tokens: Sequence[int], name: str) -> None:
    num_frames, vocab_size = log_probs.shape
    wrong = next((token for token in tokens if not BLANK < token < vocab_size), None)
    if wrong is not None:
        raise ValueError(
            f"{name}: label {wrong}, expected 1 to {vocab_size - 1} ({BLANK} is the blank)"
        )
    needed = len(tokens) + sum(a == b for a, b in pairwise(tokens))
    if num_frames < needed:
        raise ValueError(
            f"{name}: {num_frames} output frames, expected at least {needed} for its "
            f"{len(tokens)} labels"
        )
    if num_frames and not log_probs.max() < MAX_LOG_PROB:  # NaN fails every comparison
        raise ValueError(f"{name}: a log-probability is {log_probs.max()}, expected at most 0")


def _hypothesis(log_probs: Frames, tokens: Sequence[int], path: Path) -> Hypothesis:
    on_label = path.states % 2 == 1
    changes = np.flatnonzero(np.diff(path.states)) + 1
    starts = np.concatenate(([0], changes))[: len(path.states)]
    ends = np.concatenate((changes, [len(path.states)]))[: len(path.states)]
    is_label = on_label[starts]
    starts, ends = starts[is_label], ends[is_label]
    assert len(starts) == len(tokens)
    frames = np.flatnonzero(on_label)
    labels = np.array([*tokens, BLANK])[path.states[frames] // 2]
    sums = np.concatenate(([0.0], np.cumsum(log_probs[frames, labels], dtype=np.float64)))
    ranks = np.concatenate(([0], np.cumsum(ends - starts)))
    means = (sums[ranks[1:]] - sums[ranks[:-1]]) / (ends - starts)
    return Hypothesis(
        tokens=tuple(tokens),
        starts=tuple(starts.tolist()),
        ends=tuple(ends.tolist()),
        log_probs=tuple(means.tolist()),
        score=path.score,
    )
