"""Hypotheses, and the simplest way to one: greedy decoding, the best path collapsed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from asr.text import BLANK_ID


@dataclass(frozen=True)
class Hypothesis:
    """What a decoder takes an utterance for.

    Attributes:
        tokens: label ids.
        starts: first output frame of each token on its best alignment.
        ends: frame after the last one of each token.
        log_probs: mean log-probability of each token over its frames [nats].
        score: what the decoder ranks by [nats]: of greedy and of a forced alignment the
            log-probability of the path, of a beam search that of the tokens, all paths summed, and
            what a language model and hotwords add.
        words: what the tokens between spaces stand for; None where they are the words themselves.
    """

    tokens: tuple[int, ...]
    starts: tuple[int, ...]
    ends: tuple[int, ...]
    log_probs: tuple[float, ...]
    score: float
    words: tuple[str, ...] | None = None


class Greedy:
    """Takes the most likely label of each frame, merges repeats, drops blanks.

    (Graves et al., ICML 2006, best path decoding.)
    """

    def __call__(
        self, log_probs: NDArray[np.floating], lengths: NDArray[np.int64]
    ) -> list[list[Hypothesis]]:
        """Decode a batch.

        Args:
            log_probs: `(B, T, V)`.
            lengths: `(B,)` int64 [output frames].

        Returns:
            For each utterance its hypotheses, best first; greedy has one.
        """
        rows = np.asarray(log_probs)
        labels = rows.argmax(axis=-1)
        best = np.take_along_axis(rows, labels[..., None], axis=-1)[..., 0]
        paths = zip(labels.tolist(), best.tolist(), lengths.tolist(), strict=True)
        return [
            [collapse(path[:length], scores[:length], math.fsum(scores[:length]))]
            for path, scores, length in paths
        ]

    def stream(self, vocab_size: int, max_frames: int) -> GreedyStream:
        """Begin an utterance whose frames come one after the other; see `BeamSearch.stream`."""
        return GreedyStream()


class GreedyStream:
    """Greedy decoding of one utterance, whose frames come one after the other."""

    def __init__(self) -> None:
        self._labels: list[int] = []
        self._log_probs: list[float] = []

    def push(self, log_probs: NDArray[np.float64]) -> None:
        """Take the next frames, `(t, V)` [nats]."""
        self._labels += log_probs.argmax(axis=1).tolist()
        self._log_probs += log_probs.max(axis=1).tolist()

    def hypotheses(self) -> list[Hypothesis]:
        """Tell what was said, if the utterance ends here; it may go on."""
        return [collapse(self._labels, self._log_probs, math.fsum(self._log_probs))]


def collapse(path: Sequence[int], log_probs: Sequence[float], score: float) -> Hypothesis:
    """Make a hypothesis of a path: repeats merged, blanks dropped.

    Args:
        path: the label of each frame, T of them.
        log_probs: of these labels, T of them [nats].
        score: of the hypothesis [nats].
    """
    edges = [t for t in range(len(path)) if t == 0 or path[t] != path[t - 1]] + [len(path)]
    spans = [(start, end) for start, end in pairwise(edges) if path[start] != BLANK_ID]
    return Hypothesis(
        tokens=tuple(path[start] for start, _ in spans),
        starts=tuple(start for start, _ in spans),
        ends=tuple(end for _, end in spans),
        log_probs=tuple(math.fsum(log_probs[start:end]) / (end - start) for start, end in spans),
        score=score,
    )
