"""A calibration of confidences as a small JSON file beside its model and decoder."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from asr.atomic_file import replace_text
from asr.metrics.calibration import Calibration

FORMAT = "asr calibration"
VERSION = 1


def write_calibration(path: Path, calibration: Calibration) -> None:
    """Writes a calibration, in place of an earlier one; its folder is made where it is missing."""
    content = {"format": FORMAT, "version": VERSION, **asdict(calibration)}
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, json.dumps(content, indent=1) + "\n")


def read_calibration(path: Path) -> Calibration:
    """Reads what `write_calibration` wrote.

    Raises:
        ValueError: It is no such file.
        OSError: Missing or unreadable.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        kind = (content.get("format"), content.get("version")) if isinstance(content, dict) else ()
        if kind != (FORMAT, VERSION):
            raise ValueError(f"format and version are {kind}, expected {(FORMAT, VERSION)}")
        numbers = [content.get(name) for name in ("slope", "offset")]
        if not all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers):
            raise ValueError(f"slope and offset are {numbers}, expected numbers")
        return Calibration(*map(float, numbers))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
