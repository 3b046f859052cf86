"""Reports of a scored evaluation: a page to read, JSON for programs, tables for the terminal."""

from asr.report.evaluation import EvaluatedUtterance, Evaluation, HeardWord, ModelDescription
from asr.report.json_file import read_evaluation
from asr.report.terminal import speaker_table, summary, worst_utterances
from asr.report.write import ReportPaths, write_report

__all__ = [
    "EvaluatedUtterance",
    "Evaluation",
    "HeardWord",
    "ModelDescription",
    "ReportPaths",
    "read_evaluation",
    "speaker_table",
    "summary",
    "worst_utterances",
    "write_report",
]
