"""LJ Speech, and the many corpora of one voice that are laid out like it.

Keith Ito and Linda Johnson, "The LJ Speech Dataset", 2017, public domain.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from asr.data.corpora.layout import Content, entries, filled_lines, inner, recording_of
from asr.data.manifest import rows_of
from asr.data.records import BadLineError, Record
from asr.untrusted import shown

TABLE = "metadata.csv"
FOLDER = "wavs"


@dataclass(frozen=True)
class LjSpeech:
    """Reads metadata.csv, a line `id|text|normalised text` for each recording of wavs/.

    The last column is taken, in which numbers are spelt out; there are no quotes and no header.
    The corpus has one voice, which is not named, and no splits.
    """

    def read(self, source: Path) -> Content:
        """Read the table; see `Layout`."""
        table = source / TABLE
        if not table.is_file():
            raise ValueError(f"{source}: holds no {TABLE}, expected one beside {FOLDER}/")
        rows = entries(
            table, filled_lines(table, "a table of texts"), partial(_record, source=source)
        )
        return Content({"train": rows_of(rows, source)})


def _record(text: str, source: Path) -> Record:
    name, *columns = (column.strip() for column in text.split("|"))
    if not name or len(columns) not in (1, 2):
        raise BadLineError(f"{shown(text)}, expected id|text|normalised text")
    stem = inner(name).removesuffix(".wav")
    audio = recording_of(source / FOLDER, stem, ".wav")
    # Some corpora of this layout leave the last column empty.
    return {"audio_filepath": f"{FOLDER}/{audio}", "text": columns[-1] or columns[0], "id": stem}
