"""Models of any kind by their file: trained ones run by torch, exported ones without it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from asr.onnx_model import load_onnx_model
from asr.speech_model import SpeechModel
from asr.starter_model import EXPORTED


def load_speech_model(path: Path, device: str = "auto") -> tuple[SpeechModel, dict[str, Any]]:
    """Load a model to transcribe with.

    Args:
        path: a model file, or an exported model, whose name ends in .onnx.
        device: "auto", "cpu" or "cuda"; exported models run on the CPU.

    Returns:
        The model, and its training summary.

    Raises:
        ValueError: neither of them, damaged, or no such device.
        OSError: missing or unreadable.
    """
    if path.suffix.lower() == EXPORTED:
        if device not in ("auto", "cpu"):
            raise ValueError(
                f"device {device!r} for {path}, expected cpu: exported models run there"
            )
        return load_onnx_model(path)
    # Imported here: an exported model needs no torch.
    from asr.model_file import load_model
    from asr.recognizer import choose_device

    return load_model(path, choose_device(device))
