"""asr align: find when the words of a known text are spoken."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from asr.atomic_file import replace_text, replacing
from asr.cli.main import USER_ERROR_STATUS
from asr.cli.options import (
    MAX_STDIN_BYTES,
    STDIN,
    Parser,
    add_model_option,
    attempt,
    check_outputs,
    read_standard_input,
)
from asr.cli.terminal import one_line, progress_bar, tell
from asr.text import printable, printable_json
from asr.untrusted import read_text

if TYPE_CHECKING:
    from asr.aligner import Alignment
    from asr.audio_file import Source
    from asr.data.manifest import Utterance
    from asr.finding import Finding
    from asr.speech_model import Waveform

FORMATS = ("ctm", "json", "textgrid", "srt", "vtt")
OF_ALL = {"ctm": "alignments.ctm", "json": "alignments.jsonl"}  # one file for all utterances
OF_ONE = {"textgrid": ".TextGrid", "srt": ".srt", "vtt": ".vtt"}  # a file each
MAX_TEXT_BYTES = 4 << 20  # of a recording: 48 hours have some 2,400,000
LOW_CONFIDENCE_STATUS = 1


@dataclass(frozen=True)
class Task:
    """One recording to align.

    Attributes:
        id: of the utterance.
        name: the id as files can be named and CTM fields written.
        audio_filepath: as the user or the manifest gave it.
        text: as written.
        offset: where in the file it begins [s].
        load: what is to be read, or its waveform at a sample rate.
    """

    id: str
    name: str
    audio_filepath: str
    text: str
    offset: float
    load: Callable[[int], Source | Waveform]


Write = Callable[[Task, "Alignment"], None]


def main(arguments: list[str]) -> int:
    """Align.

    Returns:
        0, or 1 where an alignment's confidence is below --min-confidence, or 2 where an input
        failed; all others are done and written all the same.
    """
    options = make_parser().parse_intermixed_args(arguments)
    formats = _formats(options)
    # Imported from here on: `--help` and a mistake in the call need no torch.
    tasks, bad = _tasks(options)
    check_outputs(
        output_files(options.output, formats, [task.name for task in tasks]),
        [*(task.audio_filepath for task in tasks), options.model, options.manifest,
         options.text_file],
    )  # fmt: skip
    os.stat(options.model)  # a model that is missing is told at once
    from asr.aligner import Aligner

    aligner = Aligner.load(options.model, options.device)
    failures, doubtful = len(bad), 0
    for problem in bad:
        tell(f"error: {problem.place}: {problem.reason}")
    # One long recording tells how much of it is done; several, how many of them are.
    alone = len(tasks) == 1

    def align(task: Task) -> Alignment:
        audio = task.load(aligner.sample_rate)
        if not alone:
            return aligner.align(audio, task.text)
        return aligner.align(
            audio, task.text,
            lambda done, total: progress(round(done), None if total is None else round(total)),
        )  # fmt: skip

    with (
        open_output(options.output, formats) as write,
        progress_bar("aligning", "s of audio" if alone else "utterances") as progress,
    ):
        for number, task in enumerate(tasks, start=1):
            result = attempt(partial(align, task), task.id)
            if not isinstance(result, Exception):
                doubtful += _tell_doubts(task, result, options.min_confidence)
                result = attempt(partial(write, task, result), task.id) or result
            if isinstance(result, Exception):
                failures += 1
                message = one_line(result)
                place = printable(f"{task.id}: ")  # what is wrong with a file begins with its name
                tell(f"error: {place if place not in message else ''}{message}")
            if not alone:
                progress(number, len(tasks))
    if failures:
        total = len(tasks) + len(bad)
        tell(f"{failures} of {total} utterances failed")
        return USER_ERROR_STATUS
    return LOW_CONFIDENCE_STATUS if doubtful else 0


def make_parser() -> Parser:
    """Define the arguments of the command."""
    parser = Parser(
        prog="asr align",
        usage="asr align --model MODEL AUDIO TEXT...\n"
        "       asr align --model MODEL AUDIO --text-file FILE\n"
        "       asr align --model MODEL --manifest MANIFEST --output FOLDER",
        description="Find when the words and characters of a known text are spoken.",
        epilog="Exit status: 0 done, 1 an alignment below --min-confidence, 2 an utterance failed "
        "or a mistake in the call. Whatever can be aligned is written in any case.",
    )
    parser.add_argument("audio", nargs="?", help="an audio file, or - for standard input")
    parser.add_argument("text", nargs="*", help="its text")
    parser.add_argument("--text-file", type=Path, metavar="FILE", help="or a UTF-8 file with that")
    parser.add_argument("--manifest", type=Path, help="or many recordings with their texts")
    add_model_option(parser)
    parser.add_argument(
        "--format", default="ctm", metavar="FORMAT,...",
        help=f"some of {', '.join(FORMATS)}; default: ctm",
    )  # fmt: skip
    parser.add_argument(
        "--output", type=Path, metavar="FOLDER",
        help="write alignments.ctm and alignments.jsonl there, and a file an utterance of the "
        "other formats, instead of to the terminal",
    )  # fmt: skip
    parser.add_argument(
        "--min-confidence", type=float, default=0.0, metavar="P",
        help="name alignments of less confidence (0 to 1: the geometric mean of the probabilities "
        "of all characters), and end with status 1",
    )  # fmt: skip
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda; default: auto")
    return parser


def _formats(options: argparse.Namespace) -> list[str]:
    """Check what is written, and return its formats."""
    formats: list[str] = options.format.split(",")
    unknown = next((name for name in formats if name not in FORMATS), None)
    if unknown is not None:
        raise ValueError(f"--format {unknown!r}, expected some of {', '.join(FORMATS)}")
    if not 0 <= options.min_confidence <= 1:
        raise ValueError(f"--min-confidence {options.min_confidence:g}, expected 0 to 1")
    if options.output is None:
        if len(formats) > 1:
            raise ValueError(f"--format {options.format} needs --output, a folder: several files")
        if options.manifest is not None and formats[0] in OF_ONE:
            raise ValueError(
                f"--format {formats[0]} of a manifest needs --output: a file an utterance"
            )
    return formats


# --- what is read --------------------------------------------------------------------------------


def _tasks(options: argparse.Namespace) -> tuple[list[Task], Sequence[Finding]]:
    """List what to align, and the bad lines of the manifest."""
    if options.manifest is not None:
        if options.audio is not None or options.text_file is not None:
            raise ValueError("--manifest and AUDIO or --text-file, expected one of them")
        return _tasks_of_manifest(options.manifest)
    if options.audio is None:
        raise ValueError("no recording, expected AUDIO TEXT... or --manifest")
    if bool(options.text) == (options.text_file is not None):
        raise ValueError("expected either TEXT... or --text-file: the text of the recording")
    if options.text:
        text = " ".join(options.text)
    else:
        text = read_text(options.text_file, "text", MAX_TEXT_BYTES)
    is_piped = options.audio == STDIN
    path = "stdin" if is_piped else options.audio

    def load(sample_rate: int) -> Source:
        if is_piped:
            return read_standard_input("audio", MAX_STDIN_BYTES)
        return Path(options.audio)

    return [Task(path, _name(Path(path).name), options.audio, text, 0.0, load)], []


def _tasks_of_manifest(manifest: Path) -> tuple[list[Task], Sequence[Finding]]:
    from asr.data.dataset import load_utterance
    from asr.data.manifest import findings, scan_manifest, utterances

    def task(utterance: Utterance) -> Task:
        return Task(
            utterance.id, _name(utterance.id), str(utterance.audio_filepath), utterance.text,
            utterance.offset, lambda sample_rate: load_utterance(utterance, sample_rate),
        )  # fmt: skip

    rows = scan_manifest(manifest)
    tasks: dict[str, Task] = {}
    for new in map(task, utterances(rows)):
        other = tasks.setdefault(new.name, new)
        if other is not new:
            raise ValueError(
                f"ids {other.id!r} and {new.id!r} would both be written as {new.name!r}, expected "
                "ids that differ in letters, digits, _ or -"
            )
    return list(tasks.values()), findings(rows)


def _name(id: str) -> str:
    """Write an id without an audio file's suffix, `_` for all but letters, digits, `_` and `-`."""
    from asr.audio import AUDIO_SUFFIXES

    path = Path(id)
    stem = id[: -len(path.suffix)] if path.suffix.lower() in AUDIO_SUFFIXES else id
    return re.sub(r"[^\w-]", "_", stem)


