"""asr prepare: a corpus to manifests, checked, with a table of what is in them."""

from __future__ import annotations

import shlex
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from asr.cli.build import construct
from asr.cli.conf import conf_dir
from asr.cli.hydra_app import override, run_hydra
from asr.cli.options import check_outputs, files_of
from asr.cli.terminal import ProgressBar
from asr.data.corpus_record import SPLITS
from asr.data.manifest import MANIFEST_SUFFIXES
from asr.data.prepare import PreparedCorpus
from asr.text import printable

DEFAULT_DATA_DIR = "data"  # of conf/paths/default.yaml


def main(arguments: list[str]) -> int:
    """Run `asr prepare`; see conf/prepare.yaml for its settings."""
    return run_hydra("prepare", _job, arguments)


def _job(config: DictConfig) -> None:
    settings, data_dir = config.corpus, str(config.paths.data_dir)
    manifests = []  # that the corpus is made of, as far as its settings name files
    for split in SPLITS:
        manifests += files_of(settings.get(split))
        if settings.get("source"):
            source = Path(str(settings.source))
            manifests += [str(source / f"{split}{suffix}") for suffix in MANIFEST_SUFFIXES]
    folder = Path(data_dir) / str(settings.get("name"))
    check_outputs((folder / f"{split}.jsonl" for split in SPLITS), manifests)
    console = Console(highlight=False)
    with ProgressBar(console) as bar:
        corpus: PreparedCorpus = construct(config, "corpus", say=bar.say, progress=bar.advance)
    _show(console, corpus)
    console.print(f"next: {next_command(corpus, data_dir)}", markup=False, soft_wrap=True)


def _show(console: Console, corpus: PreparedCorpus) -> None:
    console.print(printable(f"{corpus.name}: {corpus.folder}"), markup=False, soft_wrap=True)
    table = Table()
    table.add_column("split")
    for heading in ("utterances", "duration", "speakers", "characters a second"):
        table.add_column(heading, justify="right")
    for split in corpus.splits:
        slowest, fastest = split.characters_per_second
        minutes = split.seconds / 60
        duration = f"{minutes:.1f} min" if minutes < 120 else f"{minutes / 60:,.1f} h"
        table.add_row(
            split.name,
            f"{split.utterances:,}",
            duration,
            str(split.speakers) if split.speakers else "not named",
            f"{slowest:.1f} to {fastest:.1f}",
        )
    console.print(table)
    lines = [f"alphabet: {len(corpus.alphabet)} characters, {corpus.alphabet!r}"]
    for line in lines + [f"note: {note}" for note in corpus.notes]:
        console.print(printable(line), markup=False, soft_wrap=True)


def next_command(corpus: PreparedCorpus, data_dir: str) -> str:
    """Write what to type to train on a corpus: its experiment where there is one of its name.

    Args:
        corpus: what was prepared.
        data_dir: the setting paths.data_dir.

    Returns:
        A command line for a shell.
    """
    if (conf_dir() / "experiment" / f"{corpus.name}.yaml").is_file():
        overrides = [f"experiment={corpus.name}"]
        if data_dir != DEFAULT_DATA_DIR:
            overrides.append(_override("paths.data_dir", data_dir))
        return " ".join(["asr train", *overrides])
    manifests = {"dev": "data.dev=DEV_MANIFEST"}
    for split in corpus.splits:
        path, here = split.manifest, Path.cwd()
        shown = path.relative_to(here) if path.is_relative_to(here) else path
        manifests[split.name] = _override(f"data.{split.name}", str(shown))
    return f"asr train {manifests['train']} {manifests['dev']}"


def _override(key: str, value: str) -> str:
    """Write an override as Hydra's grammar and a shell both take it."""
    return shlex.quote(override(key, value))
