"""The compiled search equals its readable twin, ties included, and enumeration where it is full."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from asr.decoder import BeamSearch
from tests.decoder.searches import (
    ALPHABET,
    NO_PRUNING,
    bigram_model,
    decode,
    random_log_probs,
    twin_of,
)

HOTWORDS = ({}, {"ab": 2.0, "cab ab": 3.5, "b": 1.0, "a b": 0.7}, {"ba": 1.5, "bab": 4.0})


def random_settings(generator: np.random.Generator) -> dict[str, Any]:
    """Of all settings that leave something out, or of none of them."""
    if generator.random() < 0.5:
        return NO_PRUNING
    return {
        "min_token_log_prob": float(generator.choice([-1, -2, -10])),
        "max_tokens": int(generator.integers(1, 5)),
        "beam_threshold": float(generator.choice([1, 3, 25])),
        "skip_blank": float(generator.choice([0.5, 0.8, 0.999, 1])),
    }


@pytest.mark.parametrize("has_ties", [False, True])
@pytest.mark.parametrize("has_words", [False, True])
@pytest.mark.parametrize("hotwords", HOTWORDS)
def test_it_equals_its_readable_twin(
    has_ties: bool, has_words: bool, hotwords: dict[str, float]
) -> None:
    generator = np.random.default_rng([has_ties, has_words, len(hotwords)])
    model = bigram_model() if has_words else None
    several = 0
    for _ in range(40):
        beam_size = int(generator.choice([1, 2, 3, 8, 50]))
        decoder = BeamSearch(
            beam_size, min(beam_size, 10), alphabet=ALPHABET, language_model=model,
            lm_weight=float(generator.choice([0, 0.5, 1.3])), hotwords=hotwords,
            word_bonus=float(generator.choice([-1, 0, 1.5])), **random_settings(generator),
        )  # fmt: skip
        frames, vocab = int(generator.integers(0, 14)), len(ALPHABET) + 1
        log_probs = random_log_probs(generator, frames, vocab, ties=has_ties)
        found = decode(decoder, log_probs)
        assert found == twin_of(decoder, model, hotwords)(log_probs.tolist())
        several += len(found) > 1
    assert several > 10


def test_long_utterances_equal_the_twin() -> None:
    generator = np.random.default_rng(5)
    for _ in range(3):
        log_probs = random_log_probs(generator, 120, 5)
        decoder = BeamSearch(12, 5, alphabet=ALPHABET, language_model=bigram_model())
        twin = twin_of(decoder, bigram_model())
        assert decode(decoder, log_probs) == twin(log_probs.tolist())


def test_an_alphabet_without_spaces_has_hotwords_anywhere() -> None:
    generator = np.random.default_rng(6)
    hotwords = {"ab": 2.0, "bca": 1.0, "c": 0.5}
    for _ in range(40):
        decoder = BeamSearch(6, 6, alphabet="abc", hotwords=hotwords)
        log_probs = random_log_probs(generator, int(generator.integers(1, 9)), 4)
        twin = twin_of(decoder, None, hotwords)
        assert decode(decoder, log_probs) == twin(log_probs.tolist())


def best_alignment(log_probs: np.ndarray, tokens: tuple[int, ...]) -> float:
    """Log-probability of the best path that collapses to the tokens, by trying all."""
    frames, vocab = log_probs.shape
    return max(
        math.fsum(log_probs[frame, label] for frame, label in enumerate(path))
        for path in itertools.product(range(vocab), repeat=frames)
        if tuple(k for k, _ in itertools.groupby(path) if k) == tokens
    )


def test_frames_are_those_of_the_best_alignment() -> None:
    generator = np.random.default_rng(7)
    for _ in range(30):
        log_probs = random_log_probs(generator, int(generator.integers(1, 6)), 3)
        for hypothesis in decode(BeamSearch(1000, 5, **NO_PRUNING), log_probs):
            path = np.zeros(len(log_probs), np.int64)
            spans = zip(hypothesis.tokens, hypothesis.starts, hypothesis.ends, strict=True)
            for (token, start, end), mean in zip(spans, hypothesis.log_probs, strict=True):
                path[start:end] = token
                assert mean == pytest.approx(log_probs[start:end, token].mean())
            own = log_probs[np.arange(len(path)), path].sum()
            assert own == pytest.approx(best_alignment(log_probs, hypothesis.tokens))
