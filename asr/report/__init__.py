"""Reports of a scored evaluation: a page to read, JSON for programs, tables for the terminal."""

from asr.report.calibration_file import read_calibration, write_calibration
from asr.report.comparison import Comparison, compare_evaluations
from asr.report.evaluation import (
    EvaluatedUtterance,
    Evaluation,
    HeardWord,
    ModelDescription,
    word_outcomes,
)
from asr.report.json_file import read_evaluation
from asr.report.terminal import confusion_table, slice_table, summary, worst_utterances
from asr.report.write import ReportPaths, write_report

__all__ = [
    "Comparison",
    "EvaluatedUtterance",
    "Evaluation",
    "HeardWord",
    "ModelDescription",
    "ReportPaths",
    "compare_evaluations",
    "confusion_table",
    "read_calibration",
    "read_evaluation",
    "slice_table",
    "summary",
    "word_outcomes",
    "worst_utterances",
    "write_calibration",
    "write_report",
]
