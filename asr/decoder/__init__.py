"""Log-probabilities to hypotheses."""

from asr.decoder.beam_search import BeamSearch
from asr.decoder.greedy import Greedy, Hypothesis
from asr.decoder.lexicon import LexiconBeamSearch

__all__ = ["BeamSearch", "Greedy", "Hypothesis", "LexiconBeamSearch"]
