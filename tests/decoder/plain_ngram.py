"""The score of an n-gram model as ARPA defines it, with dictionaries: slow, and easy to check."""

from __future__ import annotations

from collections.abc import Sequence

from asr.decoder.ngram import END, START, UNKNOWN, NgramModel

Ngram = tuple[str, ...]


class DictionaryModel:
    """The n-grams of a model in words, each with its two numbers.

    Args:
        model: the tree to unfold.
    """

    def __init__(self, model: NgramModel) -> None:
        self.order = model.order
        self.log_probs: dict[Ngram, float] = {}
        self.backoffs: dict[Ngram, float] = {}
        ngrams: dict[int, Ngram] = {0: ()}
        for node in range(len(model.log_probs)):
            ngram = ngrams.pop(node)
            self.log_probs[ngram] = float(model.log_probs[node])
            self.backoffs[ngram] = float(model.backoffs[node])
            for child in range(model.first_children[node], model.first_children[node + 1]):
                ngrams[child] = (*ngram, model.words[model.word_ids[child]])

    def log_prob(self, word: str, context: Ngram) -> float:
        """log P(word | context) [nats].

        P(w | c) = P of the n-gram (c w)                     where the model lists it
                 = backoff(c) P(w | c without its first)     else; backoff is 1 where none is
        """
        if (*context, word) in self.log_probs:
            return self.log_probs[(*context, word)]
        return self.backoffs.get(context, 0.0) + self.log_prob(word, context[1:])

    def score(self, words: Sequence[str]) -> list[float]:
        """log P of each word of a sentence and of `</s>` [nats]."""
        known = [word if (word,) in self.log_probs else UNKNOWN for word in words]
        tokens = [START, *known, END]
        return [
            self.log_prob(tokens[k], tuple(tokens[max(0, k - self.order + 1) : k]))
            for k in range(1, len(tokens))
        ]
