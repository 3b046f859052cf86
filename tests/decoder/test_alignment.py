"""Forced alignment: by hand, against every path, and the compiled search as the readable one."""

from __future__ import annotations

import math
import re
from itertools import combinations_with_replacement, groupby, pairwise
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from asr.decoder import Greedy, alignment
from asr.decoder.alignment import (
    MIN_SEGMENT,
    StatePath,
    best_path,
    forced_alignment,
    segment_length,
)
from tests.decoder.plain_viterbi import plain_best_path

Array = NDArray[Any]


@pytest.fixture(params=[plain_best_path, best_path])
def search(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The search by which all is aligned in a test: the plain one, and the compiled one."""
    monkeypatch.setattr(alignment, "best_path", request.param)
    return request.param


def random_case(generator: np.random.Generator, is_tied: bool = False) -> tuple[Array, list[int]]:
    """Log-probabilities and labels that fit; tied ones are quarters, so that sums are exact."""
    vocab_size, num_tokens = int(generator.integers(2, 5)), int(generator.integers(0, 5))
    tokens = generator.integers(1, vocab_size, num_tokens).tolist()
    needed = num_tokens + sum(a == b for a, b in pairwise(tokens))
    num_frames = needed + int(generator.integers(0, 4))
    if is_tied:
        log_probs = -generator.integers(0, 3, (num_frames, vocab_size)) / 4
    else:
        log_probs = np.log(generator.dirichlet(np.ones(vocab_size), num_frames))
    return log_probs.reshape(num_frames, vocab_size), tokens


def every_path(num_frames: int, tokens: list[int]) -> list[tuple[int, ...]]:
    """All sequences of states that CTC collapses to these labels, found by collapsing them."""
    labels = [0, *(label for token in tokens for label in (token, 0))]
    paths = []
    # A path never goes back, so these are all that may be one.
    for states in combinations_with_replacement(range(len(labels)), num_frames):
        steps = [b - a for a, b in pairwise(states)]
        written = [label for label, _ in groupby(labels[s] for s in states) if label]
        is_forward = all(0 <= step <= 2 for step in steps)
        visited = [s for s, _ in groupby(states) if s % 2]
        if is_forward and written == tokens and visited == list(range(1, len(labels), 2)):
            paths.append(states)
    return paths


def enumerated(log_probs: Array, tokens: list[int]) -> StatePath:
    """The best of every path; of a tie the one that is furthest on, read from its end."""
    labels = [0, *(label for token in tokens for label in (token, 0))]

    def score(states: tuple[int, ...]) -> float:
        return sum(float(row[labels[state]]) for row, state in zip(log_probs, states, strict=True))

    best = max(every_path(len(log_probs), tokens), key=lambda path: (score(path), path[::-1]))
    return StatePath(np.array(best), score(best))


def test_by_hand(search: Any) -> None:
    # a b over five frames: a at frame 1 and 2, b at the last one; blanks elsewhere.
    probabilities = np.array(
        [
            [0.8, 0.1, 0.1],
            [0.1, 0.8, 0.1],
            [0.3, 0.5, 0.2],
            [0.6, 0.2, 0.2],
            [0.2, 0.1, 0.7],
        ]
    )
    hypothesis = forced_alignment(np.log(probabilities), [1, 2])
    assert hypothesis.tokens == (1, 2)
    assert hypothesis.starts == (1, 4)
    assert hypothesis.ends == (3, 5)
    assert hypothesis.score == pytest.approx(math.log(0.8 * 0.8 * 0.5 * 0.6 * 0.7))
    assert np.exp(hypothesis.log_probs) == pytest.approx([math.sqrt(0.8 * 0.5), 0.7])


def test_equal_neighbours_have_a_blank_between(search: Any) -> None:
    # The blank costs much, and is needed all the same.
    log_probs = np.log(np.array([[0.01, 0.99]] * 4))
    hypothesis = forced_alignment(log_probs, [1, 1])
    assert hypothesis.score == pytest.approx(3 * math.log(0.99) + math.log(0.01))
    (first, second), (end, last) = hypothesis.starts, hypothesis.ends
    assert (first, last, second - end) == (0, 4, 1)
    # Of two such paths the one that is further on when read from the end: a _ a a.
    assert hypothesis.starts == (0, 2)


@pytest.mark.parametrize("num_frames", [0, 1, 4])
def test_no_labels(search: Any, num_frames: int) -> None:
    log_probs = np.log(np.full((num_frames, 2), 0.5))
    hypothesis = forced_alignment(log_probs, [])
    assert (hypothesis.tokens, hypothesis.starts, hypothesis.ends) == ((), (), ())
    assert hypothesis.score == pytest.approx(num_frames * math.log(0.5))


@pytest.mark.parametrize("is_tied", [False, True])
def test_equals_the_best_of_all_paths(search: Any, is_tied: bool) -> None:
    generator = np.random.default_rng(7)
    compared = 0
    while compared < 60:
        log_probs, tokens = random_case(generator, is_tied)
        if not 0 < len(log_probs) <= 6 or len(tokens) > 3:
            continue
        compared += 1
        expected, path = enumerated(log_probs, tokens), search(log_probs, tokens)
        assert path.states.tolist() == expected.states.tolist()
        assert path.score == pytest.approx(expected.score, rel=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("is_tied", [False, True])
@pytest.mark.parametrize("segment", [1, 2, 3, 5, 512])
def test_compiled_equals_readable(
    dtype: Any, is_tied: bool, segment: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alignment, "segment_length", lambda frames, tokens: segment)
    generator = np.random.default_rng(segment)
    for _ in range(150):
        log_probs, tokens = random_case(generator, is_tied)
        log_probs = log_probs.astype(dtype)
        expected, path = plain_best_path(log_probs, tokens), best_path(log_probs, tokens)
        assert path.states.tolist() == expected.states.tolist()
        assert path.score == expected.score


@pytest.mark.parametrize(("num_frames", "num_tokens"), [(700, 0), (300, 299), (1300, 90)])
@pytest.mark.parametrize("segment", [37, 512])
def test_compiled_equals_readable_where_it_is_long(
    num_frames: int, num_tokens: int, segment: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alignment, "segment_length", lambda frames, tokens: segment)
    generator = np.random.default_rng(num_frames)
    tokens = [1 + k % 3 for k in range(num_tokens)]
    log_probs = np.log(generator.dirichlet(np.ones(4), num_frames)).astype(np.float32)
    expected, path = plain_best_path(log_probs, tokens), best_path(log_probs, tokens)
    assert path.states.tolist() == expected.states.tolist()
    assert path.score == expected.score


def test_impossible_labels_are_gone_around(search: Any) -> None:
    log_probs = np.log(np.array([[0.5, 0.5, 0.0], [0.5, 0.0, 0.5], [1.0, 0.0, 0.0]]) + 0.0, where=[
        [True, True, False], [True, False, True], [True, False, False]
    ], out=np.full((3, 3), -np.inf))  # fmt: skip
    assert forced_alignment(log_probs, [1, 2]).starts == (0, 1)
    with pytest.raises(ValueError, match="clip: every path of its labels has probability 0"):
        forced_alignment(log_probs, [2, 1], "clip")


def test_too_few_frames() -> None:
    forced_alignment(np.zeros((4, 3)), [1, 2])
    with pytest.raises(ValueError, match=re.escape(
        "utterance 1: 4 output frames, expected at least 5 for its 4 labels"
    )):  # fmt: skip
        forced_alignment(np.zeros((4, 3)), [1, 2, 2, 1], "utterance 1")


@pytest.mark.parametrize("token", [0, 3, -1])
def test_labels_that_the_model_has_not(token: int) -> None:
    with pytest.raises(ValueError, match=rf"clip: label {token}, expected 1 to 2"):
        forced_alignment(np.zeros((5, 3)), [1, token], "clip")


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.5])
def test_what_is_no_log_probability(value: float) -> None:
    log_probs = np.zeros((5, 3))
    log_probs[2, 1] = value
    with pytest.raises(ValueError, match=rf"clip: a log-probability is {value}, expected at most"):
        forced_alignment(log_probs, [1], "clip")


def test_memory_is_bounded_and_what_exceeds_it_refused() -> None:
    assert segment_length(250, 100) == MIN_SEGMENT  # goes through the frames once
    for num_frames, num_tokens in [(40_000, 30_000), (400_000, 250_000)]:
        segment = segment_length(num_frames, num_tokens)
        scores = 16 * (num_tokens + 1) * (num_frames // segment)
        assert scores + segment**2 < 40 * 2**20 * num_frames / 40_000
    with pytest.raises(ValueError, match=r"1000000 labels on 3000000 frames need \d+ MiB, exp"):
        segment_length(3_000_000, 1_000_000)


def test_what_greedy_reads_lies_on_its_own_path() -> None:
    log_probs = torch.randn(4, 80, 4, generator=torch.Generator().manual_seed(2)).log_softmax(-1)
    lengths = torch.tensor([80, 41, 7, 1])
    for row, length, (greedy,) in zip(
        log_probs, lengths, Greedy()(log_probs, lengths), strict=True
    ):
        found = forced_alignment(row[:length].numpy(), greedy.tokens)
        assert (found.tokens, found.starts, found.ends) == (
            greedy.tokens, greedy.starts, greedy.ends,
        )  # fmt: skip
        assert found.score == pytest.approx(greedy.score, abs=1e-9)
        assert found.log_probs == pytest.approx(greedy.log_probs, abs=1e-9)
