"""Common Voice by Mozilla: tables of one language beside a folder of clips.

Ardila et al., "Common Voice: A Massively-Multilingual Speech Corpus", LREC 2020,
https://commonvoice.mozilla.org, CC0 1.0.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from asr.data.corpora.layout import Content, entries, inner, recording_of
from asr.data.corpus_record import SPLITS
from asr.data.manifest import rows_of
from asr.data.records import Columns, Record, read_records

CLIPS = "clips"
VALIDATED = "validated.tsv"  # all clips that listeners took for right
COLUMNS: Columns = {"audio_filepath": "path", "text": "sentence"}


@dataclass(frozen=True)
class CommonVoice:
    """Reads train.tsv, dev.tsv and test.tsv where they are there, else validated.tsv.

    The splits are Mozilla's, which share no speaker and no sentence. `client_id` is the speaker;
    other columns, as age and accents, are kept where they say something.
    """

    def read(self, source: Path) -> Content:
        """Read the tables of one language; see `Layout`."""
        folders = [source, *sorted(path.parent for path in source.glob(f"*/{VALIDATED}"))]
        folder = next((each for each in folders if _tables(each)), None)
        if folder is None:
            raise ValueError(f"{source}: holds neither train.tsv nor {VALIDATED}, expected one")
        if folder != source and len(folders) > 2:
            raise ValueError(f"{source}: holds {len(folders) - 1} languages, expected one of them")
        tables = _tables(folder)
        splits = {
            split: rows_of(
                entries(path, read_records(path, COLUMNS), partial(_record, folder=folder)), folder
            )
            for split, path in tables.items()
        }
        return Content(splits)


def _tables(folder: Path) -> dict[str, Path]:
    found = {split: folder / f"{split}.tsv" for split in SPLITS}
    found = {split: path for split, path in found.items() if path.is_file()}
    if "train" in found:
        return found
    return {"train": folder / VALIDATED} if (folder / VALIDATED).is_file() else {}


def _record(record: Record, folder: Path) -> Record:
    written = {name: value for name, value in record.items() if value != "" or name == "text"}
    # Releases before 2020 have no ending; who converts the clips leaves the tables as they are.
    clip = inner(str(record["audio_filepath"])).removesuffix(".mp3")
    name = recording_of(folder / CLIPS, clip, ".mp3")
    return {**written, "audio_filepath": f"{CLIPS}/{name}", "id": clip}
