"""How often the n-grams of a text occur, of each length, as levels of a tree."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asr.decoder.ngram.model import END, START, UNKNOWN

SPECIAL = (UNKNOWN, START, END)
UNKNOWN_ID, START_ID, END_ID = range(len(SPECIAL))
_SPECIAL_SET = frozenset(SPECIAL)
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
    words, new_ids = _vocabulary(seen, np.bincount(ids), min_count, max_words)
    return EncodedText(words, new_ids[ids], num_sentences)


def check_words(words: Iterable[str]) -> None:
    """Refuse a sentence that holds what only a model may add.

    Raises:
        ValueError: one of its words is `<s>`, `</s>` or `<unk>`.
    """
    if not _SPECIAL_SET.isdisjoint(words):
        mark = next(word for word in words if word in _SPECIAL_SET)
        raise ValueError(f"the word {mark} is a mark of the model's own, expected text without it")


def _in_order_of_sight(sentences: Iterable[Sequence[str]]) -> tuple[list[str], NDArray[np.int32]]:
    """The distinct words as they come up, and the text as positions in that list."""
    first_seen: dict[str, int] = {word: word_id for word_id, word in enumerate(SPECIAL)}
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


def _vocabulary(
    seen: Sequence[str], counts: NDArray[np.int64], min_count: int, max_words: int | None
) -> tuple[tuple[str, ...], NDArray[np.int32]]:
    """The words in their final order, and the final id of each one seen."""
    kept = [k for k in range(len(SPECIAL), len(seen)) if counts[k] >= min_count]
    if max_words is not None:
        kept = sorted(kept, key=lambda k: (-counts[k], seen[k]))[:max_words]
    if not kept:
        raise ValueError(f"no word occurs {min_count} times, expected a lower min_count")
    kept.sort(key=lambda k: seen[k])
    new_ids = np.full(len(seen), UNKNOWN_ID, np.int32)
    new_ids[: len(SPECIAL)] = range(len(SPECIAL))
    new_ids[kept] = np.arange(len(SPECIAL), len(SPECIAL) + len(kept))
    return (*SPECIAL, *(seen[k] for k in kept)), new_ids


def count_ngrams(text: EncodedText, order: int) -> Iterator[Level]:
    """Count the n-grams of 1, 2, ... words; none reaches over the mark of a sentence's beginning.

    A text of N positions takes 12 N bytes and, while the level is made, about 60 bytes for each of
    its distinct n-grams; sorting is done in blocks.

    Args:
        text: the sentences.
        order: words of the longest n-grams.

    Yields:
        The level of each length. The first one has the whole vocabulary, seen or not.
    """
    size = len(text.words)
    # The n-gram that ends at each position, as a place in its level; -1 where there is none.
    places = text.ids.copy()
    at_start = np.arange(size) == START_ID
    nothing = np.zeros(size, np.int32)
    counts = np.bincount(text.ids, minlength=size).astype(np.int64)
    yield Level(nothing, np.arange(size, dtype=np.int32), nothing, counts, at_start)
    for _ in range(1, order):
        keys, counts = _distinct(_keys(places, text.ids, size))
        contexts, word_ids = (part.astype(np.int32) for part in np.divmod(keys, size))
        suffixes = np.empty(len(keys), np.int32)
        _move(places, suffixes, keys, text.ids, size)
        at_start = at_start[contexts]
        yield Level(contexts, word_ids, suffixes, counts, at_start)


def _keys(
    places: NDArray[np.int32], ids: NDArray[np.int32], size: int
) -> Iterator[NDArray[np.int64]]:
    """One number for every n-gram one word longer than those of `places`, block by block."""
    for begin in range(1, len(ids), BLOCK):
        end = min(begin + BLOCK, len(ids))
        yield _block_keys(places[begin - 1 : end - 1], ids[begin:end], size)


def _block_keys(
    contexts: NDArray[np.int32], ids: NDArray[np.int32], size: int
) -> NDArray[np.int64]:
    keys = contexts.astype(np.int64) * size + ids
    keys[(contexts < 0) | (ids == START_ID)] = -1
    return keys


def _distinct(blocks: Iterable[NDArray[np.int64]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The distinct keys from 0 up, sorted, and how often each occurs."""
    keys, counts = np.empty(0, np.int64), np.empty(0, np.int64)
    for block in blocks:
        new, new_counts = np.unique(block[block >= 0], return_counts=True)
        merged = np.union1d(keys, new)
        merged_counts = np.zeros(len(merged), np.int64)
        merged_counts[np.searchsorted(merged, keys)] = counts
        merged_counts[np.searchsorted(merged, new)] += new_counts
        keys, counts = merged, merged_counts
    return keys, counts


def _move(
    places: NDArray[np.int32],
    suffixes: NDArray[np.int32],
    keys: NDArray[np.int64],
    ids: NDArray[np.int32],
    size: int,
) -> None:
    """Turn `places` into those of the n-grams one word longer, and note their suffixes."""
    before = places[0]  # overwritten while the next block still needs it
    places[0] = -1
    for begin in range(1, len(ids), BLOCK):
        end = min(begin + BLOCK, len(ids))
        here = places[begin:end].copy()
        contexts = np.concatenate([[before], here[:-1]]).astype(np.int32)
        block = _block_keys(contexts, ids[begin:end], size)
        found = np.searchsorted(keys, block).astype(np.int32)
        is_ngram = block >= 0
        suffixes[found[is_ngram]] = here[is_ngram]
        places[begin:end] = np.where(is_ngram, found, -1)
        before = here[-1]
