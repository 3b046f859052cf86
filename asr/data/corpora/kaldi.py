"""Folders of data as Kaldi and what descends from it (ESPnet, icefall's recipes) have them.

Povey et al., "The Kaldi Speech Recognition Toolkit", ASRU 2011; the files are described at
https://kaldi-asr.org/doc/data_prep.html.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from asr.data.corpora.layout import Content, split_of
from asr.data.manifest import Entry, rows_of
from asr.data.records import BadLineError, read_lines
from asr.untrusted import shown

RECORDINGS, TEXTS, SPEAKERS, SEGMENTS = "wav.scp", "text", "utt2spk", "segments"
TO_THE_END = -1.0  # as the end of a segment
_ARCHIVE = re.compile(r"\.(ark|scp)(:\d+)?$")


@dataclass(frozen=True)
class Kaldi:
    """Reads one folder with wav.scp and text, or the folders train*, dev* and test* that have them.

    utt2spk and segments are read where they are there. An entry of wav.scp that is a command is
    never run: its utterances are bad, by name.

    Attributes:
        audio_folder: that relative paths of wav.scp begin in; None: the folder of wav.scp.
    """

    audio_folder: str | None = None

    def read(self, source: Path) -> Content:
        """Read the folders; see `Layout`."""
        folders = [source] if (source / RECORDINGS).is_file() else []
        if not folders and source.is_dir():
            folders = sorted(path.parent for path in source.glob(f"*/{RECORDINGS}"))
        if not folders:
            raise ValueError(f"{source}: holds no {RECORDINGS}, nor folders that do, expected one")
        by_split: defaultdict[str, list[Path]] = defaultdict(list)
        notes = []
        for folder in folders:
            split = "train" if folder == source else split_of(folder.name)
            if not (folder / TEXTS).is_file():
                notes.append(f"{folder.name} has no file {TEXTS} and was passed over.")
            elif split is None:
                notes.append(f"{folder.name} is not train, dev or test by its name: passed over.")
            else:
                by_split[split].append(folder)
        splits = {
            split: rows_of(
                (each for folder in own for each in self._entries(folder, notes)), source
            )
            for split, own in by_split.items()
        }
        are_parts = any((folder / SEGMENTS).is_file() for folder in folders)
        return Content(splits, tuple(notes), are_parts)

    def _entries(self, folder: Path, notes: list[str]) -> Iterator[Entry]:
        recordings = _table(folder / RECORDINGS)
        speakers = _table(folder / SPEAKERS)
        segments = _table(folder / SEGMENTS)
        base = folder if self.audio_folder is None else Path(self.audio_folder)
        spoken = set()
        for line, name, words in _lines(folder / TEXTS):
            spoken.add(name)
            try:
                if isinstance(words, BadLineError):
                    raise words
                recording, times = _place(name, segments)
                audio = _path(name, recording, recordings)
                record = {"audio_filepath": str(base.absolute() / audio), "text": words, "id": name}
                if name in speakers:
                    record["speaker"] = speakers[name]
                yield folder / TEXTS, line, record | times
            except BadLineError as error:
                yield folder / TEXTS, line, error
        silent = len((segments or recordings).keys() - spoken)
        if silent:
            notes.append(f"{folder.name}: {silent} utterances have no text and were passed over.")


def _lines(path: Path) -> Iterator[tuple[int, str, str | BadLineError]]:
    """Line, key and the rest of each line that is not empty."""
    for number, line in read_lines(path, f"Kaldi's {path.name}"):
        if isinstance(line, BadLineError):
            yield number, "", line
        elif line.strip():
            key, _, rest = line.strip().partition(" ")
            key, _, tabbed = key.partition("\t")
            yield number, key, f"{tabbed} {rest}".strip()


def _table(path: Path) -> dict[str, str]:
    """The rest of each line by its key; empty where the file is missing.

    Raises:
        ValueError: a line that cannot be read, or a key that occurs twice.
    """
    table: dict[str, str] = {}
    for number, key, rest in _lines(path) if path.is_file() else ():
        if isinstance(rest, BadLineError) or key in table:
            fault = rest if isinstance(rest, BadLineError) else f"{shown(key)} is there already"
            raise ValueError(f"{path}:{number}: {fault}, expected each once")
        table[key] = rest
    return table


def _place(name: str, segments: dict[str, str]) -> tuple[str, dict[str, float]]:
    """The recording that an utterance is of, and where in it."""
    if not segments:
        return name, {}
    if name not in segments:
        raise BadLineError(f"{name} is not in {SEGMENTS}, expected the recording that it is of")
    try:
        recording, *times = segments[name].split()
        start, end = map(float, times[:2])
    except ValueError:
        start, end, recording = 0.0, 0.0, ""
    if not recording or start < 0 or (end <= start and end != TO_THE_END):
        raise BadLineError(
            f"{name} is {shown(segments[name])} in {SEGMENTS}, expected recording, start and end"
        )
    return recording, {"offset": start} | ({} if end == TO_THE_END else {"duration": end - start})


def _path(name: str, recording: str, recordings: dict[str, str]) -> str:
    written = recordings.get(recording)
    if written is None:
        raise BadLineError(f"{name}: {recording} is not in {RECORDINGS}, expected its recording")
    if "|" in (written[:1], written[-1:]):
        raise BadLineError(
            f"{name}: {recording} is the command {shown(written)} in {RECORDINGS}, which is never "
            "run: write its audio to a file, and the file's path there"
        )
    if _ARCHIVE.search(written):
        raise BadLineError(
            f"{name}: {recording} lies in the archive {shown(written)}, expected a file: write its "
            f"audio out (Kaldi's wav-copy does), and the file's path to {RECORDINGS}"
        )
    return written
