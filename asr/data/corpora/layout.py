"""A corpus in a layout that others have made known, as one more importer reads it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Protocol, TypeVar

from asr.audio import AUDIO_SUFFIXES, find_audio
from asr.data.corpus_folder import STATE_DIR, Advance, Conversion, Say, corpus_folder
from asr.data.corpus_record import MAX_RECORD_BYTES, RECORD_FILE
from asr.data.draw import Draw, draw_splits
from asr.data.manifest import Entry, Row, findings, utterances
from asr.data.prepare import PreparedCorpus, Settings, prepare_corpus, silent
from asr.data.records import BadLineError, Record, read_lines
from asr.text import TextNormalizer
from asr.untrusted import read_json, shown

T = TypeVar("T")

# What others call train, dev and test; longer names are theirs too: train-clean-100, test_other.
SPLIT_NAMES = {
    "train": "train", "training": "train", "dev": "dev", "valid": "dev", "validation": "dev",
    "val": "dev", "test": "test", "eval": "test",
}  # fmt: skip
# By which a layout is known, those with more of them first.
MARKS = {
    "kaldi": ("wav.scp", "*/wav.scp"),
    "common_voice": ("validated.tsv", "clips/*", "*/validated.tsv"),
    "ljspeech": ("wavs/*",),
    "huggingface": ("metadata.jsonl", "metadata.csv", "*/metadata.jsonl", "*/metadata.csv"),
    "librispeech": ("*/*/*.trans.txt", "*/*/*/*.trans.txt"),
    "lhotse": ("*cuts*.jsonl*", "*supervisions*.jsonl*"),
    "folder": ("*.txt", "*/*.txt", "*.lab", "*/*.lab"),
}
_SPLIT = re.compile(rf"({'|'.join(sorted(SPLIT_NAMES, key=len, reverse=True))})(?![A-Za-z])", re.I)


@dataclass(frozen=True)
class Content:
    """What a layout's files say.

    Attributes:
        splits: rows by the name of the split; all under "train" where the layout has none.
        notes: what the user should know, one sentence each.
        are_parts: the layout cuts recordings, so that a duration is that of a part.
    """

    splits: Mapping[str, Sequence[Row]]
    notes: tuple[str, ...] = ()
    are_parts: bool = False


class Layout(Protocol):
    """Where a format keeps recordings, texts, speakers and splits."""

    def read(self, source: Path) -> Content:
        """Read all but the audio.

        Raises:
            ValueError: a folder that is not laid out so.
            OSError: missing or unreadable.
        """


def split_of(name: str) -> str | None:
    """The split that a folder's or a file's name is of, if it is one's."""
    found = _SPLIT.match(name)
    return SPLIT_NAMES[found[1].lower()] if found else None


def layout_of(folder: Path) -> str | None:
    """The layout that a folder has the marks of, as `corpus=` names it; None for none of them."""
    for name, patterns in MARKS.items():
        if any(next(folder.glob(pattern), None) is not None for pattern in patterns):
            return name
    return None


