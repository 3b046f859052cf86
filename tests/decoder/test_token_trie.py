"""Token tries: every sequence is found, nothing else, and large vocabularies are no work."""

from __future__ import annotations

import time

import numpy as np

from asr.decoder.token_trie import ROOT, build_trie, child


def words(count: int, letters: str, longest: int, seed: int = 0) -> list[str]:
    generator = np.random.default_rng(seed)
    lengths = generator.integers(1, longest + 1, count)
    return list({"".join(generator.choice(list(letters), length)) for length in lengths})


def test_by_hand() -> None:
    trie, ends = build_trie(["ab", "abc", "b", "abd", "ba"])
    assert "".join(map(chr, trie.tokens[1:])) == "abbacd"
    assert trie.first_children.tolist() == [1, 3, 4, 5, 7, 7, 7, 7]
    assert ends.tolist() == [3, 5, 2, 6, 4]


def test_no_sequences_are_a_root() -> None:
    trie, ends = build_trie([])
    assert len(ends) == 0
    assert child(trie, ROOT, 97) == -1


def test_walks_end_where_they_should() -> None:
    sequences = words(500, "abcd", 7)
    trie, ends = build_trie(sequences)
    prefixes = {word[:length] for word in sequences for length in range(len(word) + 1)}
    assert len(trie.tokens) == len(prefixes)
    for word, end in zip(sequences, ends, strict=True):
        node = ROOT
        for letter in word:
            node = child(trie, node, ord(letter))
        assert node == end
    for word in words(500, "abcde", 7, seed=1):
        node = ROOT
        for letter in word:
            node = child(trie, node, ord(letter)) if node >= 0 else -1
        assert (node >= 0) == (word in prefixes)


def test_fifty_thousand_words_take_well_under_a_second() -> None:
    sequences = words(50_000, "abcdefghijklmnopqrstuvwxyz", 12)
    build_trie(sequences[:10])
    start = time.process_time()
    build_trie(sequences)
    assert time.process_time() - start < 1
