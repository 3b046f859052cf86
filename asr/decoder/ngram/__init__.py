"""N-gram language models: trained, read, written and queried."""

from asr.decoder.ngram.model import END, START, UNKNOWN, NgramModel, advance

__all__ = ["END", "START", "UNKNOWN", "NgramModel", "advance"]
