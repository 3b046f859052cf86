"""A corpus of the user's own: any manifests, every line and every audio file checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from asr.data.corpus_folder import Advance, Conversion, Say, corpus_folder
from asr.data.manifest import MANIFEST_SUFFIXES, Utterance, findings, scan_manifest, utterances
from asr.data.prepare import PreparedCorpus, Settings, prepare_corpus, silent
from asr.data.splits import SPLITS, carve_dev
from asr.finding import Finding, Kind
from asr.text import TextNormalizer

Manifests = str | Path | Sequence[str | Path]


def prepare_manifest(
    name: str,
    data_dir: str | Path,
    *,
    source: str | Path | None = None,
    train: Manifests | None = None,
    dev: Manifests | None = None,
    test: Manifests | None = None,
    dev_fraction: float = 0.0,
    dev_by: str = "speaker",
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
    """Check manifests (JSON lines, CSV, TSV) and write them as train, dev and test of a corpus.

    Checked are every line, every audio file (it exists, opens, and lasts as long as the line
    says; where the line does not say, the duration is filled in), and every character: texts may
    have those of the training texts, or, where `alphabet` is given, those. A test utterance with
    a letter that training never saw is bad, because no model of this corpus can write it; who
    wants it to count gives an alphabet that has the letter. What is bad is listed in
    `rejected.jsonl` and stops the preparation, unless `skip_bad` leaves it out.

    Args:
        name: of the corpus, and of its folder in `data_dir`.
        data_dir: folder of all corpora.
        source: folder with train, dev and test as .jsonl, .json, .csv or .tsv; or else:
        train: manifest or manifests; the ids of several get their folder's name in front.
        dev: manifest or manifests.
        test: manifest or manifests.
        dev_fraction: share of train to make dev of where there is none; 0 for no dev.
        dev_by: "speaker" (no speaker in both) or "utterance".
        seed: of that draw.
        text: rules for every transcript; None takes TextNormalizer's defaults.
        alphabet: characters that texts may have; None takes those of the training texts.
        audio_format: "wav" or "flac" (16 bit, mono, written beside the manifests) or "keep".
        sample_rate: of written audio [Hz].
        num_workers: threads; None takes one a core.
        duration_tolerance_s: between a line's duration and the audio's [s].
        skip_bad: leave out what is bad instead of stopping.
        say: told of every step, and of what is bad.
        progress: told how far a long step is: what is done, its unit, how many of how many.

    Returns:
        The prepared corpus.

    Raises:
        ValueError: a wrong argument or anything bad, in one line.
        OSError: a manifest that cannot be read, or a file that cannot be written.
    """
    conversion = Conversion(audio_format, sample_rate, num_workers, duration_tolerance_s)
    settings = Settings(conversion, text or TextNormalizer(), alphabet, skip_bad)
    manifests = _manifests(source, {"train": train, "dev": dev, "test": test})
    if dev_fraction and "dev" in manifests:
        raise ValueError(
            f"dev_fraction is {dev_fraction!r}, expected 0 as dev is {manifests['dev'][0]}"
        )
    with corpus_folder(Path(data_dir), name) as folder:
        rejected: list[Finding] = []
        splits = {split: read_split(folder, paths, rejected) for split, paths in manifests.items()}
        notes = []
        if dev_fraction:
            train_items, dev_items = carve_dev(splits["train"], dev_fraction, dev_by, seed)
            share = len(dev_items) / len(splits["train"])
            splits |= {"train": train_items, "dev": dev_items}
            notes.append(f"dev was taken from train by {dev_by}: {share:.1%} of its utterances.")
        elif "dev" not in splits:
            notes.append("There is no dev split; dev_fraction takes one from train.")
        return prepare_corpus(
            folder,
            {split: splits[split] for split in SPLITS if split in splits},
            settings,
            source=", ".join(str(path) for paths in manifests.values() for path in paths),
            rejected=rejected,
            notes=notes,
            say=say,
            progress=progress,
        )


def read_split(folder: Path, paths: Sequence[Path], rejected: list[Finding]) -> list[Utterance]:
    """Read the manifests that make up one split.

    Args:
        folder: of the corpus; manifests inside it are refused, they would be overwritten.
        paths: manifests; the ids of several get their folder's name in front.
        rejected: bad lines are added to it.

    Returns:
        The good lines.

    Raises:
        ValueError: for a manifest without any line, or one inside the corpus's folder.
        OSError: missing or unreadable.
    """
    read: list[Utterance] = []
    of_id: dict[str, Utterance] = {}
    for path in paths:
        if path.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"{path}: lies in {folder}, which is written; give another name")
        rows = scan_manifest(path)
        rejected.extend(findings(rows))
        prefix = f"{path.absolute().parent.name}/" if len(paths) > 1 else ""
        for utterance in utterances(rows):
            named = replace(utterance, id=f"{prefix}{utterance.id}")
            first = of_id.setdefault(named.id, named)
            if first is named:
                read.append(named)
            else:
                reason = f"id {named.id!r} is that of {first.where} already, expected another"
                rejected.append(named.finding(Kind.DUPLICATE_ID, reason))
    return read


def find_splits(folder: Path) -> dict[str, list[Path]]:
    """The manifests of a folder by the split they are named after.

    Raises:
        ValueError: where train is missing, or a split is there in two formats.
        OSError: where there is no such folder.
    """
    names = {path.name for path in folder.iterdir()}
    found: dict[str, list[Path]] = {}
    for split in SPLITS:
        there = [f"{split}{s}" for s in MANIFEST_SUFFIXES if f"{split}{s}" in names]
        if len(there) > 1:
            raise ValueError(f"{folder}: holds {' and '.join(there)}, expected one of them")
        if there:
            found[split] = [folder / there[0]]
    if "train" not in found:
        expected = ", ".join(f"train{suffix}" for suffix in MANIFEST_SUFFIXES)
        raise ValueError(f"{folder}: holds no manifest for training, expected one of {expected}")
    return found


def _manifests(
    source: str | Path | None, given: Mapping[str, Manifests | None]
) -> dict[str, list[Path]]:
    """The manifests of each split that is given, in the order train, dev, test."""
    named = {split: paths for split, paths in given.items() if paths is not None}
    if source is not None and named:
        raise ValueError(f"source and {next(iter(named))} are both given, expected one of them")
    if source is not None:
        return find_splits(Path(source))
    if "train" not in named:
        raise ValueError("neither source nor train is given, expected one of them")
    listed = {
        split: [Path(paths)] if isinstance(paths, str | Path) else [Path(p) for p in paths]
        for split, paths in named.items()
    }
    for split, paths in listed.items():
        if not paths:
            raise ValueError(f"{split} is an empty list, expected manifests")
    return listed
