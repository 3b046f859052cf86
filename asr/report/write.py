"""The files of a report, written whole or not at all."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from asr.report.evaluation import Evaluation
from asr.report.json_file import evaluation_to_json
from asr.report.page import render_page


@dataclass(frozen=True, slots=True)
class ReportPaths:
    """Where a report lies."""

    json: Path
    html: Path


def write_report(evaluation: Evaluation, folder: Path) -> ReportPaths:
    """Writes `evaluation.json` and `report.html`, in place of earlier ones.

    Args:
        evaluation: The scored evaluation.
        folder: Where to; made if it is not there.

    Returns:
        The paths of both files.

    Raises:
        OSError: The folder cannot be made or written to; what was there before stays.
    """
    paths = ReportPaths(json=folder / "evaluation.json", html=folder / "report.html")
    texts = {paths.json: evaluation_to_json(evaluation), paths.html: render_page(evaluation)}
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in texts.items():
        _replace(path, text)
    return paths


def _replace(path: Path, text: str) -> None:
    """A reader sees the old file or the new one, even after a crash, never half of one."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    try:
        # newline="\n": the page's policy holds hashes of its parts, which must stay as they are.
        with temporary.open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
