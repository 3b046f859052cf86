"""The files of a report, written whole or not at all."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from asr.atomic_file import replace_text
from asr.report.clip import Clips
from asr.report.evaluation import Evaluation
from asr.report.json_file import evaluation_to_json
from asr.report.page import render_page
from asr.report.sclite import (
    has_times,
    hypothesis_ctm,
    hypothesis_trn,
    reference_stm,
    reference_trn,
)

# All that a report may consist of.
FILES = ("evaluation.json", "report.html", "ref.trn", "hyp.trn", "ref.stm", "hyp.ctm")


@dataclass(frozen=True, slots=True)
class ReportPaths:
    """Where a report lies.

    Attributes:
        json: All of it, for programs.
        html: The page.
        sclite: Texts as NIST's sclite scores them.
    """

    json: Path
    html: Path
    sclite: tuple[Path, ...]


def write_report(evaluation: Evaluation, folder: Path, clips: Clips | None = None) -> ReportPaths:
    """Writes `evaluation.json`, `report.html` and files for sclite, in place of earlier ones.

    `ref.trn` and `hyp.trn` are always written, `ref.stm` and `hyp.ctm` where every hypothesis has
    the times of its words.

    Args:
        evaluation: The scored evaluation.
        folder: Where to; made if it is not there.
        clips: Utterances to hear and see in the page; None for none.

    Returns:
        The paths of all files.

    Raises:
        OSError: The folder cannot be made or written to; what was there before stays.
    """
    json, html = folder / "evaluation.json", folder / "report.html"
    sclite = {folder / name: text for name, text in _sclite_files(evaluation).items()}
    texts = {json: evaluation_to_json(evaluation), html: render_page(evaluation, clips)} | sclite
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in texts.items():
        replace_text(path, text)
    return ReportPaths(json, html, tuple(sclite))


def _sclite_files(evaluation: Evaluation) -> dict[str, str]:
    utterances = evaluation.utterances
    files = {"ref.trn": reference_trn(utterances), "hyp.trn": hypothesis_trn(utterances)}
    if has_times(utterances):
        files |= {"ref.stm": reference_stm(utterances), "hyp.ctm": hypothesis_ctm(utterances)}
    return files
