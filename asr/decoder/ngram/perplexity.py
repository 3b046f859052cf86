"""How well a model predicts a text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from asr.decoder.ngram.model import END, LOG10, UNKNOWN, NgramModel


@dataclass(frozen=True)
class Perplexity:
    """What a model says of a text.

    Attributes:
        sentences: how many; each has one `</s>` to predict.
        words: without `</s>`.
        oov_words: those that the model has not, each time they occur.
        log10_total: of all words and `</s>` [log10].
        log10_known: the same without the words that the model has not [log10].
        hits: how often the n-gram found had 1, 2, ... words; unknown words are among the first.
    """

    sentences: int
    words: int
    oov_words: int
    log10_total: float
    log10_known: float
    hits: tuple[int, ...]

    @property
    def with_oov(self) -> float:
        """Perplexity over all words and `</s>`, an unknown word scored as `<unk>`."""
        return _per_token(self.log10_total, self.words + self.sentences)

    @property
    def without_oov(self) -> float:
        """Perplexity over the words that the model has, and `</s>`."""
        tokens = self.words + self.sentences - self.oov_words
        return _per_token(self.log10_known, tokens)


def measure_perplexity(model: NgramModel, sentences: Iterable[Sequence[str]]) -> Perplexity:
    """Score a text; the order of its sentences makes no difference to the result.

    Args:
        model: the model.
        sentences: each its words, without `<s>` and `</s>`.

    Raises:
        ValueError: no sentences.
    """
    totals: list[float] = []
    known_totals: list[float] = []
    num_words = oov_words = 0
    hits = np.zeros(model.order + 1, np.int64)
    for words in sentences:
        log_probs, lengths = model.found(words)
        known = np.array([word in model and word != UNKNOWN for word in [*words, END]])
        totals.append(math.fsum(log_probs))
        known_totals.append(math.fsum(log_probs[known]))
        num_words += len(words)
        oov_words += len(known) - int(known.sum())
        hits += np.bincount(lengths, minlength=model.order + 1)
    if not totals:
        raise ValueError("no sentences to measure the perplexity of, expected at least one")
    return Perplexity(
        sentences=len(totals),
        words=num_words,
        oov_words=oov_words,
        log10_total=math.fsum(totals) / LOG10,
        log10_known=math.fsum(known_totals) / LOG10,
        hits=tuple(hits[1:].tolist()),
    )


def _per_token(log10_total: float, tokens: int) -> float:
    try:
        return math.pow(10.0, -log10_total / tokens)
    except OverflowError:
        return math.inf
