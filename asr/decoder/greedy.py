"""Greedy CTC decoding: the best path, collapsed."""

from __future__ import annotations

import math

from torch import Tensor

from asr.decoder.hypothesis import BLANK, Hypothesis


class Greedy:
    """Takes the most likely label of each frame, merges repeats, drops blanks.

    (Graves et al., ICML 2006, best path decoding.)
    """

    def __call__(self, log_probs: Tensor, lengths: Tensor) -> list[list[Hypothesis]]:
        """Decode a batch.

        Args:
            log_probs: `(B, T, V)`.
            lengths: `(B,)` int64 [output frames].

        Returns:
            For each utterance its hypotheses, best first; greedy has one.
        """
        best, labels = log_probs.max(dim=-1)
        rows = zip(best.tolist(), labels.tolist(), lengths.tolist(), strict=True)
        return [[_collapse(row[:length], path[:length])] for row, path, length in rows]


def _collapse(scores: list[float], path: list[int]) -> Hypothesis:
    spans: list[tuple[int, int, int]] = []  # label, start, end
    for frame, label in enumerate(path):
        if frame and path[frame - 1] == label:
            previous, start, _ = spans[-1]
            spans[-1] = (previous, start, frame + 1)
        else:
            spans.append((label, frame, frame + 1))
    spoken = [span for span in spans if span[0] != BLANK]
    return Hypothesis(
        tokens=tuple(label for label, _, _ in spoken),
        starts=tuple(start for _, start, _ in spoken),
        ends=tuple(end for _, _, end in spoken),
        log_probs=tuple(math.fsum(scores[start:end]) / (end - start) for _, start, end in spoken),
        score=math.fsum(scores),
    )
