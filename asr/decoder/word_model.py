"""Words as they are spelt, token by token, and what an n-gram model says of them.

The compiled functions are given prefixes of a beam search, records as `prefix_search.PREFIX` has
them, of which they read and write `spelt`, `context`, `words` and what begins with `closed`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from asr.compiled import compiled, inlined
from asr.decoder.ngram import END, MARKS, UNKNOWN, NgramModel, Ngrams, advance
from asr.decoder.phrases import FIRST, Grammar
from asr.decoder.token_trie import (
    EMPTY_TRIE,
    NONE,
    ROOT,
    SPACE,
    TokenTrie,
    build_trie,
    child,
    spellings_of,
)
from asr.text import CharTokenizer

NO_SPACE = -1  # is no token
BROKEN_OFF = -1e4  # [nats] of a last word that is not whole: finite, so that there is a text


class WordModel(NamedTuple):
    """What a search must know to score words as they are written.

    Attributes:
        trie: of the spellings of the words; of phrases a tree for each set of words that can follow
            each other's, below a token of its own.
        roots: `(contexts,)` int32; at which node of the trie a word begins in each context, NONE
            where none does; empty where all begin at the trie's root.
        first_entries: `(nodes + 1,)` int32; the words that a node of the trie ends are those of
            `entries` from first_entries[i] to before first_entries[i + 1]. Several are spelt alike
            where phones spell them.
        entries: `(spellings,)` int32, numbers of words.
        lm_ids: `(words,)` int32, of each word in the language model.
        penalties: `(words,)` float64, added for each word beside its bonus [nats].
        ahead: `(nodes,)` float64, at most what the words below a node are worth without context,
            no more than 0 [nats]; it counts while a word is begun.
        ngrams: of the language model.
        start: its node at the beginning of a sentence.
        end_id: of the end of a sentence.
        unknown_id: of words that it has not.
        lm_weight: what a nat of the language model counts.
        word_bonus: [nats] for each word.
        unk_score: [nats] for each word that is not in the trie, in addition; -inf: there are none.
        space: the token between words, NO_SPACE where there is none.
    """

    trie: TokenTrie
    roots: NDArray[np.int32]
    first_entries: NDArray[np.int32]
    entries: NDArray[np.int32]
    lm_ids: NDArray[np.int32]
    penalties: NDArray[np.float64]
    ahead: NDArray[np.float64]
    ngrams: Ngrams
    start: int
    end_id: int
    unknown_id: int
    lm_weight: float
    word_bonus: float
    unk_score: float
    space: int

    @property
    def most_alike(self) -> int:
        """How many words are spelt alike, at most; 1 where each has a spelling of its own."""
        return int(np.diff(self.first_entries).max(initial=1))

    def spellings(self) -> Iterator[tuple[str, list[int]]]:
        """List each spelling once, and the numbers of the words that are spelt so, in order."""
        skipped, known = (1 if len(self.roots) else 0), set[str]()
        for node, spelling in spellings_of(self.trie):
            own = self.entries[self.first_entries[node] : self.first_entries[node + 1]]
            if len(own) and spelling[skipped:] not in known:
                known.add(spelling[skipped:])
                yield spelling[skipped:], own.tolist()


def build_word_model(
    spellings: Mapping[str, Sequence[str]],
    alphabet: str,
    language_model: NgramModel | Grammar | None,
    lm_weight: float,
    word_bonus: float,
    unk_score: float,
    is_closed: bool = False,
) -> WordModel:
    """Spell words in the tokens of an alphabet.

    Args:
        spellings: of each word, in characters of the alphabet.
        alphabet: of the acoustic model, which can write them.
        language_model: with the words' probabilities, or the phrases that alone there are; None
            where all are equally likely. A word that it has not counts as its <unk>.
        lm_weight: what a nat of the language model counts.
        word_bonus: [nats] for each word.
        unk_score: [nats] for words that are not among these; where `is_closed`, for those that the
            language model has not.
        is_closed: there are no others than these.

    Raises:
        ValueError: an alphabet without a space, unless there are phrases of a single word alone.
    """
    is_of_single_words = isinstance(language_model, Grammar) and language_model.most_words == 1
    if SPACE not in alphabet and not is_of_single_words:
        raise ValueError("the model's alphabet has no space, which words need")
    model = UNIFORM if language_model is None else language_model
    tokens = dict(zip(map(ord, alphabet), CharTokenizer(alphabet).encode(alphabet), strict=True))
    spelt = [[each.translate(tokens) for each in own] for own in spellings.values()]
    pairs = [(each, number) for number, own in enumerate(spelt) for each in own]
    contexts, sets = np.empty(0, np.int32), list[tuple[int, ...]]()
    if isinstance(language_model, Grammar):
        contexts, sets = language_model.followers(list(spellings))
        pairs = _below_marks(pairs, spelt, sets)
    trie, ends = build_trie([spelling for spelling, _ in pairs])
    marks = [child(trie, ROOT, FIRST + number) for number in range(len(sets))]
    roots = np.array([*marks, NONE], np.int32)[contexts]
    ids = np.array([model.word_id(word) for word in spellings], np.int32)
    is_strange = np.array([word not in model for word in spellings], bool)
    penalties = np.zeros(len(ids))
    if is_closed and language_model is not None:
        penalties[is_strange] = unk_score
    # Words that are spelt alike in the order of their probability: where nothing tells them apart,
    # the likeliest is taken.
    alone = penalties + lm_weight * model.log_probs[1 + ids].astype(np.float64)
    numbers = np.array([number for _, number in pairs], np.int32)
    order = np.lexsort((numbers, -alone[numbers], ends))
    counts = np.bincount(ends, minlength=len(trie.tokens))
    return WordModel(
        trie,
        roots,
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int32),
        numbers[order],
        ids,
        penalties,
        _look_ahead(trie, ends, alone[numbers]) if is_closed else np.zeros(len(trie.tokens)),
        model.ngrams,
        model.start,
        model.word_id(END),
        model.word_id(UNKNOWN),
        float(lm_weight),
        float(word_bonus),
        -np.inf if is_closed else float(unk_score),
        tokens.get(ord(SPACE), NO_SPACE),
    )


def _below_marks(
    pairs: Sequence[tuple[str, int]],
    spelt: Sequence[Sequence[str]],
    sets: Sequence[tuple[int, ...]],
) -> list[tuple[str, int]]:
    """Give the spellings of each set of words a token of the set to begin with.

    All words that are spelt so stand there, so that they have the same order everywhere; what a
    phrase does not allow among them is impossible by the grammar.
    """
    alike = defaultdict[str, list[int]](list)
    for spelling, number in pairs:
        alike[spelling].append(number)
    return [
        (chr(FIRST + which) + spelling, number)
        for which, words in enumerate(sets)
        for spelling in dict.fromkeys(each for word in words for each in spelt[word])
        for number in alike[spelling]
    ]


def _look_ahead(
    trie: TokenTrie, ends: NDArray[np.int32], worth: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The most that a spelling at or below each node is worth, no more than 0; 0 at the root."""
    ahead = np.full(len(trie.tokens), -np.inf)
    np.maximum.at(ahead, ends, worth)
    _spread(trie, ahead)
    ahead[ROOT] = 0.0
    most: NDArray[np.float64] = np.minimum(ahead, 0.0)
    return most


