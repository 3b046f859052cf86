"""A word n-gram model for a search that writes characters: which word is being spelt, its worth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from asr.decoder.ngram import END, UNKNOWN, NgramModel, Ngrams
from asr.decoder.token_trie import TokenTrie, build_trie
from asr.text import CharTokenizer

SPACE = " "
NO_WORD = -1


class WordModel(NamedTuple):
    """What a search must know to score words as they are written.

    Attributes:
        trie: of the spellings of the vocabulary, and of hotwords beyond it.
        word_ids: `(nodes,)` int32, the word that a node of the trie ends, or NO_WORD.
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
    tokenizer: CharTokenizer,
    lm_weight: float,
    word_bonus: float,
    unk_score: float,
) -> WordModel:
    """Spell words in the tokens of an alphabet.

    Args:
        language_model: with the words' probabilities.
        words: each once; one that the language model has not counts as its <unk>, no more.
        tokenizer: of the alphabet.
        lm_weight: see `WordModel`, as the next two.
        word_bonus: [nats].
        unk_score: [nats] for words that are not among these.

    Raises:
        ValueError: an alphabet without a space.
    """
    if SPACE not in tokenizer.alphabet:
        raise ValueError("the model's alphabet has no space, which a language model of words needs")
    tokens = {
        ord(character): token
        for character, token in zip(
            tokenizer.alphabet, tokenizer.encode(tokenizer.alphabet), strict=True
        )
    }
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
        # Whole numbers would be another type, and the search compiled anew for it.
        float(lm_weight),
        float(word_bonus),
        float(unk_score),
        tokenizer.encode(SPACE)[0],
    )
