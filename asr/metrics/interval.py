"""Bootstrap confidence intervals of error rates, blocked by speaker.

Words of one utterance, and utterances of one speaker, go wrong together: a test set of 40 speakers
says less than its word count promises. So whole blocks are resampled (Bisani & Ney, "Bootstrap
estimates for confidence intervals in ASR performance evaluation", ICASSP 2004): all utterances of a
speaker, or single utterances where there is one speaker or none. Each replicate draws as many
blocks as there are, with replacement, and takes its errors over its reference length; the
interval's ends are percentiles of the replicates. It has the coverage it promises with some tens of
blocks; with few it is somewhat too narrow.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from asr.metrics.error_rate import ErrorCounts

REPLICATES = 10_000
LEVEL = 0.95
SEED = 0
_CHUNK = 1 << 20  # draws held at a time: some 20 MB

BlockKind = Literal["speaker", "utterance"]


@dataclass(frozen=True, slots=True)
class Interval:
    """A percentile bootstrap interval.

    Attributes:
        low: lower end, a fraction.
        high: upper end, a fraction; infinite where replicates without a reference word are common.
        level: share of such intervals that hold the true value.
        block: what was resampled as a whole.
        num_blocks: how many of these there are.
    """

    low: float
    high: float
    level: float
    block: BlockKind
    num_blocks: int


@dataclass(frozen=True, slots=True)
class Blocks:
    """Which block each utterance belongs to.

    Attributes:
        kind: what a block is.
        index: `(N,)` int64 of N utterances, from 0.
        count: how many blocks.
    """

    kind: BlockKind
    index: NDArray[np.int64]
    count: int


def make_blocks(speakers: Sequence[str | None]) -> Blocks:
    """Make the blocks of some utterances.

    Args:
        speakers: of each utterance; None where it is not known. With two known speakers or more,
            utterances of unknown ones are blocks of their own.
    """
    known = {speaker for speaker in speakers if speaker is not None}
    if len(known) < 2:
        return Blocks("utterance", np.arange(len(speakers)), len(speakers))
    places: dict[Hashable, int] = {}
    index = [
        places.setdefault((position,) if speaker is None else speaker, len(places))
        for position, speaker in enumerate(speakers)
    ]
    return Blocks("speaker", np.array(index), len(places))


def resampled_sums(
    values: NDArray[np.int64], blocks: Blocks, replicates: int = REPLICATES, seed: int = SEED
) -> NDArray[np.float64]:
    """Sum the columns of bootstrap replicates, with the same draws for every column.

    Args:
        values: `(N, K)` whole numbers of N utterances.
        blocks: of these utterances; at least one.
        replicates: R.
        seed: of the draws; the same sums for the same seed on every machine.

    Returns:
        `(R, K)`, exact.
    """
    per_block = np.zeros((blocks.count, values.shape[1]))
    np.add.at(per_block, blocks.index, values)
    generator = np.random.default_rng(seed)
    rows = max(1, _CHUNK // blocks.count)
    sums = []
    for start in range(0, replicates, rows):
        size = min(rows, replicates - start)
        drawn = generator.integers(blocks.count, size=(size, blocks.count))
        drawn += blocks.count * np.arange(size)[:, np.newaxis]
        times = np.bincount(drawn.ravel(), minlength=size * blocks.count)
        # Whole numbers below 2**53: no order of summation changes a product's bits.
        sums.append(times.reshape(size, blocks.count).astype(np.float64) @ per_block)
    return np.concatenate(sums)


def rates(errors: NDArray[np.float64], lengths: NDArray[np.float64]) -> NDArray[np.float64]:
    """Divide errors by reference length, empty references as in `ErrorCounts.rate`."""
    empty = np.where(errors > 0, np.inf, 0.0)
    return np.where(lengths > 0, errors / np.maximum(lengths, 1), empty)


def percentile_interval(
    replicates: NDArray[np.float64], blocks: Blocks, level: float = LEVEL
) -> Interval:
    """Take the interval between two percentiles of a statistic's replicates `(R,)`."""
    tail = (1 - level) / 2
    # A value among the replicates, not one between two: infinities have no mean.
    low, high = np.quantile(replicates, [tail, 1 - tail], method="inverted_cdf")
    return Interval(float(low), float(high), level, blocks.kind, blocks.count)


def rate_intervals(
    counts: Sequence[Sequence[ErrorCounts]],
    speakers: Sequence[str | None],
    replicates: int = REPLICATES,
    seed: int = SEED,
    level: float = LEVEL,
) -> list[Interval | None]:
    """Compute intervals of several error rates of the same utterances.

    Args:
        counts: of each rate (WER and CER, say) the counts of every utterance.
        speakers: of every utterance; None where it is not known.
        replicates: how many.
        seed: of the draws.
        level: share of such intervals that hold the true rate.

    Returns:
        One for each rate; None with a single block, from which nothing can be told.

    Raises:
        ValueError: counts and speakers are of different numbers of utterances.
    """
    for row in counts:
        if len(row) != len(speakers):
            raise ValueError(f"counts are of {len(row)} utterances, expected {len(speakers)}")
    blocks = make_blocks(speakers)
    if blocks.count < 2:
        return [None for _ in counts]
    columns = [
        [each for count in row for each in (count.errors, count.reference_length)]
        for row in zip(*counts, strict=True)
    ]
    sums = resampled_sums(np.array(columns, dtype=np.int64), blocks, replicates, seed)
    return [
        percentile_interval(rates(sums[:, 2 * k], sums[:, 2 * k + 1]), blocks, level)
        for k in range(len(counts))
    ]
