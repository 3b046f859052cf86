"""What every decoder returns."""

from __future__ import annotations

from dataclasses import dataclass

BLANK = 0


@dataclass(frozen=True)
class Hypothesis:
    """One reading of an utterance.

    Attributes:
        tokens: label ids.
        starts: first output frame of each token on its best alignment.
        ends: frame after the last one of each token.
        log_probs: mean log-probability of each token over its frames [nats].
        score: what the decoder ranks by [nats]: of greedy the log-probability of the best path, of
            a beam search that of the tokens, all paths summed, and what a language model and
            hotwords add.
    """

    tokens: tuple[int, ...]
    starts: tuple[int, ...]
    ends: tuple[int, ...]
    log_probs: tuple[float, ...]
    score: float
