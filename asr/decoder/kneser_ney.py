"""Interpolated modified Kneser-Ney estimation of n-gram models, from a text to the model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asr.decoder.ngram import MARKS, MAX_ORDER, NEVER, NgramModel, check_words

UNKNOWN_ID, START_ID, END_ID = range(len(MARKS))
MAX_POSITIONS = (1 << 31) - 1  # words and marks of a text: nodes are int32
BLOCK = 1 << 22  # positions that are sorted at a time


@dataclass(frozen=True, eq=False)
class EncodedText:
    """A text as ids, sentence by sentence, each between `<s>` and `</s>`.

    Attributes:
        words: the vocabulary: `<unk>`, `<s>`, `</s>`, then the words in the order of their code
            points, so that ids do not depend on the order of the text.
        ids: `(positions,)` int32.
        num_sentences: how many.
    """

    words: tuple[str, ...]
    ids: NDArray[np.int32]
    num_sentences: int

    @property
    def num_words(self) -> int:
        """Words without the marks of sentences."""
        return len(self.ids) - 2 * self.num_sentences


@dataclass(frozen=True, eq=False)
class Level:
    """The distinct n-grams of one length, sorted by their words' ids from the first to the last.

    Attributes:
        contexts: `(n-grams,)` int32, the n-gram without its last word, as a place in the level
            before; zeros for single words.
        word_ids: `(n-grams,)` int32, the last word.
        suffixes: `(n-grams,)` int32, the n-gram without its first word, as a place in the level
            before; zeros for single words.
        counts: `(n-grams,)` int64, how often each occurs.
        at_start: `(n-grams,)` bool, whether the first word is `<s>`.
    """

    contexts: NDArray[np.int32]
    word_ids: NDArray[np.int32]
    suffixes: NDArray[np.int32]
    counts: NDArray[np.int64]
    at_start: NDArray[np.bool_]


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


# --- counting ----------------------------------------------------------------------------------


def encode(
    sentences: Iterable[Sequence[str]], *, min_count: int = 1, max_words: int | None = None
) -> EncodedText:
    """Turn sentences into ids; words beyond the vocabulary become `<unk>`.

    Args:
        sentences: each its words; read once, and only their ids are kept.
        min_count: how often a word must occur to be in the vocabulary.
        max_words: of the vocabulary at most, the most frequent ones; where two are as frequent,
            the first by code points. None sets no limit.

    Raises:
        ValueError: no words at all, a word that is a mark (see `check_words`), or too much text.
    """
    if min_count < 1 or (max_words is not None and max_words < 1):
        raise ValueError(f"min_count {min_count}, max_words {max_words}: expected at least 1")
    seen, ids = _in_order_of_sight(sentences)
    num_sentences = int(np.count_nonzero(ids == START_ID))
    if len(ids) == 2 * num_sentences:
        raise ValueError(f"no words in {num_sentences} sentences, expected some")
    counts = np.bincount(ids)
    kept = [k for k in range(len(MARKS), len(seen)) if counts[k] >= min_count]
    if max_words is not None:
        kept = sorted(kept, key=lambda k: (-counts[k], seen[k]))[:max_words]
    if not kept:
        raise ValueError(f"no word occurs {min_count} times, expected a lower min_count")
    kept = [*range(len(MARKS)), *sorted(kept, key=seen.__getitem__)]
    new_ids = np.full(len(seen), UNKNOWN_ID, np.int32)
    new_ids[kept] = np.arange(len(kept))
    return EncodedText(tuple(seen[k] for k in kept), new_ids[ids], num_sentences)


def _in_order_of_sight(sentences: Iterable[Sequence[str]]) -> tuple[list[str], NDArray[np.int32]]:
    """List the distinct words as they come up, and the text as positions in that list."""
    first_seen: dict[str, int] = {word: word_id for word_id, word in enumerate(MARKS)}
    blocks: list[NDArray[np.int32]] = []
    block: list[int] = []
    for words in sentences:
        check_words(words)
        block.append(START_ID)
        block.extend([first_seen.setdefault(word, len(first_seen)) for word in words])
        block.append(END_ID)
        if len(block) >= BLOCK:
            blocks.append(np.array(block, np.int32))
            block = []
            if sum(map(len, blocks)) > MAX_POSITIONS - BLOCK:
                raise ValueError(f"more than {MAX_POSITIONS - BLOCK} words, expected fewer")
    return list(first_seen), np.concatenate([*blocks, np.array(block, np.int32)])


def count_ngrams(text: EncodedText, order: int) -> Iterator[Level]:
    """Count the n-grams of 1, 2, ... words; none reaches over the mark of a sentence's beginning.

    Takes 4 bytes for each position beside the text's own 4, and about 50 bytes for each distinct
    n-gram while its level is made; sorting is done in blocks.

    Args:
        text: the sentences.
        order: words of the longest n-grams.

    Yields:
        The level of each length. The first one has the whole vocabulary, seen or not.
    """
    size, ids = len(text.words), text.ids
    # The n-gram that ends at each position, as a place in its level; -1 where there is none.
    places = ids.copy()
    at_start = np.arange(size) == START_ID
    nothing = np.zeros(size, np.int32)
    counts = np.bincount(ids, minlength=size).astype(np.int64)
    yield Level(nothing, np.arange(size, dtype=np.int32), nothing, counts, at_start)
    blocks = [slice(k, min(k + BLOCK, len(ids))) for k in range(1, len(ids), BLOCK)]
    for _ in range(1, order):
        keys, counts = np.empty(0, np.int64), np.empty(0, np.int64)
        for block in blocks:
            before = places[block.start - 1 : block.stop - 1]
            new = _keys(before, ids[block], size)
            # Both are sorted runs, which a stable sort merges.
            merged = np.sort(np.concatenate([keys, np.sort(new[new >= 0])]), kind="stable")
            begins = np.flatnonzero(np.diff(merged, prepend=-1))
            totals = np.diff(begins, append=len(merged))
            totals[np.searchsorted(merged[begins], keys)] += counts - 1
            keys, counts = merged[begins], totals
        contexts, word_ids = (part.astype(np.int32) for part in np.divmod(keys, size))
        suffixes = np.empty(len(keys), np.int32)
        last = places[0]  # of the block before, which has other places by then
        places[0] = -1
        for block in blocks:
            here = places[block].copy()
            own = _keys(np.concatenate([[last], here[:-1]]), ids[block], size)
            found = np.searchsorted(keys, own).astype(np.int32)
            is_ngram = own >= 0
            suffixes[found[is_ngram]] = here[is_ngram]
            places[block] = np.where(is_ngram, found, -1)
            last = here[-1]
        at_start = at_start[contexts]
        yield Level(contexts, word_ids, suffixes, counts, at_start)


def _keys(contexts: NDArray[np.int32], ids: NDArray[np.int32], size: int) -> NDArray[np.int64]:
    """Make one number of every n-gram of a context and a word; -1 where there is none."""
    keys = contexts.astype(np.int64) * size + ids
    keys[(contexts < 0) | (ids == START_ID)] = -1
    return keys


# --- estimating --------------------------------------------------------------------------------


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

    Takes 8 bytes of memory for each word of the text, and about 130 for each distinct n-gram.

    Args:
        text: the sentences; the order of sentences makes no difference to the model.
        order: words of the longest n-grams, from 1 to MAX_ORDER.
        prune: n-grams that occur at most so often are left out: for 1 word, 2 words, ...; the last
            value also holds for longer ones. The first must be 0: words are left out by `encode`.
        fallback: the discounts of an order whose own cannot be estimated; None raises then.
        progress: is given the levels while they are counted, and how many there will be, and gives
            them back, as asr.cli.terminal.track does.

    Raises:
        ValueError: a bad order or thresholds, or discounts that cannot be estimated, as in very
            small or made-up texts.
    """
    if not 1 <= order <= MAX_ORDER:
        raise ValueError(f"order {order}, expected 1 to {MAX_ORDER}")
    if not 1 <= len(prune) <= order or prune[0] != 0 or list(prune) != sorted(prune):
        raise ValueError(
            f"prune {' '.join(map(str, prune))}, expected 1 to {order} numbers that begin with 0 "
            "and do not fall"
        )
    thresholds = [*prune, *[prune[-1]] * (order - len(prune))]
    levels: Iterable[Level] = count_ngrams(text, order)
    levels = list(levels if progress is None else progress(levels, order))
    estimates: list[_Estimate] = []
    discounts: list[Discounts] = []
    for number, level in enumerate(levels, 1):
        counts = level.counts.copy()
        if number < order:
            different = np.bincount(levels[number].suffixes, minlength=len(counts))
            counts = np.where(level.at_start, counts, different)
        if number == 1:
            counts[START_ID] = 0
        discounts.append(_discounts(counts, number, fallback))
        kept = (level.counts > thresholds[number - 1]) | (number == 1)
        shorter = estimates[-1] if estimates else None
        estimates.append(_estimate(level, counts, discounts[-1], kept, shorter))
    counted = (len(text.words) - 1, *(len(level.counts) for level in levels[1:]))
    return Trained(_assemble(text.words, levels, estimates), tuple(discounts), counted)


