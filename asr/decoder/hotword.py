"""Words and phrases that are likelier than a model expects, followed token by token."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from asr.compiled import compiled, inlined
from asr.decoder.token_trie import EMPTY_TRIE, NONE, ROOT, SPACE, TokenTrie, build_trie, child
from asr.decoder.word_model import WordModel
from asr.text import CharTokenizer

MAX_WAYS = 64  # in which a phrase is said, of all that its words' pronunciations make


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
        is_spoken: which of the words spelt alike it is counts, and stands before a space as a token
            behind all labels.
    """

    trie: TokenTrie
    fails: NDArray[np.int32]
    credits: NDArray[np.float64]
    gains: NDArray[np.float64]
    reach: NDArray[np.float64]
    start: int
    space: int
    is_spoken: bool


# In the types of a real one, so that there is one compiled search for both.
NO_HOTWORDS = HotwordAutomaton(
    EMPTY_TRIE, np.zeros(1, np.int32), np.zeros(1), np.zeros(1), np.zeros(1), ROOT, NONE, False
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
    check_hotwords(hotwords)
    edge = SPACE if SPACE in tokenizer.alphabet else ""
    patterns = {
        "".join(map(chr, tokenizer.encode(f"{edge}{phrase}{edge}"))): weight
        for phrase, weight in hotwords.items()
    }
    return _automaton(patterns, tokenizer.encode(edge)[0] if edge else NONE, is_spoken=False)


def build_spoken_automaton(
    hotwords: Mapping[str, float], words: WordModel, vocabulary: Sequence[str], num_labels: int
) -> HotwordAutomaton:
    """Build the automaton of words and phrases as a lexicon spells them.

    Words that are spelt alike are told apart: before the space that ends a word stands a token
    behind all labels that says which of them it is.

    Args:
        hotwords: as for `build_automaton`.
        words: the words of the lexicon, and how they are spelt.
        vocabulary: the words by their numbers.
        num_labels: of the model, the blank included.

    Raises:
        ValueError: as `build_automaton`, or a word that the lexicon has not.
    """
    check_hotwords(hotwords)
    ways: dict[str, list[str]] = {}  # spellings, and which of the words spelt alike each is
    wanted = {word for phrase in hotwords for word in phrase.split()}
    for spelling, own in words.spellings():
        for which, number in enumerate(own):
            if vocabulary[number] in wanted:
                ways.setdefault(vocabulary[number], []).append(spelling + chr(num_labels + which))
    if missing := sorted(wanted - ways.keys()):
        raise ValueError(f"hotword {missing[0]!r} is not in the lexicon, expected one of its words")
    space = chr(words.space)
    patterns: dict[str, float] = {}
    for phrase, weight in hotwords.items():
        spoken = itertools.product(*(ways[word] for word in phrase.split()))
        for each in itertools.islice(spoken, MAX_WAYS):
            patterns[space + space.join(each)] = weight
    return _automaton(patterns, words.space, is_spoken=True)


def check_hotwords(hotwords: Mapping[str, float]) -> None:
    """Refuse what is no phrase, and weights that are none.

    Raises:
        ValueError: a phrase that is empty or has spaces at an end or two in a row; a weight that is
            not above 0.
    """
    for phrase, weight in hotwords.items():
        if not phrase or phrase != SPACE.join(phrase.split()):
            raise ValueError(f"hotword {phrase!r}, expected words with single spaces between")
        if not (weight > 0 and math.isfinite(weight)):
            raise ValueError(f"hotword {phrase!r}: weight {weight}, expected nats above 0")


def _automaton(patterns: Mapping[str, float], space: int, *, is_spoken: bool) -> HotwordAutomaton:
    """Link the tree of patterns, which begin with a space where there is one."""
    trie, ends = build_trie(list(patterns))
    shares, gains = np.zeros(len(trie.tokens)), np.zeros(len(trie.tokens))
    edge = int(space != NONE)
    for (pattern, weight), end in zip(patterns.items(), ends, strict=True):
        gains[end] = weight
        node, length = ROOT, len(pattern) - edge - (edge and not is_spoken)
        for matched, token in enumerate(pattern[:-1], 1 - edge):
            node = child(trie, node, ord(token))
            shares[node] = max(shares[node], weight * matched / length)
    fails, reach = np.zeros(len(trie.tokens), np.int32), np.zeros(len(trie.tokens))
    _link(trie, fails, shares, gains, reach)
    start = int(child(trie, ROOT, space)) if edge and patterns else ROOT
    return HotwordAutomaton(trie, fails, shares, gains, reach, start, space, is_spoken)


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
def hot_with(prefix, label, which, num_labels, hotwords):  # type: ignore[no-untyped-def]
    """Find state and gain of the hotwords once a prefix of a beam search is longer by a label.

    A second space in a row changes nothing. `which` is that of the words spelt alike that a space
    ends.
    """
    if len(hotwords.fails) == 1:
        return prefix.hot, prefix.gained
    state, gained = prefix.hot, prefix.gained
    if label == hotwords.space:
        if prefix.token == label or prefix.token == NONE or prefix.token >= num_labels:
            return state, gained
        if hotwords.is_spoken:
            state = follow(hotwords.trie, hotwords.fails, state, num_labels + which)
            gained += hotwords.gains[state]
    state = follow(hotwords.trie, hotwords.fails, state, label)
    return state, gained + hotwords.gains[state]
