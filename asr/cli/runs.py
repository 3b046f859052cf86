"""asr runs: compare trainings in a table, a CSV file and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from asr.atomic_file import replace_bytes, replace_text
from asr.cli.options import Parser, check_outputs
from asr.cli.terminal import one_line, print_table

if TYPE_CHECKING:
    from asr.report.runs import Run

OUTPUTS = ("runs.csv", "runs.png")


def main(arguments: list[str]) -> int:
    """Compare the trainings below some folders."""
    options = make_parser().parse_args(arguments)
    if options.limit < 1:
        raise ValueError(f"--limit {options.limit}, expected at least 1 line")
    # Imported here: `--help` and a mistake in the call need none of it.
    from rich.console import Console

    from asr.cli.record import CONFIG
    from asr.report.runs import (
        ERROR_TEXT,
        VALIDATIONS,
        group_runs,
        groups_table,
        others_table,
        runs_csv,
    )
    from asr.report.runs_picture import draw_runs
    from asr.report.wording import visible

    runs = [run for folder in find_runs(options.folders) if (run := _read(folder))]
    if not runs:
        raise ValueError(
            f"{', '.join(map(str, options.folders))}: no training below, expected folders of "
            "asr train"
        )
    grouped = group_runs(runs, options.by and options.by.split(","))
    output = options.output or options.folders[0]
    check_outputs(
        [output / name for name in OUTPUTS],
        [Path(run.folder) / name for run in runs for name in (CONFIG, VALIDATIONS, ERROR_TEXT)],
    )
    output.mkdir(parents=True, exist_ok=True)
    replace_text(output / OUTPUTS[0], runs_csv(grouped))
    replace_bytes(output / OUTPUTS[1], draw_runs(grouped))
    if grouped.groups:
        print_table(groups_table(grouped, options.limit))
    console = Console()
    if grouped.others:
        console.print(others_table(grouped))
    for name in OUTPUTS:
        console.print(visible(f"{output / name}"), markup=False, highlight=False, soft_wrap=True)
    return 0


def find_runs(folders: Sequence[Path]) -> list[Path]:
    """List the folders of runs below some folders, each once, sorted.

    Raises:
        FileNotFoundError: a folder that is not there.
    """
    from asr.cli.record import CONFIG

    found: dict[Path, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise FileNotFoundError(2, "no such folder", str(folder))
        for config in folder.rglob(str(CONFIG)):
            run = config.parents[1]
            found.setdefault(run.resolve(), run)  # once, whatever links lead to it
    return sorted(found.values())


def _read(folder: Path) -> Run | None:
    """Read a training, failed if its folder cannot be read; None for a run of another command."""
    from asr.cli.record import CONFIG, flat_settings
    from asr.report.runs import Run, read_run
    from asr.user_yaml import read_yaml

    try:
        config = read_yaml(folder / CONFIG, "the settings of a run")
    except (ValueError, OSError) as error:
        return Run(str(folder), {}, (), f"{CONFIG} cannot be read: {one_line(error)}")
    if not isinstance(config, dict) or "trainer" not in config:
        return None
    settings = flat_settings(config)
    try:
        return read_run(folder, settings)
    except (ValueError, OSError) as error:
        return Run(str(folder), settings, (), one_line(error))


def make_parser() -> Parser:
    """Define the arguments of the command."""
    parser = Parser(
        prog="asr runs",
        description="Compare trainings: the settings that differ, the best dev WER, CER and loss. "
        "Runs that differ in seed and fold alone are one line, with mean and deviation.",
    )
    parser.add_argument("folders", nargs="+", type=Path, help="folders with trainings below")
    parser.add_argument(
        "--output", type=Path, help="where runs.csv and runs.png go; default: the first folder"
    )
    parser.add_argument(
        "--by", metavar="KEY,...", help="settings to group by; default: all that differ"
    )
    parser.add_argument("--limit", type=int, default=30, help="lines of the table; default: 30")
    return parser
