"""Check 23: the CTC loss of every labeling, and a beam of full width, against all paths."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable

import numpy as np
import pytest
import torch

from asr.decoder import BeamSearch, Hypothesis
from asr.model.ctc import ctc_loss

Labels = tuple[int, ...]
LONGEST, LARGEST, MOST_LABELS = 6, 4, 3  # frames, labels with the blank, labels of a text
CASES = 354  # texts there are within these sizes; as many searches
FULL = BeamSearch(
    5000, 5000, min_token_log_prob=-math.inf, max_tokens=LARGEST, beam_threshold=math.inf,
    skip_blank=1.0,
)  # fmt: skip


def enumerated(log_probs: np.ndarray) -> dict[Labels, float]:
    """Log-probability of every labeling, summed over all paths that collapse to it."""
    frames, vocab = log_probs.shape
    paths: dict[Labels, list[float]] = defaultdict(list)
    for path in itertools.product(range(vocab), repeat=frames):
        labels = tuple(label for label, _ in itertools.groupby(path) if label)
        score = math.fsum(log_probs[frame, label] for frame, label in enumerate(path))
        paths[labels].append(math.exp(score))
    return {labels: math.log(math.fsum(each)) for labels, each in paths.items()}


def search(log_probs: np.ndarray) -> list[Hypothesis]:
    return FULL(torch.from_numpy(log_probs)[None], torch.tensor([len(log_probs)]))[0]


def agree(found: list[Hypothesis], expected: dict[Labels, float]) -> bool:
    """The best labels are the enumerated argmax, and all others have their probability too."""
    scores = {hypothesis.tokens: hypothesis.score for hypothesis in found}
    return (
        len(scores) == len(found) == len(expected)
        and found[0].tokens == max(expected, key=expected.__getitem__)
        and all(abs(scores[labels] - score) < 1e-9 for labels, score in expected.items())
    )


def test_a_beam_of_full_width_is_the_enumerated_argmax(
    survived: Callable[[str, int, int], None], seed: int
) -> None:
    generator = np.random.default_rng(seed)
    sizes = itertools.cycle(itertools.product(range(1, LONGEST + 1), range(2, LARGEST + 1)))
    right = 0
    for frames, vocab in itertools.islice(sizes, CASES):
        logits = 2 * generator.standard_normal((frames, vocab))
        log_probs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        right += agree(search(log_probs), enumerated(log_probs))
    survived("full-width beam", right, CASES)


@pytest.mark.parametrize("gradient", ["torch", "ordered"])
def test_the_loss_is_that_of_all_paths(
    survived: Callable[[str, int, int], None],
    seed: int,
    gradient: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("asr.model.ctc.repeats_itself", lambda device: gradient == "torch")
    generator = np.random.default_rng(seed)
    right = tried = 0
    for frames, vocab in itertools.product(range(1, LONGEST + 1), range(2, LARGEST + 1)):
        logits = torch.from_numpy(2 * generator.standard_normal((frames, vocab)))
        log_probs = logits.requires_grad_().log_softmax(-1)
        expected = enumerated(log_probs.detach().numpy())
        for length in range(MOST_LABELS + 1):
            for labels in itertools.product(range(1, vocab), repeat=length):
                found = loss_of(log_probs, labels).item()
                tried += 1
                right += (
                    abs(found + expected[labels]) < 1e-9
                    if labels in expected
                    else found == math.inf
                )
    assert tried == CASES
    survived(f"CTC loss, {gradient}", right, tried)


def loss_of(log_probs: torch.Tensor, labels: Labels) -> torch.Tensor:
    return ctc_loss(
        log_probs[None],
        torch.tensor([len(log_probs)]),
        torch.tensor([labels], dtype=torch.int64),
        torch.tensor([len(labels)]),
    )[0]
