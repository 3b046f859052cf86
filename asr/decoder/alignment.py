"""Forced alignment: in which frames the most likely CTC path writes each label of a known text.

The path is Viterbi's, searched by code that Numba compiles. Its time grows with T * U. Its memory
does not: the scores of every `segment`-th frame are kept, and where each state came from only
within one segment at a time, the last one first. Within a segment of K frames the path moves on by
K labels at most, so that no more than K of them are looked at again. The path is exact.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from asr.compiled import compiled
from asr.decoder.greedy import Hypothesis, collapse
from asr.text import BLANK_ID

MAX_LOG_PROB = 1e-3  # [nats] above 0 by rounding only
MAX_TABLE_BYTES = 1 << 30  # reached at T * U = 8e11, some 12 hours of speech
MIN_SEGMENT = 512  # [frames] what is shorter keeps no scores and is gone through once
SCORE_BYTES = 16  # of a pair of states

Array = NDArray[Any]
Frames = NDArray[np.floating[Any]]  # log-probabilities, `(T, V)`


class StatePath(NamedTuple):
    """A path through the states of U labels.

    State 2u is the blank before label u (the last one the blank after all), state 2u + 1 is label
    u.

    Attributes:
        states: one a frame, `(T,)` int64.
        score: sum of the frames' log-probabilities [nats]; -inf where no path is possible.
    """

    states: NDArray[np.int64]
    score: float


def forced_alignment(
    log_probs: Frames, tokens: Sequence[int], name: str = "utterance"
) -> Hypothesis:
    """Align an utterance with its labels.

    Args:
        log_probs: `(T, V)` [nats].
        tokens: U label ids without blanks, none for an empty text.
        name: of the utterance, in errors.

    Returns:
        A hypothesis of these tokens, with the frames of each.

    Raises:
        ValueError: too few frames for the labels, a label that is the blank or out of range, a
            log-probability that is NaN or above 0 by more than rounding, labels whose every path
            has probability 0, or tables that would take more than MAX_TABLE_BYTES.
    """
    num_frames, vocab_size = log_probs.shape
    wrong = next((token for token in tokens if not BLANK_ID < token < vocab_size), None)
    if wrong is not None:
        raise ValueError(
            f"{name}: label {wrong}, expected 1 to {vocab_size - 1} ({BLANK_ID} is the blank)"
        )
    needed = len(tokens) + sum(a == b for a, b in pairwise(tokens))
    if num_frames < needed:
        raise ValueError(
            f"{name}: {num_frames} output frames, expected at least {needed} for its "
            f"{len(tokens)} labels"
        )
    if num_frames and not log_probs.max() < MAX_LOG_PROB:  # NaN fails every comparison
        raise ValueError(f"{name}: a log-probability is {log_probs.max()}, expected at most 0")
    states, score = best_path(log_probs, tokens)
    if score == -np.inf:
        raise ValueError(f"{name}: every path of its labels has probability 0, expected more")
    labels = np.where(states % 2, np.array([*tokens, BLANK_ID])[states // 2], BLANK_ID)
    hypothesis = collapse(labels.tolist(), log_probs[np.arange(num_frames), labels].tolist(), score)
    assert hypothesis.tokens == tuple(tokens)
    return hypothesis


def best_path(log_probs: Frames, tokens: Sequence[int]) -> StatePath:
    """Find the path of highest score.

    With e(t, s) the log-probability of state s's label at frame t,

        score(t, s) = e(t, s) + max(score(t-1, s), score(t-1, s-1), score(t-1, s-2))

    where the step from s-2 leaves a blank out, and is allowed from a label to another one only; a
    path starts in state 0 or 1 and ends in one of the last two (Graves et al., "Connectionist
    temporal classification", ICML 2006, section 4.1, with a maximum in place of the sum). Of equal
    scores the highest state is taken: read from its last frame, the path of a tie that has come
    furthest in the text.

    Args:
        log_probs: `(T, V)`, float32 or float64.
        tokens: U label ids without blanks.

    Raises:
        ValueError: tables that would take more than MAX_TABLE_BYTES.
    """
    segment = segment_length(len(log_probs), len(tokens))
    labels = np.array([*tokens, 0], dtype=np.uint32)  # one more, that no path enters
    penalty = np.full(len(labels), -math.inf)  # of leaving out the blank before a label
    penalty[1:-1][labels[1:-1] != labels[:-2]] = 0.0
    states, score = _search(np.ascontiguousarray(log_probs), labels, penalty, segment)
    return StatePath(states, float(score))


def segment_length(num_frames: int, num_tokens: int) -> int:
    """Choose the frames between kept scores that make the tables smallest.

    They take SCORE_BYTES * U * T / K bytes of scores and K * K of sources.

    Raises:
        ValueError: even so they are larger than MAX_TABLE_BYTES.
    """
    pairs = num_tokens + 1
    segment = max(MIN_SEGMENT, math.ceil(math.cbrt(SCORE_BYTES / 2 * pairs * num_frames)))
    size = SCORE_BYTES * pairs * (num_frames // segment) + segment * min(segment, pairs)
    if size > MAX_TABLE_BYTES:
        raise ValueError(
            f"{num_tokens} labels on {num_frames} frames need {size >> 20} MiB, expected at most "
            f"{MAX_TABLE_BYTES >> 20} MiB: cut the audio and its text into parts"
        )
    return segment


@compiled
def _search(log_probs: Array, labels: Array, penalty: Array, segment: int) -> tuple[Array, float]:
    """Find states `(T,)` and score; pair u of states is the blank before label u, and label u."""
    num_frames, pairs = len(log_probs), len(labels)
    kept_blanks, kept_labels = _keep_scores(log_probs, labels, penalty, segment)
    states = np.empty(num_frames, np.int64)
    score = -np.inf
    state: Any = np.int64(2 * pairs - 2)
    for number in range(len(kept_blanks) - 1, -1, -1):
        first, last = number * segment, min(num_frames, (number + 1) * segment)
        is_end = number == len(kept_blanks) - 1
        # At the end it is the blank after all labels, or the last label: one pair before.
        lowest = max(0, pairs - 2) if is_end else state // 2
        base = max(0, lowest - (last - first))
        sources = np.empty((last - first, state // 2 + 1 - base), np.uint8)
        end_blank, end_label = _note_sources(
            kept_blanks[number], kept_labels[number], log_probs, labels, penalty,
            first, lowest, base, sources,
        )  # fmt: skip
        if is_end:
            score = end_blank
            if pairs > 1 and end_label > score:
                score, state = end_label, np.int64(2 * pairs - 3)
        for t in range(last - 1, first - 1, -1):
            states[t] = state
            source = np.int64(sources[t - first, state // 2 - base])
            state -= source // 2 if state % 2 else source % 2
    return states, score


@compiled
def _keep_scores(
    log_probs: Array, labels: Array, penalty: Array, segment: int
) -> tuple[Array, Array]:
    """Keep the scores before the first frame of each segment.

    Returns:
        Of blanks `(segments, U + 1)`, and of labels `(segments, U + 2)`, label u at u + 1, so that
        there is something before the first.
    """
    num_frames, pairs = len(log_probs), len(labels)
    num_segments = max(1, -(-num_frames // segment))
    kept_blanks = np.full((num_segments, pairs), -np.inf)
    kept_labels = np.full((num_segments, pairs + 1), -np.inf)
    kept_blanks[0, 0] = 0.0  # as if a blank had come before the first frame
    blanks, own = np.full((2, pairs), -np.inf), np.full((2, pairs + 1), -np.inf)
    blanks[0, 0] = 0.0
    for t in range((num_segments - 1) * segment):
        # A path has come as far as it can by now, and can still reach the end.
        low, high = max(0, pairs - 1 - num_frames + t), min(pairs, t + 1)
        now, then = (t + 1) % 2, t % 2
        _advance(
            blanks[then, low:high], own[then, low:high], own[then, low + 1 : high + 1],
            blanks[now, low:high], own[now, low + 1 : high + 1],
            labels[low:high], penalty[low:high], log_probs[t],
        )  # fmt: skip
        if (t + 1) % segment == 0:
            _copy(blanks[now], kept_blanks[(t + 1) // segment])
            _copy(own[now], kept_labels[(t + 1) // segment])
    return kept_blanks, kept_labels


@compiled
def _note_sources(
    kept_blanks: Array, kept_labels: Array, log_probs: Array, labels: Array, penalty: Array,
    first: int, lowest: int, base: int, sources: Array,
) -> tuple[float, float]:  # fmt: skip
    """Fill `sources` `(K, pairs from base on)` for the frames from `first` on.

    Only as far as they lead to pairs from `lowest` on in the last of them.

    Returns:
        Scores in the end of the last pair's blank, and of the label before it.
    """
    num_frames, width = sources.shape
    highest = base + width - 1
    # Of the pairs from base on only; the label before them is at 0.
    blanks, own = np.full((2, width), -np.inf), np.full((2, width + 1), -np.inf)
    _copy(kept_blanks[base : highest + 1], blanks[0])
    _copy(kept_labels[base : highest + 2], own[0])
    for t in range(num_frames):
        low = max(0, lowest - (num_frames - 1 - t) - base)
        high = min(highest, first + t) - base + 1
        now, then = (t + 1) % 2, t % 2
        _advance_and_note(
            blanks[then, low:high], own[then, low:high], own[then, low + 1 : high + 1],
            blanks[now, low:high], own[now, low + 1 : high + 1],
            labels[base + low : base + high], penalty[base + low : base + high],
            log_probs[first + t], sources[t, low:high],
        )  # fmt: skip
    now = num_frames % 2
    return blanks[now, width - 1], own[now, width - 1]


@compiled
def _copy(source: Array, target: Array) -> None:
    """Copy as `target[:] = source` does, whose error of shapes takes seconds to compile."""
    for i in range(len(source)):
        target[i] = source[i]


@compiled
def _advance(
    blanks: Array, before: Array, own: Array, new_blanks: Array, new_own: Array, labels: Array,
    penalty: Array, frame: Array,
) -> None:  # fmt: skip
    """Compute the scores of the next frame for a stretch of pairs.

    `before` are those of the labels one pair before. Slices from 0, as indices that might be
    negative keep Numba from vectors.
    """
    for i in range(len(labels)):
        blank, label, other = blanks[i], own[i], before[i]
        best = label if label >= blank else blank
        skipping = other + penalty[i]
        best = best if best >= skipping else skipping
        new_own[i] = best + frame[labels[i]]
        new_blanks[i] = (blank if blank >= other else other) + frame[0]


@compiled
def _advance_and_note(
    blanks: Array, before: Array, own: Array, new_blanks: Array, new_own: Array, labels: Array,
    penalty: Array, frame: Array, sources: Array,
) -> None:  # fmt: skip
    """Do as `_advance`, and note where each pair came from.

    In each of `sources`: how many states back the label (times 2) and the blank (0 or 1) came from.
    """
    for i in range(len(labels)):
        blank, label, other = blanks[i], own[i], before[i]
        best, step = label, 0
        if blank > best:
            best, step = blank, 1
        if other + penalty[i] > best:
            best, step = other + penalty[i], 2
        new_own[i] = best + frame[labels[i]]
        from_label = other > blank
        new_blanks[i] = (other if from_label else blank) + frame[0]
        sources[i] = 2 * step + (1 if from_label else 0)
