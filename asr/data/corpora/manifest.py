"""A corpus of the user's own: any manifests, every line and every audio file checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from asr.data.corpora.layout import layout_of
from asr.data.corpus_folder import Advance, Conversion, Say, corpus_folder
from asr.data.corpus_record import SPLITS
from asr.data.draw import Draw, draw_splits
from asr.data.manifest import MANIFEST_SUFFIXES, Form, Row, findings, scan_manifests, utterances
from asr.data.prepare import PreparedCorpus, Settings, prepare_corpus, silent
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
    columns: Mapping[str, str | None] | None = None,
    encoding: str | None = None,
    audio_folder: str | None = None,
    dev_fraction: float = 0.0,
    test_fraction: float = 0.0,
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
    """Check manifests (JSON lines, tables) and write them as train, dev and test of a corpus.

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
        columns: names in the headers of what is not found by itself: audio, text, speaker, id,
            duration, offset.
        encoding: of tables, as Python calls it; None finds it out.
        audio_folder: that relative paths of audio begin in; None: that of each manifest.
        dev_fraction: share of train to make dev of where there is none; 0 for no dev.
        test_fraction: as much for test.
        split_by: "speaker", "utterance", or "auto" for the first where speakers are named.
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
    draw = Draw(dev_fraction, test_fraction, split_by, seed)
    for split, fraction in (("dev", dev_fraction), ("test", test_fraction)):
        if fraction and split in manifests:
            there = manifests[split][0]
            raise ValueError(f"{split}_fraction is {fraction!r}, expected 0 as {split} is {there}")
    fields = {("audio_filepath" if n == "audio" else n): c for n, c in (columns or {}).items()}
    form = Form(fields, encoding, None if audio_folder is None else Path(audio_folder))
    with corpus_folder(Path(data_dir), name) as folder:
        rows: list[Row] = []
        splits = {}
        for split, paths in manifests.items():
            for path in paths:
                if path.resolve().is_relative_to(folder.resolve()):
                    raise ValueError(
                        f"{path}: lies in {folder}, which is written; give another name"
                    )
            own = scan_manifests(paths, form, say)
            rows += own
            splits[split] = utterances(own)
        drawn, notes = draw_splits(splits, draw, settings.text)
        return prepare_corpus(
            folder,
            drawn,
            settings,
            source=", ".join(str(path) for paths in manifests.values() for path in paths),
            rejected=findings(rows),
            notes=notes,
            say=say,
            progress=progress,
        )


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
        layout = layout_of(folder)
        hint = f"; it looks like corpus={layout}" if layout else ""
        raise ValueError(
            f"{folder}: holds no manifest for training, expected one of {expected}{hint}"
        )
    return found


def _manifests(
    source: str | Path | None, splits: Mapping[str, Manifests | None]
) -> dict[str, list[Path]]:
    """The manifests of each split: those of the source, or those that are given one by one."""
    given = {split: paths for split, paths in splits.items() if paths is not None}
    if source is not None and given:
        raise ValueError(f"source and {next(iter(given))} are both given, expected one of them")
    if source is not None:
        return find_splits(Path(source))
    if "train" not in given:
        raise ValueError("neither source nor train is given, expected one of them")
    listed = {
        split: [Path(paths)] if isinstance(paths, str | Path) else [Path(path) for path in paths]
        for split, paths in given.items()
    }
    for split, paths in listed.items():
        if not paths:
            raise ValueError(f"{split} is an empty list, expected manifests")
    return listed
