"""`asr prepare`: a corpus becomes manifests, checked, with a table of what is in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from asr.cli.build import construct
from asr.cli.conf import conf_dir
from asr.cli.hydra_app import run_hydra
from asr.cli.options import check_outputs, listed
from asr.cli.progress import ProgressBar
from asr.data.manifest import MANIFEST_SUFFIXES
from asr.data.prepare import PreparedCorpus
from asr.data.splits import SPLITS
from asr.text import printable

DEFAULT_DATA_DIR = "data"  # of conf/paths/default.yaml


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
    with ProgressBar(console) as bar:
        corpus: PreparedCorpus = construct(config, "corpus", say=bar.say, progress=bar.advance)
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
