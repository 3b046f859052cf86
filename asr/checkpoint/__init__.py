"""Model files: saved, loaded, started from and averaged."""

from asr.checkpoint.average import average_models
from asr.checkpoint.model_file import (
    FEATURES,
    FORMAT_VERSION,
    MODELS,
    ModelSpec,
    Part,
    Recognizer,
    load_model,
    save_model,
)
from asr.checkpoint.transfer import Transfer, origin_of, transfer_model

__all__ = [
    "FEATURES",
    "FORMAT_VERSION",
    "MODELS",
    "ModelSpec",
    "Part",
    "Recognizer",
    "Transfer",
    "average_models",
    "load_model",
    "origin_of",
    "save_model",
    "transfer_model",
]
