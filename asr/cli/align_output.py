"""Alignments written in the formats that were asked for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from asr.aligner import Alignment
from asr.atomic_file import replace_text, replacing
from asr.report.ctm import ctm
from asr.report.subtitles import srt, vtt
from asr.report.textgrid import Interval, textgrid
from asr.text import printable_json

FORMATS = ("ctm", "json", "textgrid", "srt", "vtt")
OF_ALL = {"ctm": "alignments.ctm", "json": "alignments.jsonl"}  # one file for all utterances
OF_ONE = {"textgrid": ".TextGrid", "srt": ".srt", "vtt": ".vtt"}  # a file each


@dataclass(frozen=True)
class Aligned:
    """An utterance with its alignment.

    Attributes:
        id: of the utterance.
        name: of its files and in CTM.
        audio_filepath: as given.
        text: as written.
        offset: where in the file it begins [s]; times count from there.
        alignment: of the text.
    """

    id: str
    name: str
    audio_filepath: str
    text: str
    offset: float
    alignment: Alignment


Write = Callable[[Aligned], None]


def render(aligned: Aligned, format: str) -> str:
    """An alignment in one of FORMATS; json is an object on a line."""
    words = aligned.alignment.words
    if format == "ctm":
        return ctm(aligned.name, words)
    if format == "srt":
        return srt(words)
    if format == "vtt":
        return vtt(words)
    if format == "json":
        return _json(aligned)
    characters = [each for word in words for each in word.characters]
    tiers = {
        "words": [Interval(word.start, word.end, word.word) for word in words],
        "characters": [Interval(each.start, each.end, each.character) for each in characters],
    }
    return textgrid(aligned.alignment.duration, tiers)


def output_files(
    folder: Path | None, formats: Sequence[str], names: Sequence[str]
) -> Iterator[Path]:
    """The files that `open_output` writes; none without a folder.

    Args:
        folder: of them.
        formats: some of FORMATS.
        names: of the utterances.
    """
    if folder is None:
        return
    for format in formats:
        if format in OF_ALL:
            yield folder / OF_ALL[format]
        else:
            for name in names:
                yield folder / f"{name}{OF_ONE[format]}"


@contextmanager
def open_output(folder: Path | None, formats: Sequence[str]) -> Iterator[Write]:
    """Where alignments go while the block runs: into a folder, or to the terminal.

    Files of one utterance are there at once, those of all when the block ends without an error.

    Args:
        folder: made where it is missing; None for the terminal.
        formats: some of FORMATS.
    """
    with ExitStack() as stack:
        files: dict[str, BinaryIO] = {}
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            for format in formats:
                if format in OF_ALL:
                    files[format] = stack.enter_context(replacing(folder / OF_ALL[format]))

        def write(aligned: Aligned) -> None:
            for format in formats:
                text = render(aligned, format)
                if folder is None:
                    sys.stdout.write(text)
                    sys.stdout.flush()
                elif format in OF_ALL:
                    files[format].write(text.encode())
                else:
                    replace_text(folder / f"{aligned.name}{OF_ONE[format]}", text)

        yield write


def _json(aligned: Aligned) -> str:
    alignment = aligned.alignment
    row = {
        "id": aligned.id,
        "audio_filepath": aligned.audio_filepath,
        "offset": aligned.offset,
        "duration": alignment.duration,
        "text": aligned.text,
        "normalized_text": alignment.text,
        "confidence": alignment.confidence,
        "log_prob": alignment.log_prob,
        "shortfall": alignment.shortfall,
        "fits": alignment.fits,
        "words": [asdict(word) for word in alignment.words],
    }
    return printable_json(row) + "\n"
