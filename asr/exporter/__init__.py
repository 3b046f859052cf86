"""A trained model as one ONNX graph: samples in, log-probabilities out."""

from asr.exporter.check import TOLERANCES, compare, made_sound
from asr.exporter.exporter import exported

__all__ = ["TOLERANCES", "compare", "exported", "made_sound"]
