"""The files of a report, written whole or not at all."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from asr.atomic_file import replace_text
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
        replace_text(path, text)
    return paths
