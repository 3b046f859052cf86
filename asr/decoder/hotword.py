"""Words and phrases that are likelier than a model expects, followed token by token."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from asr.compiled import compiled, inlined
from asr.decoder.token_trie import EMPTY_TRIE, NONE, ROOT, SPACE, TokenTrie, build_trie, child
from asr.text import CharTokenizer


class HotwordAutomaton(NamedTuple):
    """The automaton of Aho and Corasick (1975) over all phrases, each with a space around it.

    A state is the longest end of what was written that a phrase begins with. As phrases begin with
    a space, they match at word boundaries only. A step costs the same for one phrase and for many.

    Attributes:
        trie: of the phrases.
        fails: `(states,)` int32, the longest shorter end that is a state too.
        credits: `(states,)` float64, what the phrases begun are worth so far [nats]; it is taken
            back with the state.
        gains: `(states,)` float64, the weights of the phrases that end here [nats]; these stay.
        reach: `(states,)` float64, the most that the next token can make of credit and gain [nats].
        start: the state at the beginning of an utterance.
        space: the token between words; -1 where the alphabet has none, and phrases match anywhere.
    """

    trie: TokenTrie
    fails: NDArray[np.int32]
    credits: NDArray[np.float64]
    gains: NDArray[np.float64]
    reach: NDArray[np.float64]
    start: int
    space: int


# In the types of a real one, so that there is one compiled search for both.
NO_HOTWORDS = HotwordAutomaton(
    EMPTY_TRIE, np.zeros(1, np.int32), np.zeros(1), np.zeros(1), np.zeros(1), ROOT, NONE
)


def build_automaton(hotwords: Mapping[str, float], tokenizer: CharTokenizer) -> HotwordAutomaton:
    """Build the automaton of some words and phrases.

    Args:
        hotwords: to each the nats that every occurrence adds to a hypothesis. A phrase of n
            characters gets a share of k/n as long as k of them have matched.
        tokenizer: of the model.

    Raises:
        ValueError: a phrase that is empty, has spaces at an end or two in a row, or a character
            that the alphabet lacks; a weight that is not above 0.
    """
    for phrase, weight in hotwords.items():
        if not phrase or phrase != SPACE.join(phrase.split()):
            raise ValueError(f"hotword {phrase!r}, expected words with single spaces between")
        if not (weight > 0 and math.isfinite(weight)):
            raise ValueError(f"hotword {phrase!r}: weight {weight}, expected nats above 0")
    edge = SPACE if SPACE in tokenizer.alphabet else ""
    patterns = ["".join(map(chr, tokenizer.encode(f"{edge}{phrase}{edge}"))) for phrase in hotwords]
    trie, ends = build_trie(patterns)
    shares, gains = np.zeros(len(trie.tokens)), np.zeros(len(trie.tokens))
    for pattern, (phrase, weight), end in zip(patterns, hotwords.items(), ends, strict=True):
        gains[end] = weight
        node = ROOT
        for matched, token in enumerate(pattern[:-1], 1 - len(edge)):
            node = child(trie, node, ord(token))
            shares[node] = max(shares[node], weight * matched / len(phrase))
    fails, reach = np.zeros(len(trie.tokens), np.int32), np.zeros(len(trie.tokens))
    _link(trie, fails, shares, gains, reach)
    space = tokenizer.encode(edge)[0] if edge else NONE
    start = int(child(trie, ROOT, space)) if edge and patterns else ROOT
    return HotwordAutomaton(trie, fails, shares, gains, reach, start, space)


@compiled
def _link(trie, fails, shares, gains, reach):  # type: ignore[no-untyped-def]
    """Find the fails and the reach of all states; add to each what its own fail is worth."""
    for node in range(len(fails)):  # parents come before children, a fail before what fails
        for following in range(trie.first_children[node], trie.first_children[node + 1]):
            if node != ROOT:
                fails[following] = follow(trie, fails, fails[node], trie.tokens[following])
            shares[following] = max(shares[following], shares[fails[following]])
            gains[following] += gains[fails[following]]
    for node in range(len(fails)):
        reach[node] = reach[fails[node]]
        for following in range(trie.first_children[node], trie.first_children[node + 1]):
            reach[node] = max(reach[node], shares[following] + gains[following])


@compiled
def follow(trie, fails, state, token):  # type: ignore[no-untyped-def]
    """Find the state after one more token."""
    while True:
        found = child(trie, state, token)
        if found >= 0 or state == ROOT:
            return max(found, np.int32(ROOT))
        state = fails[state]


@inlined
def hot_with(prefix, token, hotwords):  # type: ignore[no-untyped-def]
    """Find state and gain of the hotwords once a prefix of a beam search is longer by a token.

    A second space in a row changes nothing.
    """
    if len(hotwords.fails) == 1:
        return prefix.hot, prefix.gained
    if token == hotwords.space and (prefix.token == token or prefix.token == NONE):
        return prefix.hot, prefix.gained
    state = follow(hotwords.trie, hotwords.fails, prefix.hot, token)
    return state, prefix.gained + hotwords.gains[state]
