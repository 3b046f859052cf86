"""asr runs: trainings beside each other, as a table, a CSV file and a picture."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from rich.measure import Measurement
from yaml import YAMLError  # type: ignore[import-untyped]

from asr.atomic_file import replace_bytes, replace_text
from asr.report.runs import Run, Setting, compare, read_run
from asr.report.runs_picture import draw_runs
from asr.report.runs_table import groups_table, others_table, runs_csv
from asr.report.visible import visible

CONFIG = Path(".hydra") / "config.yaml"
# Where a run lies and how it was begun, not what it trains.
NOT_COMPARED = ("name", "resume", "overwrite", "paths.")
REFERENCE = re.compile(r"\$\{[\w.]+\}")  # another key's value, which is listed there


def main(arguments: list[str]) -> int:
    """Compare the trainings below some folders."""
    options = _parser().parse_args(arguments)
    runs = [run for folder in find_runs(options.folders) if (run := _read(folder))]
    if not runs:
        raise ValueError(
            f"{', '.join(map(str, options.folders))}: no training below, expected folders of "
            "asr train"
        )
    comparison = compare(runs, options.by and options.by.split(","))
    output = options.output or options.folders[0]
    output.mkdir(parents=True, exist_ok=True)
    replace_text(output / "runs.csv", runs_csv(comparison))
    replace_bytes(output / "runs.png", draw_runs(comparison))
    console = Console()
    if comparison.groups:
        table = groups_table(comparison, options.limit)
        # Cells that are cut say nothing: a line that is too long is for the terminal to wrap.
        needed = Measurement.get(console, console.options.update(width=10_000), table).maximum
        Console(width=max(needed, console.width)).print(table)
    if comparison.others:
        console.print(others_table(comparison))
    for name in ("runs.csv", "runs.png"):
        console.print(visible(f"{output / name}"), markup=False, highlight=False, soft_wrap=True)
    return 0


def find_runs(folders: Sequence[Path]) -> list[Path]:
    """The folders of runs below some folders, each once, sorted.

    Raises:
        FileNotFoundError: a folder that is not there.
    """
    found: dict[Path, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise FileNotFoundError(2, "no such folder", str(folder))
        for config in folder.rglob(str(CONFIG)):
            run = config.parents[1]
            found.setdefault(run.resolve(), run)
    return sorted(found.values())


def flat_settings(config: DictConfig) -> dict[str, Setting]:
    """The settings of a training as dotted keys and plain values, without what is written twice.

    The class that a section builds is the value of the section itself: optim is AdamW.
    """
    return {
        key: value
        for key, value in _leaves(config, "")
        if not key.startswith(NOT_COMPARED) and key not in NOT_COMPARED
    }


def _leaves(config: DictConfig, prefix: str) -> Iterator[tuple[str, Setting]]:
    raw = OmegaConf.to_container(config, resolve=False)
    assert isinstance(raw, dict)
    for name, value in raw.items():
        key = f"{prefix}{name!s}"
        if name == "_target_":
            yield prefix.rstrip("."), str(value).rsplit(".", 1)[-1]
        elif isinstance(value, dict):
            yield from _leaves(config[name], f"{key}.")
        elif not (isinstance(value, str) and REFERENCE.fullmatch(value)):
            yield key, _plain(config, name, value)


def _plain(config: DictConfig, name: Any, raw: Any) -> Setting:
    """A value with its references followed, where that is possible outside its own program."""
    try:
        value = config[name]
    except OmegaConfBaseException:
        return str(raw)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    items: Any = OmegaConf.to_container(value, resolve=True)
    return ", ".join(map(str, items))


def _read(folder: Path) -> Run | None:
    """A training, failed if its config cannot be read; None for a run of another command."""
    try:
        config = OmegaConf.load(folder / CONFIG)
    except (YAMLError, OSError, UnicodeDecodeError) as error:
        return Run(str(folder), {}, (), f"{CONFIG} cannot be read: {type(error).__name__}")
    if not isinstance(config, DictConfig) or "trainer" not in config:
        return None
    return read_run(folder, flat_settings(config))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
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
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser
