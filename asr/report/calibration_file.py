"""A calibration of confidences as a small JSON file beside its model and decoder."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from asr.atomic_file import replace_text
from asr.metrics.calibration import Calibration
from asr.report.json_file import read_versioned
from asr.untrusted import record

FORMAT = "asr calibration"
VERSION = 1
MAX_BYTES = 1 << 16


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
    return record(Calibration, read_versioned(path, FORMAT, VERSION, MAX_BYTES), path)
