"""Interpolated modified Kneser-Ney estimation of n-gram models."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asr.decoder.ngram.counts import START_ID, EncodedText, Level, count_ngrams
from asr.decoder.ngram.model import MAX_ORDER, NEVER, NgramModel

FALLBACK = (0.5, 1.0, 1.5)  # discounts of counts 1, 2 and from 3 up, as KenLM's --discount_fallback


@dataclass(frozen=True)
class Discounts:
    """What is taken off counts of 1, of 2 and from 3 up.

    Attributes:
        estimated: from the text; false where the fallback took their place.
    """

    one: float
    two: float
    more: float
    estimated: bool = True


@dataclass(frozen=True)
class Trained:
    """A model, and what it was made of.

    Attributes:
        model: the model.
        discounts: of each order.
        counted: of each order, distinct n-grams before pruning, `<s>` alone not counted.
    """

    model: NgramModel
    discounts: tuple[Discounts, ...]
    counted: tuple[int, ...]


def train(
    text: EncodedText,
    order: int,
    *,
    prune: Sequence[int] = (0,),
    fallback: tuple[float, float, float] | None = None,
    progress: Callable[[Iterable[Level], int], Iterable[Level]] | None = None,
) -> Trained:
    """Estimate a model by interpolated modified Kneser-Ney smoothing.

    With a(w) the count of an n-gram of the highest order or one that begins with `<s>`, and else
    the number of different words that come before it (Kneser & Ney, ICASSP 1995):

        P(w | c) = max(a(c w) - D(a(c w)), 0) / sum_x a(c x) + gamma(c) P(w | c without its first)
        gamma(c) = sum_x D(a(c x)) / sum_x a(c x)
        D(k) = k - (k + 1) t1 / (t1 + 2 t2) t[k + 1] / t[k],   k = 1, 2 and 3 for all from 3 up

    where t[k] n-grams have a count of k (Chen & Goodman, TR-10-98, Harvard 1998, equations 23 and
    following). Below the single words lies the uniform distribution over the vocabulary with
    `<unk>` and `</s>`, without `<s>`. What is pruned gives its whole count to gamma, and
    takes part in t and in a, as in KenLM's lmplz (Heafield et al., ACL 2013).

    Args:
        text: the sentences; the order of sentences makes no difference to the model.
        order: words of the longest n-grams, from 1 to MAX_ORDER.
        prune: n-grams that occur at most so often are left out: for 1 word, 2 words, ...; the last
            value also holds for longer ones. The first must be 0: words are left out by `encode`.
        fallback: the discounts of an order whose own cannot be estimated; None raises then.
        progress: is given the levels while they are counted, and how many there will be, and gives
            them back, as rich.progress.track does.

    Raises:
        ValueError: a bad order or thresholds, or discounts that cannot be estimated, as in very
            small or made-up texts.
    """
    if not 1 <= order <= MAX_ORDER:
        raise ValueError(f"order {order}, expected 1 to {MAX_ORDER}")
    thresholds = _thresholds(prune, order)
    levels: Iterable[Level] = count_ngrams(text, order)
    levels = list(levels if progress is None else progress(levels, order))
    estimates: list[_Estimate] = []
    discounts: list[Discounts] = []
    for number, level in enumerate(levels, 1):
        counts = _adjusted_counts(level, levels[number] if number < order else None)
        if number == 1:
            counts[START_ID] = 0
        discounts.append(_discounts(counts, number, fallback))
        kept = (level.counts > thresholds[number - 1]) | (number == 1)
        shorter = estimates[-1] if estimates else None
        estimates.append(_estimate(level, counts, discounts[-1], kept, shorter))
    counted = (len(text.words) - 1, *(len(level.counts) for level in levels[1:]))
    return Trained(_assemble(text.words, levels, estimates), tuple(discounts), counted)


@dataclass(frozen=True, eq=False)
class _Estimate:
    """The probabilities of a level's n-grams.

    Attributes:
        probs: `(n-grams,)` float64, P(last word | words before it).
        kept: `(n-grams,)` bool, false where pruned.
        gammas: float64, the back-off weight of each n-gram of the level before.
    """

    probs: NDArray[np.float64]
    kept: NDArray[np.bool_]
    gammas: NDArray[np.float64]


def _thresholds(prune: Sequence[int], order: int) -> list[int]:
    rising = list(prune) == sorted(prune)
    if not 1 <= len(prune) <= order or prune[0] != 0 or not rising:
        raise ValueError(
            f"prune {' '.join(map(str, prune))}, expected 1 to {order} numbers that begin with 0 "
            "and do not fall"
        )
    return [*prune, *[prune[-1]] * (order - len(prune))]


def _adjusted_counts(level: Level, above: Level | None) -> NDArray[np.int64]:
    """a(w) of each n-gram, given the level of those that are one word longer."""
    if above is None:
        return level.counts.copy()
    different = np.bincount(above.suffixes, minlength=len(level.counts))
    return np.where(level.at_start, level.counts, different)


def _discounts(
    counts: NDArray[np.int64], number: int, fallback: tuple[float, float, float] | None
) -> Discounts:
    """D(1), D(2) and D(3 and more) of an order."""
    t = [int(np.count_nonzero(counts == k)) for k in range(5)]
    fault = next((f"no {number}-gram has a count of {k}" for k in range(1, 5) if not t[k]), None)
    if fault is None:
        y = t[1] / (t[1] + 2 * t[2])
        d1, d2, d3 = (k - (k + 1) * y * t[k + 1] / t[k] for k in (1, 2, 3))
        if 0 < d1 <= 1 and 0 < d2 <= 2 and 0 < d3 <= 3:
            return Discounts(d1, d2, d3)
        fault = f"those of {number}-grams come out as {d1:.3g}, {d2:.3g}, {d3:.3g}"
    if fallback is not None:
        return Discounts(*fallback, estimated=False)
    raise ValueError(
        f"discounts cannot be estimated: {fault} (counts of 1, 2, 3 and 4 occur "
        f"{', '.join(map(str, t[1:]))} times); expected more text, a lower order, a "
        "vocabulary less limited, or fallback discounts"
    )


def _estimate(
    level: Level,
    counts: NDArray[np.int64],
    discounts: Discounts,
    kept: NDArray[np.bool_],
    shorter: _Estimate | None,
) -> _Estimate:
    size = 1 if shorter is None else len(shorter.probs)
    discount = np.array([0.0, discounts.one, discounts.two, discounts.more])[np.minimum(counts, 3)]
    totals = np.bincount(level.contexts, counts, size)
    freed = np.bincount(level.contexts, np.where(kept, discount, counts), size)
    gammas = np.divide(freed, totals, out=np.ones(size), where=totals > 0)
    probs = np.where(kept, counts - discount, 0.0) / totals[level.contexts]
    if shorter is None:
        probs += gammas[0] / (len(counts) - 1)
        probs[START_ID] = 0.0
    else:
        probs += gammas[level.contexts] * shorter.probs[level.suffixes]
    return _Estimate(probs, kept, gammas)


def _assemble(
    words: tuple[str, ...], levels: Sequence[Level], estimates: Sequence[_Estimate]
) -> NgramModel:
    """The tree of the n-grams that are kept."""
    sizes = [int(np.count_nonzero(estimate.kept)) for estimate in estimates]
    starts = np.cumsum([1, *sizes])  # the first node of each level
    nodes = [np.zeros(1, np.int32)]  # of each n-gram of a level; meaningless where pruned
    log_probs, backoffs, word_ids = [np.zeros(1)], [], [np.full(1, -1, np.int32)]
    suffixes, num_children = [np.zeros(1, np.int32)], []
    before = np.ones(1, bool)  # which n-grams of the level before are kept
    for level, estimate, start in zip(levels, estimates, starts, strict=False):
        kept = estimate.kept
        with np.errstate(divide="ignore"):  # P(<s>), replaced below
            log_probs.append(np.log(estimate.probs[kept]))
        backoffs.append(np.log(estimate.gammas[before]))
        word_ids.append(level.word_ids[kept])
        suffixes.append(nodes[-1][level.suffixes[kept]])
        num_children.append(np.bincount(level.contexts[kept], minlength=len(before))[before])
        nodes.append((np.cumsum(kept) - 1 + start).astype(np.int32))
        before = kept
    log_probs[1][START_ID] = NEVER
    backoffs[0][0] = 0.0  # single words back off to the uniform distribution inside their own
    backoffs.append(np.zeros(sizes[-1]))
    num_children.append(np.zeros(sizes[-1], np.int64))
    return NgramModel(
        order=len(levels),
        words=words,
        log_probs=np.concatenate(log_probs).astype(np.float32),
        backoffs=np.concatenate(backoffs).astype(np.float32),
        word_ids=np.concatenate(word_ids),
        first_children=np.cumsum([1, *np.concatenate(num_children)]),
        suffixes=np.concatenate(suffixes),
    )
