"""A speech recogniser that people train, own and understand."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asr.aligner import Aligner, Alignment
    from asr.audio import load_audio
    from asr.model import LSTM, BiLstmCtc
    from asr.model_file import load_model
    from asr.transcriber import Transcriber
    from asr.transcript import Segment, Transcript
    from asr.word import Word

__version__ = "0.1.0"

__all__ = [
    "LSTM",
    "Aligner",
    "Alignment",
    "BiLstmCtc",
    "Segment",
    "Transcriber",
    "Transcript",
    "Word",
    "load_audio",
    "load_model",
]

_HOMES = {
    "LSTM": "asr.model",
    "Aligner": "asr.aligner",
    "Alignment": "asr.aligner",
    "BiLstmCtc": "asr.model",
    "Segment": "asr.transcript",
    "Transcriber": "asr.transcriber",
    "Transcript": "asr.transcript",
    "Word": "asr.word",
    "load_audio": "asr.audio",
    "load_model": "asr.model_file",
}


def __getattr__(name: str) -> Any:
    """Import public names when they are used: `asr --help` must not wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'asr' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return sorted({*globals(), *__all__})
