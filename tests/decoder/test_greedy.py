"""Greedy decoding of log-probabilities made by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from asr.decoder import Greedy, Hypothesis

VOCAB = 4


def path_to_log_probs(path: list[int], probabilities: list[float] | None = None) -> Tensor:
    """`(T, V)` whose best label in frame t is path[t], with the given probability."""
    shares = probabilities or [0.7] * len(path)
    log_probs = torch.empty(len(path), VOCAB, dtype=torch.float64)
    for frame, (label, share) in enumerate(zip(path, shares, strict=True)):
        log_probs[frame] = math.log((1 - share) / (VOCAB - 1))
        log_probs[frame, label] = math.log(share)
    return log_probs


def decode(path: list[int], probabilities: list[float] | None = None) -> Hypothesis:
    log_probs = path_to_log_probs(path, probabilities)
    ((hypothesis,),) = Greedy()(log_probs[None], torch.tensor([len(path)]))
    return hypothesis


@pytest.mark.parametrize(
    ("path", "tokens", "starts", "ends"),
    [
        ([1, 2, 3], (1, 2, 3), (0, 1, 2), (1, 2, 3)),
        ([1, 1, 1], (1,), (0,), (3,)),
        ([1, 0, 1], (1, 1), (0, 2), (1, 3)),
        ([0, 0, 0], (), (), ()),
        ([0, 2, 2, 0, 0, 2, 1, 1, 0], (2, 2, 1), (1, 5, 6), (3, 6, 8)),
        ([3], (3,), (0,), (1,)),
    ],
)
def test_paths_by_hand(
    path: list[int], tokens: tuple[int, ...], starts: tuple[int, ...], ends: tuple[int, ...]
) -> None:
    hypothesis = decode(path)
    assert hypothesis.tokens == tokens
    assert hypothesis.starts == starts
    assert hypothesis.ends == ends


def test_log_probs_are_means_over_a_tokens_frames_and_the_score_is_the_paths() -> None:
    hypothesis = decode([1, 1, 0, 2], [0.5, 0.8, 0.9, 0.6])
    one, other = hypothesis.log_probs
    assert one == pytest.approx((math.log(0.5) + math.log(0.8)) / 2)
    assert other == pytest.approx(math.log(0.6))
    assert hypothesis.score == pytest.approx(math.log(0.5 * 0.8 * 0.9 * 0.6))


def test_frames_beyond_a_length_do_not_count() -> None:
    rows = [
        path_to_log_probs([1, 1, 2]),
        path_to_log_probs([3, 3, 3]),
        path_to_log_probs([1, 1, 1]),
    ]
    decoded = Greedy()(torch.stack(rows), torch.tensor([3, 2, 0]))
    assert [best[0].tokens for best in decoded] == [(1, 2), (3,), ()]
    assert decoded[1][0].ends == (2,)
    assert decoded[1][0].score == pytest.approx(2 * math.log(0.7))
    assert decoded[2][0] == Hypothesis((), (), (), (), 0.0)
    assert [len(best) for best in decoded] == [1, 1, 1]


def test_junk_beyond_a_length_changes_nothing() -> None:
    clean = path_to_log_probs([0, 1, 2])[None]
    dirty = clean.clone()
    dirty[0, 2] = float("nan")
    lengths = torch.tensor([2])
    assert Greedy()(dirty, lengths) == Greedy()(clean, lengths)
