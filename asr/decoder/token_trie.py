"""Sequences of tokens as a tree in flat arrays, which compiled code walks down."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from asr.compiled import compiled

ROOT = 0
NONE = -1  # in place of a node: there is none
SPACE = " "  # between words, where an alphabet has it


class TokenTrie(NamedTuple):
    """A tree of token sequences, level by level; node 0 is the empty sequence.

    The children of a node lie next to each other, sorted by token.

    Attributes:
        tokens: `(nodes,)` int32, the last token of each node's sequence; -1 at the root.
        first_children: `(nodes + 1,)` int32; the children of node i are the nodes from
            first_children[i] to before first_children[i + 1].
    """

    tokens: NDArray[np.int32]
    first_children: NDArray[np.int32]


EMPTY_TRIE = TokenTrie(np.full(1, NONE, np.int32), np.ones(2, np.int32))


@compiled
def child(trie, node, token):  # type: ignore[no-untyped-def]
    """Find the node that a token leads to, or NONE."""
    low, end = trie.first_children[node], trie.first_children[node + 1]
    high = end
    while low < high:
        middle = (low + high) >> 1
        if trie.tokens[middle] < token:
            low = middle + 1
        else:
            high = middle
    return low if low < end and trie.tokens[low] == token else np.int32(NONE)


def build_trie(sequences: Sequence[str]) -> tuple[TokenTrie, NDArray[np.int32]]:
    """Build the tree of some sequences.

    Args:
        sequences: none empty; each character's code point is a token, which is how Python sorts
            and joins 50,000 of them in no time.

    Returns:
        The tree, and the node at which each sequence ends.
    """
    order = sorted(range(len(sequences)), key=sequences.__getitem__)
    joined = "".join(sequences[position] for position in order)
    tokens = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), np.int32)
    lengths = np.array([len(sequences[position]) for position in order], np.int64)
    nodes, parents, sorted_ends = _number(tokens, np.concatenate([[0], np.cumsum(lengths)]))
    first_children = np.searchsorted(parents, np.arange(len(parents) + 2)) + 1
    ends = np.empty(len(order), np.int32)
    ends[order] = sorted_ends
    return TokenTrie(nodes, first_children.astype(np.int32)), ends


def spellings_of(trie: TokenTrie) -> Iterator[tuple[int, str]]:
    """List the nodes, parents first, and the sequence of each, a token a code point."""
    sequences = {ROOT: ""}
    for node in range(len(trie.tokens)):
        sequence = sequences.pop(node)
        yield node, sequence
        for below in range(trie.first_children[node], trie.first_children[node + 1]):
            sequences[below] = sequence + chr(trie.tokens[below])


@compiled
def _number(tokens, offsets):  # type: ignore[no-untyped-def]
    """Number the nodes of sorted sequences level by level.

    Returns:
        The token of each node, the parent of each but the root, and the last node of each sequence.
    """
    count, longest = len(offsets) - 1, 0
    shared = np.zeros(count, np.int64)  # tokens in common with the sequence before
    for i in range(count):
        longest = max(longest, offsets[i + 1] - offsets[i])
        if i:
            least = min(offsets[i + 1] - offsets[i], offsets[i] - offsets[i - 1])
            while (
                shared[i] < least
                and tokens[offsets[i] + shared[i]] == tokens[offsets[i - 1] + shared[i]]
            ):
                shared[i] += 1
    following = np.zeros(longest + 2, np.int64)  # the next node of each depth
    for i in range(count):
        for depth in range(shared[i] + 1, offsets[i + 1] - offsets[i] + 1):
            following[depth + 1] += 1
    following[1] = 1
    for depth in range(2, longest + 2):
        following[depth] += following[depth - 1]
    size = following[longest + 1]
    nodes, parents = np.full(size, -1, np.int32), np.empty(size - 1, np.int32)
    ends, path = np.empty(count, np.int32), np.zeros(longest + 1, np.int32)
    for i in range(count):
        for depth in range(shared[i] + 1, offsets[i + 1] - offsets[i] + 1):
            node = following[depth]
            following[depth] += 1
            nodes[node] = tokens[offsets[i] + depth - 1]
            parents[node - 1] = path[depth - 1]
            path[depth] = node
        ends[i] = path[offsets[i + 1] - offsets[i]]
    return nodes, parents, ends
