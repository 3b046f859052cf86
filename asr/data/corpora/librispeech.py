"""LibriSpeech, and corpora laid out like it: a file of texts in each folder of recordings.

Panayotov et al., "LibriSpeech: an ASR corpus based on public domain audio books", ICASSP 2015,
https://www.openslr.org/12, CC BY 4.0.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from asr.data.corpora.layout import Content, entries, filled_lines, find_recordings, inner, split_of
from asr.data.manifest import Entry, rows_of
from asr.data.records import BadLineError, Record
from asr.untrusted import shown

TEXTS = ".trans.txt"


@dataclass(frozen=True)
class LibriSpeech:
    """Reads `<subset>/<speaker>/<chapter>/*.trans.txt`, a line `<id> <text>` for each recording.

    A subset is train, dev or test by the beginning of its name: train-clean-100, dev-other. The
    speaker is what an id begins with.
    """

    def read(self, source: Path) -> Content:
        """Read all files of texts; see `Layout`."""
        audio, others = find_recordings(source)
        recordings = {_key(path.with_suffix("")): path for path in audio}
        files = [path for path in others if path.name.endswith(TEXTS)]
        if not files:
            raise ValueError(f"{source}: holds no *{TEXTS}, expected one in each chapter's folder")

        def rows(path: Path) -> Iterator[Entry]:
            record = partial(_record, folder=path.parent, source=source, recordings=recordings)
            return entries(path, filled_lines(path, "a file of texts"), record)

        by_split: defaultdict[str, list[Path]] = defaultdict(list)
        for path in files:
            folders = path.relative_to(source).parts[:-1]
            by_split[next(filter(None, map(split_of, folders)), "train")].append(path)
        splits = {
            split: rows_of((each for path in own for each in rows(path)), source)
            for split, own in by_split.items()
        }
        num_texts = sum(map(len, splits.values()))
        left = len(audio) - num_texts
        notes = [f"{left} recordings have no text and were passed over."] if left > 0 else []
        return Content(splits, tuple(notes))


def _key(path: Path) -> str:
    return unicodedata.normalize("NFC", str(path))


def _record(text: str, folder: Path, source: Path, recordings: Mapping[str, Path]) -> Record:
    name, _, words = text.strip().partition(" ")
    if not words.strip():
        raise BadLineError(f"{shown(text)}, expected an id and its text")
    stem = folder / inner(name)
    audio = recordings.get(_key(stem), stem.with_name(f"{stem.name}.flac"))
    return {
        "audio_filepath": str(audio.relative_to(source)),
        "text": words,
        "id": name,
        "speaker": name.partition("-")[0],
    }
