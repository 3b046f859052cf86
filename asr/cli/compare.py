"""asr compare: tell whether one evaluation is better than another, or whether it is chance."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

from asr.atomic_file import replace_text
from asr.cli.options import Parser, check_outputs
from asr.cli.terminal import print_table

EVALUATION = "evaluation.json"
REPORT = "report.html"  # beside it


def main(arguments: list[str]) -> int:
    """Compare evaluations of the same utterances.

    Raises:
        ValueError: fewer than two, or evaluations of other utterances or references.
        OSError: one that cannot be read, or an output that cannot be written.
    """
    options = make_parser().parse_args(arguments)
    # Imported here: `--help` and a mistake in the call need none of it.
    from rich.console import Console

    from asr.report.comparison import compare_evaluations, comparison_to_json
    from asr.report.evaluation_file import read_evaluation
    from asr.report.terminal import comparison_notes, comparison_table, settings_table
    from asr.report.wording import visible

    folders = [folder for path in options.evaluations for folder in find_evaluations(path)]
    read = [_file(folder) for folder in folders]
    check_outputs([options.output, options.html], [*read, *(f.with_name(REPORT) for f in read)])
    comparison = compare_evaluations(
        [(str(path), read_evaluation(_file(path))) for path in folders]
    )
    written = []
    if options.output is not None:
        written.append((options.output, comparison_to_json(comparison)))
    if options.html is not None:
        from asr.report.html import render_comparison

        pages = []  # each evaluation's own page as a link; None where there is none
        for file in read:
            page = file.with_name(REPORT).resolve()
            link = quote(os.path.relpath(page, options.html.resolve().parent))
            pages.append(link if page.is_file() else None)
        written.append((options.html, render_comparison(comparison, pages)))
    for path, text in written:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_text(path, text)
    print_table(comparison_table(comparison))
    console = Console()
    console.print(comparison_notes(comparison))
    differing = settings_table(comparison)
    if differing is not None:
        console.print(differing)
    for path, _ in written:
        console.print(visible(str(path)), markup=False, highlight=False, soft_wrap=True)
    return 0


def find_evaluations(path: Path) -> list[Path]:
    """List the folder or file of an evaluation itself, or the jobs of a multirun in order."""
    if not path.is_dir() or _file(path).exists():
        return [path]
    # By number: 10 comes after 9.
    jobs = [file.parent for file in path.glob(f"*/{EVALUATION}") if file.parent.name.isdecimal()]
    return sorted(jobs, key=lambda job: int(job.name)) or [path]


def _file(path: Path) -> Path:
    return path / EVALUATION if path.is_dir() else path


def make_parser() -> Parser:
    """Define the arguments of the command."""
    parser = Parser(
        prog="asr compare",
        description="Hold evaluations of the same utterances against the first one: WER with 95 % "
        "interval, difference, matched-pair test, probability of improvement.",
    )
    parser.add_argument(
        "evaluations", nargs="+", type=Path, metavar="EVALUATION",
        help=f"two or more: folders of asr evaluate, of its multiruns, or {EVALUATION} files",
    )  # fmt: skip
    parser.add_argument("--output", type=Path, help="JSON file to write the comparison to")
    parser.add_argument("--html", type=Path, help="page to write the comparison to")
    return parser
