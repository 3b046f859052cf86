"""N-gram language models with back-off: the model, what it says of a text, and how it is built.

A model is a tree in flat arrays, which compiled code walks through. Its files are in `ngram_file`,
its estimation from a text is in `kneser_ney`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from asr.compiled import compiled

UNKNOWN = "<unk>"  # stands for every word that the model has not
START = "<s>"  # of a sentence: context only, never predicted
END = "</s>"  # of a sentence
MARKS = (UNKNOWN, START, END)
_MARKS = frozenset(MARKS)
ROOT = 0  # the node of the empty context
MAX_ORDER = 10
LOG10 = math.log(10.0)
NEVER = -99 * LOG10  # log P(<s>) [nats], which SRILM writes as -99: it is never predicted


class Ngrams(NamedTuple):
    """The arrays of an `NgramModel`, which says what each of them is."""

    log_probs: NDArray[np.float32]
    backoffs: NDArray[np.float32]
    word_ids: NDArray[np.int32]
    first_children: NDArray[np.int64]
    suffixes: NDArray[np.int32]


@compiled
def find(node, word_id, ngrams):  # type: ignore[no-untyped-def]
    """Find the longest n-gram that ends in a word: one step of Katz's back-off.

    Args:
        node: of the context, int64.
        word_id: from 0 to V - 1; nobody checks it here.
        ngrams: of the model.

    Returns:
        log P(word | context) [nats], float64, and the node of the n-gram, int64.
    """
    log_prob = 0.0
    while node != ROOT:
        low, end = ngrams.first_children[node], ngrams.first_children[node + 1]
        high = end
        while low < high:
            middle = (low + high) >> 1
            if ngrams.word_ids[middle] < word_id:
                low = middle + 1
            else:
                high = middle
        if low < end and ngrams.word_ids[low] == word_id:
            return log_prob + ngrams.log_probs[low], low
        log_prob += ngrams.backoffs[node]
        node = np.int64(ngrams.suffixes[node])
    found = np.int64(word_id) + 1
    return log_prob + ngrams.log_probs[found], found


@compiled
def context_of(node, ngrams):  # type: ignore[no-untyped-def]
    """Find the longest context that an n-gram leaves to the next word.

    What has neither continuations nor a back-off weight says the same as its suffix: n-grams of the
    highest order, and others. Two histories of one node thus have one future.
    """
    node = np.int64(node)
    while (
        node != ROOT
        and ngrams.first_children[node] == ngrams.first_children[node + 1]
        and ngrams.backoffs[node] == 0
    ):
        node = np.int64(ngrams.suffixes[node])
    return node


@compiled
def advance(node, word_id, ngrams):  # type: ignore[no-untyped-def]
    """Score a word and move on; the cost does not depend on the size of the vocabulary.

    Args:
        node: of the context, `NgramModel.start` at a sentence's beginning.
        word_id: from 0 to V - 1; nobody checks it here.
        ngrams: of the model.

    Returns:
        log P(word | context) [nats], float64, and the node of the next word's context, of at most
        order - 1 words, int64.
    """
    log_prob, found = find(np.int64(node), word_id, ngrams)
    return log_prob, context_of(found, ngrams)


@compiled
def _score_ids(node, ids, ngrams):  # type: ignore[no-untyped-def]
    """Score words in a row, `(num_words,)` [nats]; and the nodes of the n-grams found."""
    scores = np.empty(len(ids), np.float64)
    found = np.empty(len(ids), np.int64)
    node = np.int64(node)
    for k in range(len(ids)):
        scores[k], found[k] = find(node, ids[k], ngrams)
        node = context_of(found[k], ngrams)
    return scores, found


@dataclass(frozen=True, eq=False)
class NgramModel:
    """An n-gram model as a tree whose nodes are the n-grams, each level in one stretch.

    Node 0 is the empty context, nodes 1 to V are the words in the order of their ids, then come all
    bigrams, all trigrams and so on. The children of a node are the n-grams that are one word longer
    at the end; they lie next to each other, sorted by that word's id.

    Attributes:
        order: words of the longest n-gram, the predicted one included.
        words: the vocabulary, an id is a position; with `<unk>`, `<s>` and `</s>`.
        log_probs: `(nodes,)` float32, log P(last word | words before it) [nats]; 0 at the root.
        backoffs: `(nodes,)` float32, log of the weight that the n-gram as a context gives to what
            does not follow it in the tree [nats].
        word_ids: `(nodes,)` int32, the last word; -1 at the root.
        first_children: `(nodes + 1,)` int64; the children of node i are the nodes from
            first_children[i] to before first_children[i + 1].
        suffixes: `(nodes,)` int32, the n-gram without its first word, or the longest end of it
            that is a node; 0 at the root.

    Raises:
        ValueError: arrays that are no such tree.
    """

    order: int
    words: tuple[str, ...]
    log_probs: NDArray[np.float32]
    backoffs: NDArray[np.float32]
    word_ids: NDArray[np.int32]
    first_children: NDArray[np.int64]
    suffixes: NDArray[np.int32]

    def __post_init__(self) -> None:
        for fault, is_there in self._faults():
            if is_there:
                raise ValueError(f"not an n-gram model: {fault}")

    def _faults(self) -> Iterator[tuple[str, bool | np.bool_]]:
        """Check what compiled code relies on: no forged file shall make it read elsewhere.

        Each may rely on those before it.
        """
        nodes, size = len(self.log_probs), len(self.words)
        first, ids, suffixes = self.first_children, self.word_ids, self.suffixes
        is_possible = 1 <= self.order <= MAX_ORDER and nodes > size > 0
        yield f"order {self.order}, {size} words and {nodes} nodes", not is_possible
        lengths = [len(each) for each in (self.backoffs, ids, suffixes)]
        is_even = lengths == [nodes] * 3 and len(first) == nodes + 1
        yield f"{nodes} nodes, but other arrays of {lengths}", not is_even
        ends = (int(first[0]), int(first[1]), int(first[-1]))
        is_rising = ends == (1, size + 1, nodes) and not np.any(np.diff(first) < 0)
        yield "the children's places do not go up", not is_rising
        yield "more levels than its order", first[self.level_starts[-1]] != nodes
        yield "word ids out of range", ids[1:].min() < 0 or ids.max() >= size
        in_order = np.array_equal(ids[1 : size + 1], np.arange(size))
        yield "the words' ids are not 0, 1, ...", not in_order
        is_begin = np.zeros(nodes + 1, bool)
        is_begin[first] = True  # where a node's children begin, ids may go down
        falls = (np.diff(ids[1:]) <= 0) & ~is_begin[2:nodes]
        yield "children are not sorted", bool(np.any(falls))
        yield "a suffix is not shorter", suffixes.min() < 0 or suffixes[ROOT] != ROOT
        for start, end in pairwise([*self.level_starts[1:], nodes]):
            yield "a suffix is not shorter", bool(np.any(suffixes[start:end] >= start))
        # Written so that NaN fails too.
        yield "a probability above 1 or not a number", not np.all(self.log_probs <= 0)
        yield "a back-off weight is not finite", not np.all(np.isfinite(self.backoffs))
        longest = self.backoffs[self.level_starts[-1] :] if self.order > 1 else self.backoffs[:0]
        yield "a back-off weight of the longest n-grams", bool(np.any(longest))
        encoded = [word.encode() for word in self.words]
        is_clean = "\n".join(self.words).encode().split() == encoded
        yield "a word is empty or holds white space", not is_clean
        yield "a word occurs twice", len(self._ids) != size
        for mark in MARKS:
            yield f"no word {mark}", mark not in self._ids

    @cached_property
    def level_starts(self) -> list[int]:
        """The first node of each length of n-gram: 0 for the empty one, 1, V + 1, ..."""
        starts = [ROOT]
        for _ in range(self.order):
            starts.append(int(self.first_children[starts[-1]]))
        return starts

    @property
    def counts(self) -> list[int]:
        """How many n-grams of 1, 2, ... words there are."""
        ends = [*self.level_starts[1:], len(self.log_probs)]
        return [end - start for start, end in pairwise(ends)]

    @cached_property
    def ngrams(self) -> Ngrams:
        """The arrays for compiled code."""
        arrays: list[NDArray[Any]] = [getattr(self, name) for name in Ngrams._fields]
        # Numba takes read-only arrays for another type, and would compile anew.
        return Ngrams(*(np.require(array, requirements=["C", "W"]) for array in arrays))

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {word: word_id for word_id, word in enumerate(self.words)}

    @cached_property
    def start(self) -> int:
        """The node of a sentence's beginning, after `<s>`."""
        return int(context_of(1 + self._ids[START], self.ngrams))

    def word_id(self, word: str) -> int:
        """Find the id of a word, that of `<unk>` for one that the model has not."""
        return self._ids.get(word, self._ids[UNKNOWN])

    def __contains__(self, word: str) -> bool:
        return word in self._ids

    def written_in(self, alphabet: str) -> tuple[list[str], list[str]]:
        """List the words that an alphabet can write, and those that it cannot.

        Raises:
            ValueError: it can write none.
        """
        characters = set(alphabet)
        words = [word for word in self.words if word not in MARKS]
        written = [word for word in words if characters.issuperset(word)]
        if not written:
            raise ValueError(
                f"none of the language model's {len(words)} words can be written with the model's "
                f"alphabet {alphabet!r}"
            )
        return written, [word for word in words if not characters.issuperset(word)]

    def advance(self, node: int, word_id: int) -> tuple[float, int]:
        """Score a word and move on, as the function `advance`.

        Raises:
            IndexError: a node or a word id that is none.
        """
        if not (0 <= node < len(self.log_probs) and 0 <= word_id < len(self.words)):
            raise IndexError(f"node {node}, word id {word_id}: the model has no such")
        log_prob, following = advance(node, word_id, self.ngrams)
        return float(log_prob), int(following)

    def score(self, words: Sequence[str], *, end: bool = True) -> list[float]:
        """Score each word of a sentence, given `<s>` and the words before it: log P [nats].

        Args:
            words: without `<s>` and `</s>`.
            end: also of `</s>`, as the last value.
        """
        scores: list[float] = self.found(words, end=end)[0].tolist()
        return scores

    def found(
        self, words: Sequence[str], *, end: bool = True
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Score as `score` does, and tell how many words each n-gram has that was found.

        Returns:
            `(num_words,)` log P [nats] float64 and the lengths int64, `</s>` included with `end`.
        """
        known, unknown = self._ids, self._ids[UNKNOWN]
        ids = [known.get(word, unknown) for word in words]
        if end:
            ids.append(known[END])
        scores, nodes = _score_ids(self.start, np.array(ids, np.int64), self.ngrams)
        return scores, np.searchsorted(self.level_starts, nodes, side="right") - 1


def check_words(words: Iterable[str]) -> None:
    """Refuse a sentence that holds what only a model may add.

    Raises:
        ValueError: one of its words is `<s>`, `</s>` or `<unk>`.
    """
    if not _MARKS.isdisjoint(words):
        mark = next(word for word in words if word in _MARKS)
        raise ValueError(f"the word {mark} is a mark of the model's own, expected text without it")


# --- perplexity --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Perplexity:
    """What a model says of a text.

    Attributes:
        sentences: how many; each has one `</s>` to predict.
        words: without `</s>`.
        oov_words: those that the model has not, each time they occur.
        log10_total: of all words and `</s>` [log10].
        log10_known: the same without the words that the model has not [log10].
        hits: how often the n-gram found had 1, 2, ... words; unknown words are among the first.
    """

    sentences: int
    words: int
    oov_words: int
    log10_total: float
    log10_known: float
    hits: tuple[int, ...]

    @property
    def with_oov(self) -> float:
        """Perplexity over all words and `</s>`, an unknown word scored as `<unk>`."""
        return _per_token(self.log10_total, self.words + self.sentences)

    @property
    def without_oov(self) -> float:
        """Perplexity over the words that the model has, and `</s>`."""
        return _per_token(self.log10_known, self.words + self.sentences - self.oov_words)


def measure_perplexity(model: NgramModel, sentences: Iterable[Sequence[str]]) -> Perplexity:
    """Score a text; the order of its sentences makes no difference to the result.

    Args:
        model: the model.
        sentences: each its words, without `<s>` and `</s>`.

    Raises:
        ValueError: no sentences.
    """
    totals: list[float] = []
    known_totals: list[float] = []
    num_words = oov_words = 0
    hits = np.zeros(model.order + 1, np.int64)
    for words in sentences:
        log_probs, lengths = model.found(words)
        known = np.array([word in model and word != UNKNOWN for word in [*words, END]])
        totals.append(math.fsum(log_probs))
        known_totals.append(math.fsum(log_probs[known]))
        num_words += len(words)
        oov_words += len(known) - int(known.sum())
        hits += np.bincount(lengths, minlength=model.order + 1)
    if not totals:
        raise ValueError("no sentences to measure the perplexity of, expected at least one")
    return Perplexity(
        sentences=len(totals),
        words=num_words,
        oov_words=oov_words,
        log10_total=math.fsum(totals) / LOG10,
        log10_known=math.fsum(known_totals) / LOG10,
        hits=tuple(hits[1:].tolist()),
    )


def _per_token(log10_total: float, tokens: int) -> float:
    try:
        return math.pow(10.0, -log10_total / tokens)
    except OverflowError:
        return math.inf


# --- a model of lists of n-grams ---------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Rows:
    """The n-grams of one length, in any order.

    Attributes:
        ids: `(n-grams, length)` int32, the words' ids.
        log_probs: `(n-grams,)` float32 [nats].
        backoffs: `(n-grams,)` float32 [nats].
    """

    ids: NDArray[np.int32]
    log_probs: NDArray[np.float32]
    backoffs: NDArray[np.float32]


class BadNgramError(ValueError):
    """An n-gram that has no place in a tree; the message is the reason.

    Attributes:
        length: its words.
        row: its place among those of its length.
    """

    def __init__(self, length: int, row: int, reason: str) -> None:
        super().__init__(reason)
        self.length = length
        self.row = row


def build_tree(words: Sequence[str], levels: Sequence[Rows]) -> NgramModel:
    """Sort n-grams into the tree of a model.

    Args:
        words: the vocabulary in the order of ids.
        levels: n-grams of 1, 2, ... words; the first has row i for the word of id i.

    Raises:
        BadNgramError: an n-gram occurs twice, or the context of one is no n-gram of the level
            before.
        ValueError: see `NgramModel`.
    """
    size = len(words)
    all_keys: list[NDArray[np.int64]] = []  # from the bigrams on: context * size + word, sorted
    ordered = [levels[0]]
    num_children = [np.array([size])]
    for length, rows in enumerate(levels[1:], 2):
        contexts = _find_contexts(all_keys, rows.ids, size)
        if np.any(contexts < 0):
            reason = f"its first {length - 1} words are no {length - 1}-gram, expected one"
            raise BadNgramError(length, int(np.argmax(contexts < 0)), reason)
        keys = contexts * size + rows.ids[:, -1]
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        twice = np.flatnonzero(keys[1:] == keys[:-1])
        if len(twice):
            row = int(order[twice + 1].min())
            raise BadNgramError(length, row, f"this {length}-gram is there already, expected once")
        num_children.append(np.bincount(contexts, minlength=len(ordered[-1].ids)))
        all_keys.append(keys)
        ordered.append(Rows(rows.ids[order], rows.log_probs[order], rows.backoffs[order]))
    num_children.append(np.zeros(len(ordered[-1].ids), np.int64))
    first_children = np.cumsum(np.concatenate([[1], *num_children]), dtype=np.int64)
    word_ids = np.concatenate([[-1], *(rows.ids[:, -1] for rows in ordered)]).astype(np.int32)
    root = np.zeros(1, np.float32)
    return NgramModel(
        order=len(levels),
        words=tuple(words),
        log_probs=np.concatenate([root, *(rows.log_probs for rows in ordered)]),
        backoffs=np.concatenate([root, *(rows.backoffs for rows in ordered)]),
        word_ids=word_ids,
        first_children=first_children,
        suffixes=link_suffixes(word_ids, first_children),
    )


def _find_contexts(
    all_keys: Sequence[NDArray[np.int64]], ids: NDArray[np.int32], size: int
) -> NDArray[np.int64]:
    """Find the place in its level of each n-gram without its last word; -1 where there is none."""
    places = ids[:, 0].astype(np.int64)
    for column, keys in enumerate(all_keys, 1):
        wanted = np.where(places < 0, -1, places * size + ids[:, column])
        places = np.searchsorted(keys, wanted)
        found = keys[np.minimum(places, len(keys) - 1)] == wanted if len(keys) else False
        places = np.where(found, places, -1)
    return places


@compiled
def link_suffixes(word_ids, first_children):  # type: ignore[no-untyped-def]
    """Find the suffix of every node, see `NgramModel.suffixes`."""
    suffixes = np.zeros(len(word_ids), np.int32)
    # A parent comes before its children, a shorter n-gram before a longer one.
    for parent in range(1, len(word_ids)):
        for child in range(first_children[parent], first_children[parent + 1]):
            context = np.int64(suffixes[parent])
            found = np.int64(word_ids[child]) + 1
            while context != ROOT:
                low, end = first_children[context], first_children[context + 1]
                place = low + np.searchsorted(word_ids[low:end], word_ids[child])
                if place < end and word_ids[place] == word_ids[child]:
                    found = place
                    break
                context = np.int64(suffixes[context])
            suffixes[child] = found
    return suffixes