@compiled
def _spread(trie, ahead):  # type: ignore[no-untyped-def]
    """Give each node the most of its own value and those below it."""
    for node in range(len(ahead) - 1, ROOT - 1, -1):  # children come behind their parents
        for below in range(trie.first_children[node], trie.first_children[node + 1]):
            ahead[node] = max(ahead[node], ahead[below])


# Every word, and the end of a sentence, is certain: they differ in nothing.
UNIFORM = NgramModel(
    1, MARKS, np.zeros(1 + len(MARKS), np.float32), np.zeros(1 + len(MARKS), np.float32),
    np.arange(-1, len(MARKS), dtype=np.int32),
    np.array([1, *[1 + len(MARKS)] * (1 + len(MARKS))]), np.zeros(1 + len(MARKS), np.int32),
)  # fmt: skip
_real, _int = np.empty(0, np.float32), np.empty(0, np.int32)
# In the types of a real one, so that there is one compiled search for both.
NO_WORDS = WordModel(
    EMPTY_TRIE, _int, np.zeros(2, np.int32), _int, _int, np.empty(0), np.zeros(1),
    Ngrams(_real, _real, _int, np.empty(0, np.int64), _int), 0, 0, 0, 0.0, 0.0, 0.0, NO_SPACE,
)  # fmt: skip


