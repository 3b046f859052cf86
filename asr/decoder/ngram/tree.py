"""Lists of n-grams in any order become the tree of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asr.compiled import compiled
from asr.decoder.ngram.model import NgramModel


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
        all_keys.append(keys)
        ordered.append(Rows(rows.ids[order], rows.log_probs[order], rows.backoffs[order]))
    return _join(words, ordered, all_keys)


def _find_contexts(
    all_keys: Sequence[NDArray[np.int64]], ids: NDArray[np.int32], size: int
) -> NDArray[np.int64]:
    """The place in its level of each n-gram without its last word; -1 where it is not there."""
    places = ids[:, 0].astype(np.int64)
    for column, keys in enumerate(all_keys, 1):
        wanted = np.where(places < 0, -1, places * size + ids[:, column])
        places = np.searchsorted(keys, wanted)
        found = keys[np.minimum(places, len(keys) - 1)] == wanted if len(keys) else False
        places = np.where(found, places, -1)
    return places


def _join(
    words: Sequence[str], levels: Sequence[Rows], all_keys: Sequence[NDArray[np.int64]]
) -> NgramModel:
    sizes = [len(rows.ids) for rows in levels]
    root = np.zeros(1, np.float32)
    num_children = [np.array([sizes[0]])]
    for before, keys in zip(sizes, all_keys, strict=False):
        num_children.append(np.bincount(keys // len(words), minlength=before))
    num_children.append(np.zeros(sizes[-1], np.int64))
    first_children = np.cumsum([1, *np.concatenate(num_children)], dtype=np.int64)
    word_ids = np.concatenate([[-1], *(rows.ids[:, -1] for rows in levels)]).astype(np.int32)
    return NgramModel(
        order=len(levels),
        words=tuple(words),
        log_probs=np.concatenate([root, *(rows.log_probs for rows in levels)]),
        backoffs=np.concatenate([root, *(rows.backoffs for rows in levels)]),
        word_ids=word_ids,
        first_children=first_children,
        suffixes=_link_suffixes(word_ids, first_children),
    )


@compiled
def _link_suffixes(word_ids, first_children):  # type: ignore[no-untyped-def]
    """The suffix of every node, see `NgramModel.suffixes`."""
    suffixes = np.zeros(len(word_ids), np.int32)
    # A parent comes before its children, a shorter n-gram before a longer one.
    for parent in range(1, len(word_ids)):
        for child in range(first_children[parent], first_children[parent + 1]):
            context = np.int64(suffixes[parent])
            found = np.int64(word_ids[child]) + 1
            while context != 0:
                low, end = first_children[context], first_children[context + 1]
                place = low + np.searchsorted(word_ids[low:end], word_ids[child])
                if place < end and word_ids[place] == word_ids[child]:
                    found = place
                    break
                context = np.int64(suffixes[context])
            suffixes[child] = found
    return suffixes
