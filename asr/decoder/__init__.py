"""Log-probabilities to hypotheses."""

from asr.decoder.beam_search import BeamSearch
from asr.decoder.greedy import Greedy
from asr.decoder.hypothesis import Hypothesis

__all__ = ["BeamSearch", "Greedy", "Hypothesis"]
