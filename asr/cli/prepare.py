"""`asr prepare`: a corpus becomes manifests, checked, with a table of what is in them."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Iterator
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from asr.cli.conf import conf_dir
from asr.cli.construct import construct
from asr.cli.hydra_app import run_hydra
from asr.cli.outputs import check_outputs, listed
from asr.data.corpora.prepared import SPLITS, PreparedCorpus
from asr.data.manifest import MANIFEST_SUFFIXES
from asr.text import printable

DEFAULT_DATA_DIR = "data"  # of conf/paths/default.yaml
PLAIN_INTERVAL_S = 10.0  # [s] between the lines of a long step in a log


def main(arguments: list[str]) -> int:
    """Run `asr prepare`.

    Args:
        arguments: Hydra's overrides and flags: `corpus=fsdd`.

    Returns:
        0 when the corpus is ready.

    Raises:
        ValueError: for a wrong setting, or a corpus with something bad in it.
        OSError: for files that cannot be read or written.
    """
    return run_hydra("prepare", _prepare, arguments)


def _prepare(config: DictConfig) -> None:
    console = Console(highlight=False)
    folder = Path(str(config.paths.data_dir)) / str(config.corpus.get("name"))
    check_outputs((folder / f"{split}.jsonl" for split in SPLITS), _manifests(config.corpus))
    with _Report(console) as report:
        corpus: PreparedCorpus = construct(config, "corpus", progress=report)
    _show(console, corpus)
    console.print(
        f"next: {next_command(corpus, config.paths.data_dir)}", markup=False, soft_wrap=True
    )


def _manifests(corpus: DictConfig) -> Iterator[str]:
    """The manifests that a corpus is made of, as far as its settings name files."""
    for split in SPLITS:
        yield from listed(corpus.get(split))
        if corpus.get("source"):
            yield from (str(Path(str(corpus.source)) / f"{split}{s}") for s in MANIFEST_SUFFIXES)


def _show(console: Console, corpus: PreparedCorpus) -> None:
    console.print(printable(f"{corpus.name}: {corpus.folder}"), markup=False, soft_wrap=True)
    table = Table()
    table.add_column("split")
    for heading in ("utterances", "duration", "speakers", "characters a second"):
        table.add_column(heading, justify="right")
    for split in corpus.splits:
        slowest, fastest = split.characters_per_second
        table.add_row(
            split.name,
            f"{split.utterances:,}",
            _duration(split.seconds),
            str(split.speakers) if split.speakers else "not named",
            f"{slowest:.1f} to {fastest:.1f}",
        )
    console.print(table)
    lines = [f"alphabet: {len(corpus.alphabet)} characters, {corpus.alphabet!r}"]
    for line in lines + [f"note: {note}" for note in corpus.notes]:
        console.print(printable(line), markup=False, soft_wrap=True)


def _duration(seconds: float) -> str:
    minutes = seconds / 60
    return f"{minutes:.1f} min" if minutes < 120 else f"{minutes / 60:,.1f} h"


def next_command(corpus: PreparedCorpus, data_dir: str) -> str:
    """What to type to train on a corpus: its experiment where there is one of its name.

    Args:
        corpus: what was prepared.
        data_dir: the setting paths.data_dir.

    Returns:
        A command line for a shell.
    """
    if (conf_dir() / "experiment" / f"{corpus.name}.yaml").is_file():
        overrides = [f"experiment={corpus.name}"]
        if data_dir != DEFAULT_DATA_DIR:
            overrides.append(f"paths.data_dir={_value(data_dir)}")
        return " ".join(["asr train", *overrides])
    manifests = {split.name: _value(_relative(split.manifest)) for split in corpus.splits}
    dev = manifests.get("dev", "DEV_MANIFEST")
    return f"asr train data.train={manifests['train']} data.dev={dev}"


def _relative(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _value(text: str) -> str:
    """A value as Hydra's grammar and a shell both take it."""
    if re.fullmatch(r"[\w./-]+", text):
        return text
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return shlex.quote(f"'{escaped}'")


class _Report:
    """Steps as lines, and the long ones as a bar on a terminal or a line now and then in a log."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[amount]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._told = time.monotonic()

    def __enter__(self) -> _Report:
        self._bar.start()
        return self

    def __exit__(self, *details: object) -> None:
        self._bar.stop()

    def say(self, line: str) -> None:
        """Print a line, above the bar where there is one."""
        self._console.print(printable(line), markup=False, soft_wrap=True)

    def advance(self, step: str, done: int, total: int, unit: str) -> None:
        """Move the bar, or say how far it is when nothing was said for a while."""
        amount = f"{done:,} of {total:,} {unit}"
        if self._console.is_terminal:
            if step not in self._tasks:
                self._tasks[step] = self._bar.add_task(step, amount=amount)
            task = self._tasks[step]
            self._bar.update(task, completed=done, total=total, amount=amount, visible=done < total)
        elif time.monotonic() - self._told > PLAIN_INTERVAL_S:
            self._told = time.monotonic()
            self.say(f"{step}: {amount}")