# --- what is told and written --------------------------------------------------------------------


def _tell_doubts(task: Task, alignment: Alignment, min_confidence: float) -> bool:
    """Tell where the text may be wrong; return whether the confidence is below what was asked."""
    from asr.aligner import MAX_SHORTFALL

    if not alignment.fits:
        tell(
            f"note: {task.id}: the text likely does not fit the audio: its path is "
            f"{alignment.shortfall:.2f} nats a frame behind the model's own, expected at most "
            f"{MAX_SHORTFALL:g}"
        )
    if alignment.confidence >= min_confidence:
        return False
    tell(f"{task.id}: confidence {alignment.confidence:.4f}, expected at least {min_confidence:g}")
    return True


def render(task: Task, alignment: Alignment, format: str) -> str:
    """Write an alignment in one of FORMATS; json is an object on a line."""
    from asr.report.files import ctm, textgrid
    from asr.subtitles import srt, vtt

    words = alignment.words
    if format == "ctm":
        return ctm(task.name, words)
    if format == "srt":
        return srt(words)
    if format == "vtt":
        return vtt(words)
    if format == "textgrid":
        characters = [each for word in words for each in word.characters]
        return textgrid(alignment.duration, {"words": words, "characters": characters})
    row = {
        "id": task.id,
        "audio_filepath": task.audio_filepath,
        "offset": task.offset,
        "duration": alignment.duration,
        "text": task.text,
        "normalized_text": alignment.text,
        "confidence": alignment.confidence,
        "log_prob": alignment.log_prob,
        "shortfall": alignment.shortfall,
        "fits": alignment.fits,
        "words": [word.row() for word in words],
    }
    return printable_json(row) + "\n"


def output_files(
    folder: Path | None, formats: Sequence[str], names: Sequence[str]
) -> Iterator[Path]:
    """List the files that `open_output` writes; none without a folder.

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
    """Take alignments while the block runs: into a folder, or to the terminal.

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

        def write(task: Task, alignment: Alignment) -> None:
            for format in formats:
                text = render(task, alignment, format)
                if folder is None:
                    sys.stdout.write(text)
                    sys.stdout.flush()
                elif format in OF_ALL:
                    files[format].write(text.encode())
                else:
                    replace_text(folder / f"{task.name}{OF_ONE[format]}", text)

        yield write
