"""Which audio files of a corpus are written, and from what: read again after a kill."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

from asr.atomic_file import replace_text
from asr.data.corpora.corpus_folder import STATE_DIR, refuse_links
from asr.data.corpora.prepared import SPLITS, Progress
from asr.untrusted import MAX_LINE_BYTES, lines, open_regular, parse_json, record, shown

AUDIO_DIR = "audio"
MAX_SLUG_LENGTH = 60  # characters of an id that its file's name shows
MAX_JOURNAL_BYTES = 1 << 30  # 1 GiB, some 4 million files
_SLUG = f"[A-Za-z0-9][A-Za-z0-9_]{{0,{MAX_SLUG_LENGTH - 1}}}"
_NAME = re.compile(rf"{AUDIO_DIR}/({'|'.join(SPLITS)})/({_SLUG}-)?[0-9a-f]{{16}}\.(wav|flac)")


def audio_name(split: str, utterance_id: str, audio_format: str) -> str:
    """The name, in the corpus folder, of the file that is written for an utterance.

    It is safe in any file system, readable, and different for different ids.
    """
    slug = re.sub(r"[^A-Za-z0-9]+", "_", utterance_id.rsplit("/", 1)[-1]).strip("_")
    digest = hashlib.sha256(utterance_id.encode()).hexdigest()[:16]
    stem = f"{slug[:MAX_SLUG_LENGTH]}-{digest}" if slug else digest
    return f"{AUDIO_DIR}/{split}/{stem}.{audio_format}"


@dataclass(frozen=True)
class Written:
    """A file that was written.

    Attributes:
        fingerprint: of the source and the settings it was made from.
        num_samples: of its audio.
        num_clipped: samples that were beyond full scale.
        num_bytes: of the whole file, by which a cut one is found out.
    """

    fingerprint: str
    num_samples: int
    num_clipped: int
    num_bytes: int


class Journal:
    """Written files by their path in the corpus folder; one line each, added when it is in place.

    Attributes:
        done: what is noted; all of these names are such as `audio_name` makes.
    """

    def __init__(self, path: Path, file: TextIO, done: dict[str, Written]) -> None:
        self._path = path
        self._file = file
        self.done = done

    def add(self, name: str, written: Written) -> None:
        """Note that a file is in place."""
        assert _NAME.fullmatch(name), "a name of ours"
        self.done[name] = written
        self._file.write(_line(name, written))

    def forget(self, names: Collection[str]) -> None:
        """Strike files that are gone."""
        for name in names:
            del self.done[name]
        _rewrite(self._path, self.done)


@contextmanager
def open_journal(folder: Path, progress: Progress) -> Iterator[Journal]:
    """Read a corpus folder's journal and keep it open for additions.

    Files are deleted by what it says, and the folder may come from anybody: a line that is no
    entry, or whose file is none that a preparation writes, is passed over. It then stands in the
    journal no longer, its file is left alone, and is made again where it is needed.

    Args:
        folder: of the corpus.
        progress: told of lines that are passed over.

    Raises:
        ValueError: a link among the folders that the files lie in, or a journal that is no file
            or too large.
        OSError: unreadable.
    """
    refuse_links(folder, (AUDIO_DIR, *(f"{AUDIO_DIR}/{split}" for split in SPLITS)))
    path = folder / STATE_DIR / "audio.jsonl"
    done = _read(path, progress) if path.exists() else {}
    # Without it, the first new line would be the rest of one that a kill cut.
    _rewrite(path, done)
    with open(path, "a", buffering=1, encoding="utf-8") as file:
        yield Journal(path, file, done)


def _read(path: Path, progress: Progress) -> dict[str, Written]:
    done: dict[str, Written] = {}
    bad: list[str] = []
    num_bad = 0
    with open_regular(path, "a journal of asr prepare") as file:
        for number, raw in lines(file, path, MAX_JOURNAL_BYTES):
            try:
                name, written = _parse(raw, f"{path}:{number}")
            except ValueError as error:
                num_bad += 1
                bad = bad or [str(error)]
            else:
                done[name] = written
    if num_bad:
        others = f" (and {num_bad - 1} more)" if num_bad > 1 else ""
        progress.say(f"passed over, its file is left alone: {bad[0]}{others}")
    return done


def _rewrite(path: Path, done: dict[str, Written]) -> None:
    replace_text(path, "".join(_line(*entry) for entry in done.items()))


def _line(name: str, written: Written) -> str:
    return json.dumps({"file": name, **asdict(written)}) + "\n"


def _parse(raw: bytes, where: str) -> tuple[str, Written]:
    """The entry of a line.

    Raises:
        ValueError: it has none, as where a kill or a full disk cut it.
    """
    if len(raw) > MAX_LINE_BYTES:
        raise ValueError(f"{where}: more than {MAX_LINE_BYTES} bytes, expected a shorter line")
    entry = parse_json(raw.decode(errors="backslashreplace"), where, "an entry of the journal")
    name = entry.pop("file", None) if isinstance(entry, dict) else None
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"{where}: file is {shown(name)}, expected one that asr prepare writes")
    return name, record(Written, entry, where)