def _discounts(
    counts: NDArray[np.int64], number: int, fallback: tuple[float, float, float] | None
) -> Discounts:
    """Estimate D(1), D(2) and D(3 and more) of an order."""
    t = [int(np.count_nonzero(counts == k)) for k in range(5)]
    fault = next((f"no {number}-gram has a count of {k}" for k in range(1, 4) if not t[k]), None)
    if fault is None:
        y = t[1] / (t[1] + 2 * t[2])
        d1, d2, d3 = (k - (k + 1) * y * t[k + 1] / t[k] for k in (1, 2, 3))
        if 0 < d1 <= 1 and 0 < d2 <= 2 and 0 < d3 <= 3:
            return Discounts(d1, d2, d3)
        fault = f"those of {number}-grams come out as {d1:.3g}, {d2:.3g}, {d3:.3g}"
    if fallback is not None:
        return Discounts(*fallback, estimated=False)
    raise ValueError(
        f"discounts cannot be estimated: {fault} (counts of 1, 2 and 3 occur "
        f"{', '.join(map(str, t[1:4]))} times); expected more text, a lower order, a "
        "vocabulary less limited, or fallback discounts"
    )


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
    """Build the tree of the n-grams that are kept."""
    sizes = [int(np.count_nonzero(estimate.kept)) for estimate in estimates]
    starts = np.cumsum([1, *sizes])  # the first node of each level
    nodes = np.zeros(1, np.int32)  # of each n-gram of the level before; meaningless where pruned
    log_probs, backoffs, word_ids = [np.zeros(1)], [], [np.full(1, -1, np.int32)]
    suffixes, num_children = [np.zeros(1, np.int32)], [np.ones(1, np.int64)]
    before = np.ones(1, bool)  # which n-grams of the level before are kept
    for level, estimate, start in zip(levels, estimates, starts, strict=False):
        kept = estimate.kept
        with np.errstate(divide="ignore"):  # P(<s>), replaced below
            log_probs.append(np.log(estimate.probs[kept]))
        backoffs.append(np.log(estimate.gammas[before]))
        word_ids.append(level.word_ids[kept])
        suffixes.append(nodes[level.suffixes[kept]])
        num_children.append(np.bincount(level.contexts[kept], minlength=len(before))[before])
        nodes = (np.cumsum(kept) - 1 + start).astype(np.int32)
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
        # Of 1, where the root's children begin, and of the number of children of each node.
        first_children=np.cumsum(np.concatenate(num_children)),
        suffixes=np.concatenate(suffixes),
    )
