"""The audiofolder of Hugging Face's datasets: recordings beside a table of them.

https://huggingface.co/docs/datasets/audio_dataset
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from asr.data.corpora.layout import Content, entries, inner, split_of
from asr.data.manifest import Entry, rows_of
from asr.data.records import Columns, Record, read_records

TABLES = ("metadata.jsonl", "metadata.csv", "metadata.tsv")  # the first that is there is read
COLUMNS: Columns = {"audio_filepath": "file_name"}


@dataclass(frozen=True)
class HuggingFace:
    """Reads metadata.jsonl or .csv of a folder, or of its folders train, validation and test.

    The recording is `file_name`; the text is transcription, text, sentence or transcript. One table
    above all recordings tells the split by the folder that a file's name begins with.
    """

    def read(self, source: Path) -> Content:
        """Read the tables; see `Layout`."""
        folders = [source, *sorted(path for path in source.glob("*") if path.is_dir())]
        folders += [each / "data" for each in folders]
        tables = [table for table in map(_table, folders) if table is not None]
        if not tables:
            packed = next(source.rglob("*.parquet"), None)
            hint = f"; {packed.name} has to be exported as files first" if packed else ""
            raise ValueError(f"{source}: holds no {' or '.join(TABLES[:2])}, expected one{hint}")
        by_split: defaultdict[str, list[Entry]] = defaultdict(list)
        for table in tables:
            of_folder = split_of(table.parent.name) if table.parent != source else None
            record = partial(_record, folder=table.parent, source=source)
            for entry in entries(table, read_records(table, COLUMNS), record):
                name = entry[2].get("audio_filepath") if isinstance(entry[2], dict) else None
                first = split_of(PurePosixPath(str(name)).parts[0]) if name else None
                by_split[of_folder or first or "train"].append(entry)
        return Content({split: rows_of(own, source) for split, own in by_split.items()})


def _table(folder: Path) -> Path | None:
    return next((folder / name for name in TABLES if (folder / name).is_file()), None)


def _record(record: Record, folder: Path, source: Path) -> Record:
    if not isinstance(record.get("audio_filepath"), str):
        return record
    path = folder / inner(record["audio_filepath"])
    return {**record, "audio_filepath": path.relative_to(source).as_posix()}
