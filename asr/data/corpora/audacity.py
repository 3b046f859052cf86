"""Label tracks of Audacity beside their recordings: each label is an utterance.

https://manual.audacityteam.org/man/importing_and_exporting_labels.html
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from asr.data.corpora.folder import has_split_folders, parts_of, speakers_of
from asr.data.corpora.layout import SPLIT_NAMES, Content, find_recordings
from asr.data.manifest import Entry, rows_of
from asr.data.records import BadLineError, read_lines
from asr.untrusted import shown

FREQUENCIES = "\\"  # begins the line below a label that was drawn in the spectrogram


@dataclass(frozen=True)
class Audacity:
    """Reads tracks of labels, lines of start, end and text with tabs between, times in seconds.

    A track has the name of its recording, or is the only .txt beside the only recording of a
    folder. Splits and speakers are told by folders, as in the layout "folder".
    """

    def read(self, source: Path) -> Content:
        """Read all tracks; see `Layout`."""
        audio, others = find_recordings(source)
        tracks = [path for path in others if path.suffix.lower() == ".txt"]
        by_name = {parts_of(path, source): path for path in tracks}
        speakers, has_splits = speakers_of(audio, source), has_split_folders(audio, source)
        by_split: defaultdict[str, list[Entry]] = defaultdict(list)
        commas = 0
        for path in audio:
            track = by_name.get(parts_of(path, source)) or _only(path, audio, tracks)
            split = (
                SPLIT_NAMES[path.relative_to(source).parts[0].lower()] if has_splits else "train"
            )
            name = path.relative_to(source).as_posix()
            if track is None:
                fault = BadLineError(f"no label track, expected {path.stem}.txt beside it")
                by_split[split].append((path, 1, fault))
                continue
            for line, record, has_comma in _labels(track):
                commas += has_comma
                if not isinstance(record, BadLineError):
                    record["audio_filepath"] = name
                    record |= {} if speakers[path] is None else {"speaker": speakers[path]}
                by_split[split].append((track, line, record))
        notes = [f"{commas} labels have a comma for the decimal point."] if commas else []
        splits = {split: rows_of(own, source) for split, own in by_split.items()}
        return Content(splits, tuple(notes), are_parts=True)


def _only(path: Path, audio: list[Path], tracks: list[Path]) -> Path | None:
    """The track of a folder that has one recording and one track."""
    beside = [each for each in tracks if each.parent == path.parent]
    is_only = [each for each in audio if each.parent == path.parent] == [path]
    return beside[0] if is_only and len(beside) == 1 else None


def _labels(track: Path) -> Iterator[tuple[int, dict[str, object] | BadLineError, bool]]:
    """Line, record without its recording, and whether its times have commas."""
    for number, line in read_lines(track, "a label track"):
        if isinstance(line, BadLineError):
            yield number, line, False
        elif line.strip() and not line.startswith(FREQUENCIES):
            start, end, text = [*line.split("\t", 2), "", ""][:3]
            has_comma = "," in start + end
            try:
                yield number, _record(start, end, text), has_comma
            except BadLineError as error:
                yield number, error, has_comma


def _record(start: str, end: str, text: str) -> dict[str, object]:
    written = f"{start}\t{end}\t{text}"
    try:
        first, last = (float(re.sub(r"(\d),(\d)", r"\1.\2", each)) for each in (start, end))
    except ValueError:
        fault = f"{shown(written)}, expected start, end and text with tabs between"
        raise BadLineError(fault) from None
    if not 0 <= first < last:
        raise BadLineError(f"label from {first:g} to {last:g} s, expected a stretch of time")
    return {"offset": first, "duration": last - first, "text": text}