@inlined
def root_of(context, words):  # type: ignore[no-untyped-def]
    """Find the node of the trie at which a word begins, NONE where none may follow."""
    return words.roots[context] if len(words.roots) > 0 else np.int32(ROOT)


@inlined
def num_alike(prefix, words):  # type: ignore[no-untyped-def]
    """Count the ways in which the word begun can end here, 1 where none is known."""
    if prefix.spelt == NONE:
        return 1
    return max(1, words.first_entries[prefix.spelt + 1] - words.first_entries[prefix.spelt])


@inlined
def words_with(prefix, label, which, words):  # type: ignore[no-untyped-def]
    """Score the words of a prefix once it is longer by a label [nats].

    Args:
        prefix: PREFIX.
        label: of the alphabet.
        which: of the words that are spelt alike, should the label end one.
        words: a `WordModel`.
    """
    if len(words.entries) == 0:
        return 0.0
    if label != words.space:
        node = _spelt_with(prefix, label, words)
        return prefix.words + (words.ahead[node] if node != NONE else words.unk_score)
    if prefix.spelt == root_of(prefix.context, words):
        # A space more changes no word, and would fill the beam with the same phrase many times.
        return prefix.words if len(words.roots) == 0 else -np.inf
    _close(prefix, which, words)
    return prefix.closed_words


@compiled
def words_at_end(prefix, which, words):  # type: ignore[no-untyped-def]
    """Score the words if the last word and the sentence end here [nats].

    Where only known words are, one that is not whole costs more than all others together.

    Args:
        prefix: PREFIX.
        which: of the words that are spelt alike is the last one.
        words: a `WordModel`.
    """
    if len(words.entries) == 0:
        return 0.0
    context, score = prefix.context, prefix.words
    if prefix.spelt != root_of(context, words):
        _close(prefix, which, words)
        context, score = prefix.closed_context, prefix.closed_words
    log_prob, _ = advance(context, words.end_id, words.ngrams)
    return max(_weighted(log_prob, score, words), prefix.words + BROKEN_OFF)


@inlined
def spell(prefix, parent, label, words):  # type: ignore[no-untyped-def]
    """Note the words of a prefix that is longer than its parent by a label.

    `words_with` was asked before, so that the parent's word is closed as it was asked for.
    """
    prefix.closed = NONE
    prefix.context, prefix.words, prefix.spelt = parent.context, parent.words, ROOT
    if len(words.entries) > 0:
        if label != words.space:
            prefix.spelt = _spelt_with(parent, label, words)
            return
        if parent.spelt != root_of(parent.context, words):
            prefix.context, prefix.words = parent.closed_context, parent.closed_words
        prefix.spelt = root_of(prefix.context, words)


@compiled
def _spelt_with(prefix, label, words):  # type: ignore[no-untyped-def]
    return child(words.trie, prefix.spelt, label) if prefix.spelt != NONE else np.int32(NONE)


@compiled
def word_ended(prefix, which, words):  # type: ignore[no-untyped-def]
    """Find the number of the word that ends behind a prefix, NONE where none is known."""
    if prefix.spelt == NONE:
        return np.int32(NONE)
    place = words.first_entries[prefix.spelt] + which
    is_there = place < words.first_entries[prefix.spelt + 1]
    return words.entries[place] if is_there else np.int32(NONE)


@compiled
def _close(prefix, which, words):  # type: ignore[no-untyped-def]
    """Find out what the words are worth if the word begun ends here; once for the same word."""
    if prefix.closed == which:
        return
    word = word_ended(prefix, which, words)
    score = words.word_bonus
    if word == NONE:
        lm_id = np.int64(words.unknown_id)
        score += words.unk_score
    else:
        lm_id = np.int64(words.lm_ids[word])
        score += words.penalties[word]
    log_prob, prefix.closed_context = advance(prefix.context, lm_id, words.ngrams)
    prefix.closed_words = prefix.words + _weighted(log_prob, score, words)
    prefix.closed = which


@compiled
def _weighted(log_prob, score, words):  # type: ignore[no-untyped-def]
    """Without weight nothing counts, not even what is impossible."""
    return score + words.lm_weight * log_prob if words.lm_weight > 0 else score
