"""The most likely CTC path of a known label sequence: the readable reference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.floating[Any]]  # log-probabilities, `(T, V)`


class Path(NamedTuple):
    """A path through the states of U labels: state 2u is the blank before label u (the last one the
    blank after all), state 2u + 1 is label u.

    Attributes:
        states: one a frame, `(T,)`.
        score: sum of the frames' log-probabilities [nats]; -inf where no path is possible.
    """

    states: NDArray[np.int64]
    score: float


def best_path(log_probs: Frames, tokens: Sequence[int]) -> Path:
    """The path of highest score, in plain Python with whole tables.

    With e(t, s) the log-probability of state s's label at frame t,

        score(t, s) = e(t, s) + max(score(t-1, s), score(t-1, s-1), score(t-1, s-2))

    where the step from s-2 leaves a blank out, and is allowed from a label to another one only; a
    path starts in state 0 or 1 and ends in one of the last two (Graves et al., "Connectionist
    temporal classification", ICML 2006, section 4.1, with a maximum in place of the sum). Of equal
    scores the highest state is taken: read from its last frame, the path of a tie that has come
    furthest in the text.

    Args:
        log_probs: `(T, V)`.
        tokens: U label ids without blanks.
    """
    labels = [0]
    for token in tokens:
        labels += [token, 0]
    row = [0.0] + [-math.inf] * (len(labels) - 1)  # as if a blank had come before the first frame
    came_from: list[list[int]] = []
    for frame in log_probs:
        came_from.append([_best_source(row, labels, state) for state in range(len(labels))])
        row = [
            row[source] + float(frame[labels[state]]) for state, source in enumerate(came_from[-1])
        ]
    state = len(labels) - 1
    if tokens and row[state - 1] > row[state]:
        state -= 1
    score = row[state]
    states: list[int] = []
    for sources in reversed(came_from):
        states.append(state)
        state = sources[state]
    return Path(np.array(states[::-1], dtype=np.int64), score)


def _best_source(row: Sequence[float], labels: Sequence[int], state: int) -> int:
    sources = [state]
    if state >= 1:
        sources.append(state - 1)
    if state >= 3 and state % 2 and labels[state] != labels[state - 2]:
        sources.append(state - 2)
    return max(sources, key=lambda source: row[source])  # the first, highest one of a tie
