"""Log-probabilities to hypotheses."""

from typing import TYPE_CHECKING, Any

from asr.decoder.greedy import Greedy, Hypothesis

if TYPE_CHECKING:
    from asr.decoder.beam_search import BeamSearch

__all__ = ["BeamSearch", "Greedy", "Hypothesis"]


def __getattr__(name: str) -> Any:
    """Import a beam search when it is asked for: greedy decoding need not wait for Numba."""
    if name == "BeamSearch":
        from asr.decoder.beam_search import BeamSearch

        return BeamSearch
    raise AttributeError(f"module 'asr.decoder' has no attribute {name!r}")
