"""A word n-gram model for a search that writes characters: which word is being spelt, its worth."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from asr.decoder.ngram.model import END, START, UNKNOWN, NgramModel
from asr.decoder.token_trie import TokenTrie, build_trie
from asr.text.tokenizer import CharTokenizer

SPACE = " "
NO_WORD = -1


class Ngrams(NamedTuple):
    """The arrays of an `NgramModel`, in the order in which its functions take them."""

    log_probs: NDArray[np.float32]
    backoffs: NDArray[np.float32]
    word_ids: NDArray[np.int32]
    first_children: NDArray[np.int64]
    suffixes: NDArray[np.int32]


class WordModel(NamedTuple):
    """What a search must know to score words as they are written.

    Attributes:
        trie: of the spellings of the vocabulary.
        word_ids: `(nodes,)` int32, the word that a node of the trie ends, or NO_WORD.
        ngrams: of the language model.
        start: its node at the beginning of a sentence.
        end_id: of the end of a sentence.
        unknown_id: of words that it has not.
        lm_weight: what a nat of the language model counts.
        word_bonus: [nats] for each word.
        unk_score: [nats] for each unknown word, in addition.
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


def spellable(language_model: NgramModel, tokenizer: CharTokenizer) -> list[str]:
    """The words of a language model that an alphabet can write."""
    characters = set(tokenizer.alphabet) - {SPACE}
    special = {UNKNOWN, START, END}
    return [
        word
        for word in language_model.words
        if word and word not in special and characters.issuperset(word)
    ]


def build_word_model(
    language_model: NgramModel,
    tokenizer: CharTokenizer,
    lm_weight: float,
    word_bonus: float,
    unk_score: float,
) -> WordModel:
    """Spell a language model's vocabulary in the tokens of an alphabet.

    Raises:
        ValueError: an alphabet without a space, or with which no word can be written.
    """
    if SPACE not in tokenizer.alphabet:
        raise ValueError("the model's alphabet has no space, which a language model of words needs")
    words = spellable(language_model, tokenizer)
    if not words:
        raise ValueError(
            f"none of the language model's {len(language_model.words)} words can be written with "
            f"the model's alphabet {tokenizer.alphabet!r}"
        )
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
        Ngrams(*language_model.arrays),
        language_model.start,
        language_model.word_id(END),
        language_model.word_id(UNKNOWN),
        lm_weight,
        word_bonus,
        unk_score,
        tokenizer.encode(SPACE)[0],
    )
