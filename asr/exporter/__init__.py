"""A trained model as one ONNX graph: samples in, log-probabilities out."""

from asr.exporter.check import TOLERANCES, compare, made_sound
from asr.exporter.exporter import exported
from asr.exporter.graph import Precision

__all__ = ["TOLERANCES", "Precision", "compare", "exported", "made_sound"]
