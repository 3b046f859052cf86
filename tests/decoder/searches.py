"""Small searches: random frames, a small language model, and the readable twin of a beam search."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from asr.decoder import BeamSearch, Hypothesis
from asr.decoder.ngram import NgramModel, Rows, build_tree
from asr.text import CharTokenizer
from tests.decoder.plain_prefix_search import PlainSearch, Worth

ALPHABET = " abc"
NO_PRUNING: dict[str, Any] = {
    "min_token_log_prob": -math.inf, "max_tokens": 10**6, "beam_threshold": math.inf,
    "skip_blank": 1.0,
}  # fmt: skip


def random_log_probs(
    generator: np.random.Generator, frames: int, vocab: int, *, ties: bool = False
) -> np.ndarray:
    """`(T, V)` that sum to one; with ties from a few values, some of them -inf, that need not."""
    if ties:
        with np.errstate(divide="ignore"):
            log_probs = np.log(generator.choice([0.0, 0.25, 0.25, 0.5], (frames, vocab)))
        log_probs[np.all(np.isinf(log_probs), axis=1), 0] = 0.0
        return log_probs
    logits = generator.standard_normal((frames, vocab)) * generator.uniform(0.5, 4)
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))


def bigram_model(words: tuple[str, ...] = ("a", "ab", "cab", "bd"), seed: int = 0) -> NgramModel:
    """A bigram model of some words, with made-up probabilities and half of the bigrams."""
    generator = np.random.default_rng(seed)
    vocabulary = ("<unk>", "<s>", "</s>", *sorted(words))
    size = len(vocabulary)
    pairs = [
        (first, second)
        for first in range(size)
        for second in range(size)
        if first not in (0, 2) and second != 1 and generator.random() < 0.5
    ]
    levels = [
        Rows(
            np.array(ids, np.int32),
            -generator.uniform(0.2, 4, len(ids)).astype(np.float32),
            -generator.uniform(0, 1, len(ids)).astype(np.float32) * (len(ids[0]) == 1),
        )
        for ids in ([(word_id,) for word_id in range(size)], pairs)
    ]
    return build_tree(vocabulary, levels)


def twin_of(
    decoder: BeamSearch,
    language_model: NgramModel | None = None,
    hotwords: Mapping[str, float] | None = None,
) -> PlainSearch:
    """The readable search with the settings of a fast one."""
    worth = Worth()
    if decoder.alphabet:
        tokenizer = CharTokenizer(decoder.alphabet)
        written = language_model.written_in(decoder.alphabet)[0] if language_model else []
        worth = Worth(
            language_model,
            {tuple(tokenizer.encode(word)): word for word in written},
            {tuple(tokenizer.encode(word)): weight for word, weight in (hotwords or {}).items()},
            tokenizer.encode(" ")[0] if " " in decoder.alphabet else -1,
            decoder.words.lm_weight,
            decoder.words.word_bonus,
            decoder.words.unk_score,
        )
    return PlainSearch(decoder.beam_size, decoder.nbest, decoder.max_tokens, *decoder.limits, worth)


def decode(decoder: BeamSearch, log_probs: np.ndarray) -> list[Hypothesis]:
    """The hypotheses of one utterance `(T, V)`."""
    return decoder(torch.from_numpy(log_probs)[None], torch.tensor([len(log_probs)]))[0]
