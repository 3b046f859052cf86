"""Words as they are spelt, token by token, and what an n-gram model says of them.

The compiled functions are given prefixes of a beam search, records as `beam_search.PREFIX` has
them, of which they read and write `spelt`, `context`, `words` and what begins with `closed`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from asr.compiled import compiled, inlined
from asr.decoder.ngram import END, UNKNOWN, NgramModel, Ngrams, advance
from asr.decoder.token_trie import EMPTY_TRIE, NONE, ROOT, SPACE, TokenTrie, build_trie, child
from asr.text import CharTokenizer

NO_WORD = -1


class WordModel(NamedTuple):
    """What a search must know to score words as they are written.

    Attributes:
        trie: of the spellings of the vocabulary, and of hotwords beyond it.
        word_ids: `(nodes,)` int32, the word that a node of the trie ends, or NO_WORD; empty where
            there is no language model.
        ngrams: of the language model.
        start: its node at the beginning of a sentence.
        end_id: of the end of a sentence.
        unknown_id: of words that it has not.
        lm_weight: what a nat of the language model counts.
        word_bonus: [nats] for each word.
        unk_score: [nats] for each word that is not in the trie, in addition.
        space: the token between words.
    """

    trie: TokenTrie
    word_ids: NDArray[np.int32]
    ngrams: Ngrams
    start: int
    end_id: int
    unknown_id: int
    lm_weight: float
    word_bonus: float
    unk_score: float
    space: int


def build_word_model(
    language_model: NgramModel,
    words: Sequence[str],
    alphabet: str,
    lm_weight: float,
    word_bonus: float,
    unk_score: float,
) -> WordModel:
    """Spell words in the tokens of an alphabet.

    Args:
        language_model: with the words' probabilities.
        words: each once; one that the language model has not counts as its <unk>, no more.
        alphabet: of the acoustic model, which can write them.
        lm_weight: see `WordModel`, as the next two.
        word_bonus: [nats].
        unk_score: [nats] for words that are not among these.

    Raises:
        ValueError: an alphabet without a space.
    """
    if SPACE not in alphabet:
        raise ValueError("the model's alphabet has no space, which a language model of words needs")
    tokens = dict(zip(map(ord, alphabet), CharTokenizer(alphabet).encode(alphabet), strict=True))
    trie, ends = build_trie([word.translate(tokens) for word in words])
    word_ids = np.full(len(trie.tokens), NO_WORD, np.int32)
    word_ids[ends] = [language_model.word_id(word) for word in words]
    return WordModel(
        trie,
        word_ids,
        language_model.ngrams,
        language_model.start,
        language_model.word_id(END),
        language_model.word_id(UNKNOWN),
        float(lm_weight),
        float(word_bonus),
        float(unk_score),
        tokens[ord(SPACE)],
    )


_real, _int = np.empty(0, np.float32), np.empty(0, np.int32)
# In the types of a real one, so that there is one compiled search for both.
NO_WORDS = WordModel(
    EMPTY_TRIE, _int, Ngrams(_real, _real, _int, np.empty(0, np.int64), _int), 0, 0, 0, 0.0, 0.0,
    0.0, -1,
)  # fmt: skip


@inlined
def words_with(prefix, token, words):  # type: ignore[no-untyped-def]
    """Score the words of a prefix once it is longer by a token [nats]."""
    if len(words.word_ids) == 0:
        return 0.0
    if token != words.space:
        is_word = _spelt_with(prefix, token, words) != NONE
        return prefix.words if is_word else prefix.words + words.unk_score
    if prefix.spelt == ROOT:
        return prefix.words
    _close(prefix, words)
    return prefix.closed_words


@compiled
def words_at_end(prefix, words):  # type: ignore[no-untyped-def]
    """Score the words if the last word and the sentence end here [nats]."""
    if len(words.word_ids) == 0:
        return 0.0
    context, score = prefix.context, prefix.words
    if prefix.spelt != ROOT:
        _close(prefix, words)
        context, score = prefix.closed_context, prefix.closed_words
    log_prob, _ = advance(context, words.end_id, words.ngrams)
    return _weighted(log_prob, score, words)


@inlined
def spell(prefix, parent, token, words):  # type: ignore[no-untyped-def]
    """Note the words of a prefix that is longer than its parent by a token.

    `words_with` was asked before, so that the parent's word is closed.
    """
    prefix.is_closed = 0
    prefix.context, prefix.words, prefix.spelt = parent.context, parent.words, ROOT
    if len(words.word_ids) > 0:
        if token != words.space:
            prefix.spelt = _spelt_with(parent, token, words)
        elif parent.spelt != ROOT:
            prefix.context, prefix.words = parent.closed_context, parent.closed_words


@compiled
def _spelt_with(prefix, token, words):  # type: ignore[no-untyped-def]
    return child(words.trie, prefix.spelt, token) if prefix.spelt != NONE else np.int32(NONE)


@compiled
def _close(prefix, words):  # type: ignore[no-untyped-def]
    """Find out what the words are worth if the word begun ends here; once a prefix."""
    if prefix.is_closed:
        return
    word_id = np.int64(words.word_ids[prefix.spelt] if prefix.spelt != NONE else NO_WORD)
    score = words.word_bonus
    if word_id == NO_WORD:
        word_id = words.unknown_id
        score += words.unk_score
    log_prob, prefix.closed_context = advance(prefix.context, word_id, words.ngrams)
    prefix.closed_words = prefix.words + _weighted(log_prob, score, words)
    prefix.is_closed = 1


@compiled
def _weighted(log_prob, score, words):  # type: ignore[no-untyped-def]
    """Without weight nothing counts, not even what is impossible."""
    return score + words.lm_weight * log_prob if words.lm_weight > 0 else score
