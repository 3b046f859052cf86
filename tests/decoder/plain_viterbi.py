"""The most likely CTC path of a known label sequence, in plain Python with whole tables."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from asr.decoder.alignment import Frames, StatePath


def plain_best_path(log_probs: Frames, tokens: Sequence[int]) -> StatePath:
    """What `asr.decoder.alignment.best_path` must find, by its equation, line by line."""
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
    return StatePath(np.array(states[::-1], dtype=np.int64), score)


def _best_source(row: Sequence[float], labels: Sequence[int], state: int) -> int:
    sources = [state]
    if state >= 1:
        sources.append(state - 1)
    if state >= 3 and state % 2 and labels[state] != labels[state - 2]:
        sources.append(state - 2)
    return max(sources, key=lambda source: row[source])  # the first, highest one of a tie
