"""Made-up text that looks like language to counts: Zipf's law, and words that go together."""

from __future__ import annotations

import numpy as np


def random_sentences(num_sentences: int, vocabulary: int, seed: int = 0) -> list[list[str]]:
    """Sentences of 0 to 11 words; half of the words follow from the one before."""
    draws = np.random.default_rng(seed)
    weights = 1 / np.arange(1, vocabulary + 1)
    sentences = []
    for length in draws.integers(0, 12, num_sentences):
        ids = draws.choice(vocabulary, length, p=weights / weights.sum())
        for place in range(1, length):
            if draws.random() < 0.5:
                ids[place] = (ids[place - 1] * 7 + 1) % vocabulary
        sentences.append([f"w{word_id}" for word_id in ids])
    return sentences
