"""Log-probabilities to hypotheses."""

from asr.decoder.greedy import Greedy, Hypothesis

__all__ = ["Greedy", "Hypothesis"]
