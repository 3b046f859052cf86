"""An n-gram language model with back-off, as flat arrays that compiled code walks through."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from asr.compiled import compiled

UNKNOWN = "<unk>"  # stands for every word that the model has not
START = "<s>"  # of a sentence: context only, never predicted
END = "</s>"  # of a sentence
ROOT = 0  # the node of the empty context
MAX_ORDER = 10
LOG10 = math.log(10.0)
NEVER = -99 * LOG10  # log P(<s>) [nats], which SRILM writes as -99: it is never predicted

Arrays: TypeAlias = tuple[
    NDArray[np.float32],
    NDArray[np.float32],
    NDArray[np.int32],
    NDArray[np.int64],
    NDArray[np.int32],
]


@compiled
def find(node, word_id, log_probs, backoffs, word_ids, first_children, suffixes):  # type: ignore[no-untyped-def]
    """The longest n-gram that ends in a word: one step of Katz's back-off.

    Args:
        node: of the context.
        word_id: from 0 to V - 1; nobody checks it here.
        log_probs, backoffs, word_ids, first_children, suffixes: see `NgramModel`.

    Returns:
        log P(word | context) [nats], float64, and the node of the n-gram.
    """
    log_prob = 0.0
    while node != 0:
        low, end = first_children[node], first_children[node + 1]
        high = end
        while low < high:
            middle = (low + high) >> 1
            if word_ids[middle] < word_id:
                low = middle + 1
            else:
                high = middle
        if low < end and word_ids[low] == word_id:
            return log_prob + log_probs[low], low
        log_prob += backoffs[node]
        node = np.int64(suffixes[node])
    found = np.int64(word_id) + 1
    return log_prob + log_probs[found], found


@compiled
def context_of(node, backoffs, first_children, suffixes):  # type: ignore[no-untyped-def]
    """The node of the longest context that an n-gram leaves to the next word.

    What has neither continuations nor a back-off weight says the same as its suffix: n-grams of the
    highest order, and others. Two histories of one node thus have one future.
    """
    node = np.int64(node)
    while node != 0 and first_children[node] == first_children[node + 1] and backoffs[node] == 0:
        node = np.int64(suffixes[node])
    return node


@compiled
def advance(node, word_id, log_probs, backoffs, word_ids, first_children, suffixes):  # type: ignore[no-untyped-def]
    """Score a word and move on; the cost does not depend on the size of the vocabulary.

    Args:
        node: of the context, `NgramModel.start` at a sentence's beginning.
        word_id: from 0 to V - 1; nobody checks it here.
        log_probs, backoffs, word_ids, first_children, suffixes: see `NgramModel`.

    Returns:
        log P(word | context) [nats], float64, and the node of the next word's context, of at most
        order - 1 words, int64.
    """
    log_prob, found = find(
        np.int64(node), word_id, log_probs, backoffs, word_ids, first_children, suffixes
    )
    return log_prob, context_of(found, backoffs, first_children, suffixes)


@compiled
def score_ids(node, ids, log_probs, backoffs, word_ids, first_children, suffixes):  # type: ignore[no-untyped-def]
    """Score words one after the other.

    Returns:
        `(num_words,)` log P of each [nats] float64, and the nodes of the n-grams that were found,
        int64.
    """
    scores = np.empty(len(ids), np.float64)
    found = np.empty(len(ids), np.int64)
    node = np.int64(node)
    for k in range(len(ids)):
        scores[k], found[k] = find(
            node, ids[k], log_probs, backoffs, word_ids, first_children, suffixes
        )
        node = context_of(found[k], backoffs, first_children, suffixes)
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
        for fault, broken in self._faults():
            if broken:
                raise ValueError(f"not an n-gram model: {fault}")

    def _faults(self) -> list[tuple[str, bool]]:
        """What compiled code relies on, so that no forged file can make it read elsewhere."""
        nodes, size = len(self.log_probs), len(self.words)
        lengths = [len(a) for a in (self.backoffs, self.word_ids, self.suffixes)]
        if not 1 <= self.order <= MAX_ORDER or nodes <= size or not size:
            return [(f"order {self.order}, {size} words and {nodes} nodes", True)]
        if lengths != [nodes] * 3 or len(self.first_children) != nodes + 1:
            return [(f"{nodes} nodes, but other arrays of {lengths}", True)]
        first, ids = self.first_children, self.word_ids
        if (
            first[0] != 1
            or first[1] != size + 1
            or first[-1] != nodes
            or np.any(np.diff(first) < 0)
        ):
            return [("the children's places do not go up", True)]
        begins = np.zeros(nodes + 1, bool)
        begins[first] = True  # where a node's children begin, ids may go down
        falls = np.diff(ids[1:]) <= 0
        return [
            ("more levels than its order", first[self.level_starts[-1]] != nodes),
            ("word ids out of range", ids[1:].min() < 0 or ids.max() >= size),
            (
                "the words' ids are not 0, 1, ...",
                bool(np.any(ids[1 : size + 1] != np.arange(size))),
            ),
            ("children are not sorted", bool(np.any(falls & ~begins[2:nodes]))),
            ("a suffix is not shorter", self._has_long_suffix()),
            ("a probability above 1 or not a number", not bool(np.all(self.log_probs <= 0))),
            ("a back-off weight is not finite", not bool(np.all(np.isfinite(self.backoffs)))),
            ("a word is empty or holds white space", self._has_unclean_word()),
            ("a word occurs twice", len(self._ids) != size),
            *[(f"no word {word}", word not in self._ids) for word in (UNKNOWN, START, END)],
        ]

    def _has_unclean_word(self) -> bool:
        return "\n".join(self.words).encode().split() != [word.encode() for word in self.words]

    def _has_long_suffix(self) -> bool:
        starts = [*self.level_starts[1:], len(self.suffixes)]
        return bool(self.suffixes.min() < 0 or self.suffixes[ROOT] != ROOT) or any(
            bool(np.any(self.suffixes[start:end] >= start)) for start, end in pairwise(starts)
        )

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
        ends = [*self.level_starts[2:], len(self.log_probs)]
        return [end - start for start, end in zip(self.level_starts[1:], ends, strict=True)]

    @property
    def arrays(self) -> Arrays:
        """What the compiled functions take, in their order."""
        return self.log_probs, self.backoffs, self.word_ids, self.first_children, self.suffixes

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {word: word_id for word_id, word in enumerate(self.words)}

    @cached_property
    def start(self) -> int:
        """The node of a sentence's beginning, after `<s>`."""
        node = 1 + self._ids[START]
        return int(context_of(node, self.backoffs, self.first_children, self.suffixes))

    def word_id(self, word: str) -> int:
        """The id of a word, that of `<unk>` for one that the model has not."""
        return self._ids.get(word, self._ids[UNKNOWN])

    def __contains__(self, word: str) -> bool:
        return word in self._ids

    def advance(self, node: int, word_id: int) -> tuple[float, int]:
        """The function `advance` with this model's arrays.

        Raises:
            IndexError: a node or a word id that is none.
        """
        if not (0 <= node < len(self.log_probs) and 0 <= word_id < len(self.words)):
            raise IndexError(f"node {node}, word id {word_id}: the model has no such")
        log_prob, following = advance(node, word_id, *self.arrays)
        return float(log_prob), int(following)

    def score(self, words: Sequence[str], *, end: bool = True) -> list[float]:
        """log P of each word of a sentence [nats], given `<s>` and the words before it.

        Args:
            words: without `<s>` and `</s>`.
            end: also of `</s>`, as the last value.
        """
        return [float(log_prob) for log_prob in self.found(words, end=end)[0]]

    def found(
        self, words: Sequence[str], *, end: bool = True
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """As `score`, and how many words each n-gram has that was found.

        Returns:
            `(num_words,)` log P [nats] float64 and the lengths int64, `</s>` included with `end`.
        """
        ids = np.array([self.word_id(word) for word in [*words, *([END] if end else [])]], np.int64)
        scores, nodes = score_ids(self.start, ids, *self.arrays)
        return scores, np.searchsorted(self.level_starts, nodes, side="right") - 1
