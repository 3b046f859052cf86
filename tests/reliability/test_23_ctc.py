"""Check 23: a beam of full width finds the labels of the highest probability there are."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable

import numpy as np
import torch

from asr.decoder import BeamSearch, Hypothesis
from asr.model.ctc import ctc_loss

Labels = tuple[int, ...]
LONGEST, LARGEST = 6, 4  # frames, labels with the blank
CASES = 354
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


def test_the_sum_of_a_labeling_is_minus_its_loss(seed: int) -> None:
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    log_probs = logits.log_softmax(-1)
    for hypothesis in search(log_probs.numpy()):
        loss = ctc_loss(
            log_probs[None],
            torch.tensor([5]),
            torch.tensor([hypothesis.tokens], dtype=torch.int64),
            torch.tensor([len(hypothesis.tokens)]),
        )
        assert abs(hypothesis.score + loss.item()) < 1e-9
