"""Manifests of lhotse: cuts, or recordings and supervisions, as JSON lines, packed or not.

They are read here and not by lhotse, which runs the command that a recording may name as its
source: https://lhotse.readthedocs.io/en/latest/corpus.html has the fields.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asr.data.corpora.layout import Content, split_of
from asr.data.manifest import Entry, rows_of
from asr.data.records import BadLineError, Record, Records, json_records
from asr.packed import unpacked
from asr.untrusted import lines, open_regular, shown

CUT_KINDS = ("MonoCut", "MultiCut", "Cut")  # of one recording
KEPT = ("language", "gender")  # of a supervision, besides what a manifest has
_FILE = re.compile(
    r"(?P<before>.*?)(?P<kind>cuts|recordings|supervisions)(?P<after>.*?)\.jsonl(\.gz)?"
)


@dataclass(frozen=True)
class Lhotse:
    """Reads a file of cuts, or the cuts or else the recordings and supervisions of a folder.

    A name tells the split: cuts_train.jsonl.gz, librispeech_supervisions_dev-clean.jsonl.gz. Each
    supervision is an utterance. Audio is read of files alone; a command, an address or a shard
    that a recording names is bad, by name.

    Attributes:
        audio_folder: that relative paths of recordings begin in; None: the manifests' folder.
    """

    audio_folder: str | None = None

    def read(self, source: Path) -> Content:
        """Read the manifests; see `Layout`."""
        folder = source if source.is_dir() else source.parent
        paths = sorted(source.iterdir()) if source.is_dir() else [source]
        found: dict[str, dict[tuple[str, str], Path]] = defaultdict(dict)
        for path in paths:
            if match := _FILE.fullmatch(path.name):
                found[match["kind"]][match["before"], match["after"]] = path
        if not source.is_dir() and not found["cuts"]:
            found["cuts"]["", ""] = source
        by_split: defaultdict[str, list[Entry]] = defaultdict(list)
        notes = []
        for key, path in found["cuts"].items():
            by_split[_split(key)] += _cuts(path)
        for key, path in found["supervisions"].items() if not found["cuts"] else ():
            if key in found["recordings"]:
                by_split[_split(key)] += _supervisions(path, found["recordings"][key])
            else:
                notes.append(f"{path.name} has no file of recordings and was passed over.")
        if not by_split:
            raise ValueError(
                f"{source}: holds no cuts*.jsonl.gz, nor recordings* and supervisions* of one "
                "name, expected either"
            )
        base = folder if self.audio_folder is None else Path(self.audio_folder)
        splits = {split: rows_of(own, base.absolute()) for split, own in by_split.items()}
        return Content(splits, tuple(notes), are_parts=True)


def _split(key: tuple[str, str]) -> str:
    words = (word for part in reversed(key) for word in [part.strip("_-."), *part.split("_")])
    return next(filter(None, map(split_of, words)), "train")


def _records(path: Path) -> Iterator[tuple[int, Record | BadLineError]]:
    with open_regular(path, "a manifest of lhotse") as file:
        records: Records = json_records(lines(unpacked(file, path), path))
        yield from records


def _cuts(path: Path) -> Iterator[Entry]:
    for line, cut in _records(path):
        try:
            if isinstance(cut, BadLineError):
                raise cut
            kind = cut.get("type", "MonoCut")
            if kind not in CUT_KINDS:
                raise BadLineError(f"a {shown(kind)}, expected a MonoCut: export its audio first")
            supervisions = cut.get("supervisions") or []
            if not isinstance(supervisions, list) or not supervisions:
                raise BadLineError("a cut without supervisions, expected a text")
            recording, start = cut.get("recording"), _number(cut, "start")
            for each in supervisions:
                yield path, line, _utterance(each, recording, start)
        except BadLineError as error:
            yield path, line, error


def _supervisions(path: Path, recordings: Path) -> Iterator[Entry]:
    by_id: dict[object, Record] = {}
    for line, recording in _records(recordings):
        if isinstance(recording, BadLineError):
            yield recordings, line, recording
        else:
            by_id[str(recording.get("id"))] = recording
    for line, supervision in _records(path):
        try:
            if isinstance(supervision, BadLineError):
                raise supervision
            name = str(supervision.get("recording_id"))
            if name not in by_id:
                raise BadLineError(f"recording {shown(name)} is not in {recordings.name}")
            yield path, line, _utterance(supervision, by_id[name], 0.0)
        except BadLineError as error:
            yield path, line, error


def _utterance(supervision: Any, recording: Any, start: float) -> dict[str, object]:
    if not isinstance(supervision, dict) or not isinstance(supervision.get("text"), str):
        raise BadLineError("a supervision without text, expected a transcript")
    audio = _audio(recording)
    channels = recording.get("channel_ids") or [0]
    asked = supervision.get("channel", 0)
    if not isinstance(channels, list) or (asked != channels and asked not in channels):
        raise BadLineError(
            f"channel {shown(asked)} of {shown(channels)} in {shown(audio)}, expected one or all"
        )
    record: dict[str, object] = {
        "audio_filepath": audio,
        "text": supervision["text"],
        "offset": max(start + _number(supervision, "start"), 0.0),
        "duration": _number(supervision, "duration"),
        "channel": channels.index(asked) if len(channels) > 1 and asked in channels else None,
        "id": supervision.get("id"),
        "speaker": supervision.get("speaker"),
    }
    return record | {name: supervision[name] for name in KEPT if supervision.get(name) is not None}


def _audio(recording: Any) -> str:
    """The file of a recording; a command, an address or a shard is named and not touched."""
    if not isinstance(recording, Mapping):
        raise BadLineError("has no recording, expected one")
    if recording.get("transforms"):
        raise BadLineError("its recording has transforms, expected audio as it is: export it first")
    sources = recording.get("sources")
    if not isinstance(sources, list) or len(sources) != 1 or not isinstance(sources[0], Mapping):
        raise BadLineError(
            f"recording {shown(recording.get('id'))} has not one source, expected it"
        )
    kind, source = sources[0].get("type"), sources[0].get("source")
    if kind != "file" or not isinstance(source, str):
        raise BadLineError(
            f"the audio of {shown(recording.get('id'))} is a {shown(kind)} ({shown(source)}), "
            "which is not read or run, expected a file: export it first"
        )
    return source


def _number(record: Mapping[str, Any], name: str) -> float:
    value = record.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise BadLineError(f"{name} is {shown(value)}, expected a number of seconds")
    return float(value)
