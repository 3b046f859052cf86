"""Is one system better than another on the same utterances, or is it chance?

The matched-pair sentence-segment word error test (Gillick & Cox, "Some statistical issues in the
comparison of speech recognition algorithms", ICASSP 1989; "MAPSSWE", `sc_stats -t mapsswe` of
NIST's SCTK) and the bootstrap probability of improvement (Bisani & Ney, ICASSP 2004).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from asr.metrics.error_rate import ErrorCounts, WordPair
from asr.metrics.interval import (
    LEVEL,
    REPLICATES,
    SEED,
    Interval,
    make_blocks,
    percentile_interval,
    rates,
    resampled_sums,
)

BOUNDARY_WORDS = 2  # that both systems have right, between two segments: NIST's choice

WordPairs = Sequence[WordPair]  # the alignment of an utterance


@dataclass(frozen=True, slots=True)
class MatchedPairs:
    """Result of the matched-pair test; differences are errors of A less errors of B.

    Attributes:
        num_segments: segments in which at least one system errs.
        mean: of the differences [errors a segment].
        deviation: standard deviation of the differences; 0 with fewer than two segments.
        z: standard normal under the hypothesis of no difference; None where the differences do not
            vary, which leaves nothing to measure their mean by (0 where there is no difference).
        p: two-tailed probability of such a z or a larger one; None with z.
    """

    num_segments: int
    mean: float
    deviation: float
    z: float | None
    p: float | None


@dataclass(frozen=True, slots=True)
class Improvement:
    """How much lower the error rate of B is than that of A, by the bootstrap.

    Attributes:
        difference: rate of B less rate of A; below 0, B is better.
        interval: of the difference; None with a single block.
        probability: share of the replicates in which B is better, equal ones half; None likewise.
    """

    difference: float
    interval: Interval | None
    probability: float | None


def matched_pairs(first: Sequence[WordPairs], second: Sequence[WordPairs]) -> MatchedPairs:
    """Do the matched-pair sentence-segment word error test.

    A segment begins at an error of either system and goes on until two reference words in a row
    are right in both, with nothing inserted between them, or the utterance ends: errors nearer to
    each other than that may depend on each other. Segments count as independent, and their mean
    difference as normal; with fewer than some 50 segments that is coarse.

    Args:
        first: alignments of system A.
        second: alignments of system B with the same references, in the same order.

    Raises:
        ValueError: the references differ.
    """
    if len(first) != len(second):
        raise ValueError(f"alignments: got {len(second)}, expected {len(first)} as in the first")
    differences = [a - b for pair in zip(first, second, strict=True) for a, b in segments(*pair)]
    count = len(differences)
    mean = math.fsum(differences) / count if count else 0.0
    squares = math.fsum((each - mean) ** 2 for each in differences)
    deviation = math.sqrt(squares / (count - 1)) if count > 1 else 0.0
    z: float | None = None
    if deviation:
        z = mean / (deviation / math.sqrt(count))
    elif mean == 0:
        z = 0.0
    p = None if z is None else math.erfc(abs(z) / math.sqrt(2))
    return MatchedPairs(count, mean, deviation, z, p)


def segments(first: WordPairs, second: WordPairs) -> Iterator[tuple[int, int]]:
    """Count the errors of both systems in each segment of an utterance, as `matched_pairs` cuts it.

    Raises:
        ValueError: the references differ.
    """
    a, b = _errors_at(first), _errors_at(second)
    if a[0] != b[0]:
        raise ValueError(
            f"references are {' '.join(a[0])!r} and {' '.join(b[0])!r}, expected the same"
        )
    errors = [0, 0]
    right = BOUNDARY_WORDS
    for here in zip(a[1], b[1], strict=True):
        inserted = any(before for before, _ in here)
        wrong = any(at for _, at in here)
        if inserted:
            right = 0
        for system, (before, at) in enumerate(here):
            errors[system] += before + at
        right = 0 if wrong else right + 1
        if right >= BOUNDARY_WORDS and any(errors):
            yield errors[0], errors[1]
            errors = [0, 0]
    if any(errors):
        yield errors[0], errors[1]


def improvement(
    first: Sequence[ErrorCounts],
    second: Sequence[ErrorCounts],
    speakers: Sequence[str | None],
    replicates: int = REPLICATES,
    seed: int = SEED,
    level: float = LEVEL,
) -> Improvement:
    """Compute the difference of two error rates, and the probability that it is below zero.

    Both systems are resampled by the same draws, blocked by speaker as `rate_intervals` does.

    Args:
        first: counts of every utterance, system A.
        second: counts of the same utterances, system B.
        speakers: of every utterance; None where it is not known.
        replicates: how many.
        seed: of the draws.
        level: of the interval.

    Raises:
        ValueError: utterances differ in number, or in reference length.
    """
    lengths = [each.reference_length for each in first]
    if lengths != [each.reference_length for each in second] or len(first) != len(speakers):
        raise ValueError("counts are of different utterances, expected the same references")
    length = sum(lengths)
    if not length:
        raise ValueError(f"references: no word in {len(first)} utterances, expected at least one")
    errors = [[a.errors, b.errors] for a, b in zip(first, second, strict=True)]
    difference = (sum(b for _, b in errors) - sum(a for a, _ in errors)) / length
    blocks = make_blocks(speakers)
    if blocks.count < 2:
        return Improvement(difference, None, None)
    columns = np.column_stack([np.array(errors, dtype=np.int64), lengths])
    sums = resampled_sums(columns, blocks, replicates, seed)
    excess = sums[:, 1] - sums[:, 0]
    return Improvement(
        difference,
        percentile_interval(np.sign(excess) * rates(np.abs(excess), sums[:, 2]), blocks, level),
        float(np.mean((1 - np.sign(excess)) / 2)),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust the p-values of several tests, so that any false alarm has the stated probability.

    (Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of
    Statistics 1979.)

    Args:
        p_values: one a test.

    Returns:
        The adjusted ones, in the same order.
    """
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted


def _errors_at(alignment: WordPairs) -> tuple[list[str], list[tuple[int, int]]]:
    """List the reference's words; for each and for the end, insertions before it, errors at it."""
    reference: list[str] = []
    places: list[tuple[int, int]] = []
    inserted = 0
    for word in alignment:
        if word.reference is None:
            inserted += 1
        else:
            reference.append(word.reference)
            places.append((inserted, int(word.kind != "equal")))
            inserted = 0
    return reference, [*places, (inserted, 0)]
