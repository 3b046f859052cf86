"""N-gram language models: trained, read, written and queried."""

from asr.decoder.ngram.files import load_ngram_model, save_ngram_model
from asr.decoder.ngram.model import END, START, UNKNOWN, NgramModel, advance

__all__ = [
    "END",
    "START",
    "UNKNOWN",
    "NgramModel",
    "advance",
    "load_ngram_model",
    "save_ngram_model",
]
