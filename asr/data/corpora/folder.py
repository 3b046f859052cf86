"""A folder of recordings, each with its text in a file of the same name."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from asr.data.corpora.layout import SPLIT_NAMES, Content, find_recordings
from asr.data.manifest import Entry, rows_of
from asr.data.records import BadLineError, read_lines
from asr.finding import describe_error
from asr.untrusted import MAX_LINE_BYTES

TEXT_SUFFIXES = (".txt", ".lab")
SHOWN_NAMES = 5  # of texts without a recording

Parts = tuple[str, ...]  # of a path below the source, without the file's ending


@dataclass(frozen=True)
class Folder:
    """Reads pairs of a recording and a .txt or .lab of the same name.

    Both lie in one folder, or in two that stand side by side: wav/ada/1.wav and txt/ada/1.txt.
    Folders train, dev and test at the top are splits. Where there are several folders below them,
    their names are the speakers.

    Attributes:
        encoding: of the texts, as Python calls it; None finds it out.
    """

    encoding: str | None = None

    def read(self, source: Path) -> Content:
        """Read the texts of all recordings; see `Layout`."""
        audio, others = find_recordings(source)
        files = [path for path in others if path.suffix.lower() in TEXT_SUFFIXES]
        texts = {parts_of(path, source): path for path in files}
        speakers, has_splits = speakers_of(audio, source), has_split_folders(audio, source)
        partners = _Partners(texts)
        by_split: defaultdict[str, list[Entry]] = defaultdict(list)
        told: defaultdict[str, int] = defaultdict(int)
        for path in audio:
            split = (
                SPLIT_NAMES[path.relative_to(source).parts[0].lower()] if has_splits else "train"
            )
            by_split[split].append(self._entry(path, source, partners, speakers, told))
        notes = [f"{count} texts were {what}." for what, count in told.items()]
        if names := sorted({name for name in speakers.values() if name is not None}):
            notes.append(f"Speakers are the names of {len(names)} folders, as {names[0]!r}.")
        if alone := [path for path in files if path not in partners.taken]:
            shown = ", ".join(str(path.relative_to(source)) for path in alone[:SHOWN_NAMES])
            more = f" and {len(alone) - SHOWN_NAMES} more" if len(alone) > SHOWN_NAMES else ""
            notes.append(f"{len(alone)} texts have no recording of their name: {shown}{more}.")
        return Content(
            {split: rows_of(own, source) for split, own in by_split.items()}, tuple(notes)
        )

    def _entry(
        self,
        path: Path,
        source: Path,
        partners: _Partners,
        speakers: Mapping[Path, str | None],
        told: defaultdict[str, int],
    ) -> Entry:
        try:
            text = partners.of(parts_of(path, source), path)
            how: list[str] = []
            lines = list(_whole(read_lines(text, "a text", self.encoding, how)))
            for each in how:
                told[each] += 1
        except (ValueError, OSError) as error:
            return path, 1, BadLineError(describe_error(error))
        record: dict[str, object] = {
            "audio_filepath": path.relative_to(source).as_posix(),
            "text": " ".join(lines),
        }
        if speakers[path] is not None:
            record["speaker"] = speakers[path]
        return text, 1, record


def _whole(lines: Iterable[tuple[int, str | BadLineError]]) -> Iterator[str]:
    num_characters = 0
    for number, line in lines:
        if isinstance(line, BadLineError):
            raise BadLineError(f"line {number}: {line}")
        num_characters += len(line)
        if num_characters > MAX_LINE_BYTES:
            raise BadLineError(f"longer than {MAX_LINE_BYTES} characters, expected a transcript")
        yield line


class _Partners:
    """Texts, each of which is a recording's own: of the same name, in its folder or in another."""

    def __init__(self, texts: Mapping[Parts, Path]) -> None:
        self._texts = texts
        self._elsewhere: defaultdict[Parts, list[Path]] = defaultdict(list)
        for parts, path in texts.items():
            for key in _with_a_gap(parts):
                self._elsewhere[key].append(path)
        self.taken: set[Path] = set()

    def of(self, parts: Parts, path: Path) -> Path:
        """The text of a recording.

        Raises:
            BadLineError: there is none, several, or another recording has it.
        """
        same = self._texts.get(parts)
        found = [same] if same else [t for k in _with_a_gap(parts) for t in self._elsewhere[k]]
        if not found:
            raise BadLineError(f"no text, expected {path.stem}.txt beside it or in a folder beside")
        if len(found) > 1:
            raise BadLineError(f"{len(found)} texts, as {found[0]} and {found[1]}, expected one")
        if found[0] in self.taken:
            raise BadLineError(f"{found[0]} is the text of another recording of this name")
        self.taken.add(found[0])
        return found[0]


def _with_a_gap(parts: Parts) -> list[Parts]:
    """The parts with each of the folders left open in turn."""
    return [(*parts[:place], "", *parts[place + 1 :]) for place in range(len(parts) - 1)]


def parts_of(path: Path, source: Path) -> Parts:
    """A path below the source without its ending, letters and accents as one."""
    name = str(path.relative_to(source).with_suffix(""))
    return Path(unicodedata.normalize("NFC", name)).parts


def has_split_folders(audio: Sequence[Path], source: Path) -> bool:
    """Whether all recordings lie in folders that are named as splits, train among them."""
    tops = {path.relative_to(source).parts[0].lower() for path in audio}
    return all(top in SPLIT_NAMES for top in tops) and "train" in map(SPLIT_NAMES.get, tops)


def speakers_of(audio: Sequence[Path], source: Path) -> dict[Path, str | None]:
    """The speaker of each recording: the first folder of whose kind there are several.

    Args:
        audio: all recordings.
        source: that they lie in; its folders of splits are passed over.
    """
    skipped = 1 if has_split_folders(audio, source) else 0
    folders = {path: path.relative_to(source).parts[skipped:-1] for path in audio}
    for depth in range(max(map(len, folders.values()), default=0)):
        names = {path: own[depth] if len(own) > depth else None for path, own in folders.items()}
        if len(set(names.values()) - {None}) > 1:
            return names
    return dict.fromkeys(audio)