def inner(name: str) -> str:
    """A path below a corpus's folder, as its tables write it, with this machine's separators.

    Raises:
        BadLineError: it leads out of the folder.
    """
    path = PurePosixPath(name.strip().replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts:
        raise BadLineError(f"{shown(name)} leads out of the corpus, expected a path inside")
    return str(path)


def entries(
    path: Path, items: Iterable[tuple[int, T | BadLineError]], record_of: Callable[[T], Record]
) -> Iterator[Entry]:
    """Make an entry of each line of a file.

    Args:
        path: of the file.
        items: line number, and what stands there or why that cannot be read.
        record_of: makes a manifest's record of it, or raises BadLineError.
    """
    for line, item in items:
        try:
            if isinstance(item, BadLineError):
                raise item
            yield path, line, record_of(item)
        except BadLineError as error:
            yield path, line, error


def filled_lines(path: Path, expected: str) -> Iterator[tuple[int, str | BadLineError]]:
    """Read the lines of a text as `read_lines` does, without the empty ones."""
    for number, line in read_lines(path, expected):
        if isinstance(line, BadLineError) or line.strip():
            yield number, line


def find_recordings(source: Path) -> tuple[list[Path], list[Path]]:
    """Find the recordings and other files of a folder, as `find_audio` does.

    Corpora that were prepared below the source, of this one perhaps, are none of it.
    """
    audio, others = find_audio(source)
    folders = {folder for path in (*audio, *others) for folder in path.parents}
    inside = (folder for folder in folders if source in folder.parents)
    prepared = {folder for folder in inside if (folder / STATE_DIR).is_dir()}
    if not prepared:
        return audio, others
    return (
        [path for path in audio if prepared.isdisjoint(path.parents)],
        [path for path in others if prepared.isdisjoint(path.parents)],
    )


def recording_of(folder: Path, stem: str, usual: str) -> str:
    """The name of a recording: with the ending that the layout has, or another that is there."""
    endings = (usual, *(suffix for suffix in AUDIO_SUFFIXES if suffix != usual))
    names = (f"{stem}{suffix}" for suffix in endings)
    return next((name for name in names if os.path.exists(folder / name)), f"{stem}{usual}")


def prepare_layout(
    name: str,
    data_dir: str | Path,
    *,
    source: str | Path,
    layout: Layout,
    dev_fraction: float = 0.1,
    test_fraction: float = 0.1,
    split_by: str = "auto",
    seed: int = 0,
    text: TextNormalizer | None = None,
    alphabet: str | None = None,
    audio_format: str = "wav",
    sample_rate: int = 16_000,
    num_workers: int | None = None,
    duration_tolerance_s: float = 0.1,
    skip_bad: bool = False,
    say: Say = silent,
    progress: Advance = silent,
) -> PreparedCorpus:
    """Check a corpus of a known layout and write it as train, dev and test.

    Args:
        name: of the corpus, and of its folder in `data_dir`.
        data_dir: folder of all corpora.
        source: the corpus as it was published, a folder or what else the layout is.
        layout: of the source.
        dev_fraction: share of train to make dev of where the corpus has none; 0 for no dev.
        test_fraction: as much for test.
        split_by: "speaker", "utterance", or "auto" for the first where speakers are named.
        seed: of that draw.
        text: rules for every transcript; None takes TextNormalizer's defaults.
        alphabet: characters that texts may have; None takes those of the training texts.
        audio_format: "wav" or "flac" (16 bit, mono, written beside the manifests) or "keep".
        sample_rate: of written audio [Hz].
        num_workers: threads; None takes one a core.
        duration_tolerance_s: between a duration that the corpus gives and the audio's [s].
        skip_bad: leave out what is bad instead of stopping.
        say: told of every step, and of what is bad.
        progress: told how far a long step is: what is done, its unit, how many of how many.

    Returns:
        The prepared corpus.

    Raises:
        ValueError: a wrong argument, another layout, or anything bad, in one line.
        OSError: a file that cannot be read or written.
    """
    conversion = Conversion(audio_format, sample_rate, num_workers, duration_tolerance_s)
    settings = Settings(conversion, text or TextNormalizer(), alphabet, skip_bad)
    draw = Draw(dev_fraction, test_fraction, split_by, seed)
    source = Path(source)
    if not source.exists():
        raise FileNotFoundError(2, "no such file or folder, expected a corpus", str(source))
    with corpus_folder(Path(data_dir), name) as folder:
        _check_origin(folder, source)
        try:
            content = layout.read(source)
        except ValueError as error:
            own, other = type(layout).__module__.rpartition(".")[2], layout_of(source)
            if other is None or other == own:
                raise
            raise ValueError(f"{error}; it looks like corpus={other}") from error
        total = sum(map(len, content.splits.values()))
        if not total:
            raise ValueError(f"{source}: holds no utterances, expected at least one")
        say(f"{source}: {total} utterances")
        good = {split: utterances(own) for split, own in content.splits.items()}
        told = [*content.notes]
        if not good.get("train"):
            told.append(f"There is no train split: {' and '.join(good)} are split anew.")
            good = {"train": [each for own in good.values() for each in own]}
        splits, drawn = draw_splits(good, draw, settings.text)
        if content.are_parts:
            settings = replace(settings, conversion=replace(conversion, are_parts=True))
        return prepare_corpus(
            folder,
            splits,
            settings,
            source=str(source.absolute()),
            rejected=[finding for own in content.splits.values() for finding in findings(own)],
            notes=[*told, *drawn],
            say=say,
            progress=progress,
        )


def _check_origin(folder: Path, source: Path) -> None:
    """Refuse to write over the corpus of another source: the name is often that of the layout."""
    path = folder / RECORD_FILE
    if path.is_file():
        described = read_json(path, "a description of a corpus", MAX_RECORD_BYTES)
        earlier = described.get("source") if isinstance(described, dict) else None
        if earlier != str(source.absolute()):
            raise ValueError(
                f"{folder}: holds the corpus of {earlier}, expected another corpus.name for "
                f"{source}, or to have that folder deleted"
            )
