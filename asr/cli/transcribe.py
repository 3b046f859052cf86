"""asr transcribe: recordings to text, JSON or subtitles."""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from asr.atomic_file import replace_text
from asr.cli.main import USER_ERROR_STATUS
from asr.cli.options import (
    MAX_STDIN_BYTES,
    STDIN,
    Parser,
    add_decoder_options,
    build_decoder,
    check_outputs,
    decoder_settings,
    read_standard_input,
)
from asr.cli.terminal import attempt, one_line, tell
from asr.text import printable, printable_json

if TYPE_CHECKING:
    from asr.transcriber import Transcriber, Transcript

FORMATS = ("text", "json", "srt", "vtt")


@dataclass(frozen=True)
class Input:
    """One recording to transcribe.

    Attributes:
        name: as the user gave it, "-" for standard input.
        relative: path of its output below --output-dir, without suffix.
    """

    name: str
    relative: Path


def main(arguments: list[str]) -> int:
    """Transcribe; returns 2 when an input failed, after all others are done."""
    options = make_parser().parse_args(arguments)
    inputs = find_inputs(options.files, options.output_dir)
    if options.format in ("srt", "vtt") and len(inputs) > 1 and options.output_dir is None:
        raise ValueError(
            f"--format {options.format} for {len(inputs)} files needs --output-dir: "
            "subtitles of several recordings do not fit into one stream"
        )
    if options.calibration is not None and options.format != "json":
        raise ValueError(
            f"--calibration has no effect with --format {options.format}, expected json, which "
            "holds confidences"
        )
    settings = decoder_settings(options)
    check_outputs(
        (output_file(source, options) for source in inputs if options.output_dir is not None),
        [*(source.name for source in inputs), options.model, options.calibration,
         options.decoder_config, settings.get("language_model"), settings.get("lexicon")],
    )  # fmt: skip
    os.stat(options.model)  # a model that is missing is told at once
    # Imported here: `--help` and a mistake in the call need none of it.
    from asr.model_file import load_model
    from asr.recognizer import choose_device
    from asr.transcriber import Transcriber

    calibrate = None
    if options.calibration:
        from asr.report.evaluation import read_calibration

        calibrate = read_calibration(options.calibration).apply
    recognizer, _ = load_model(Path(options.model), choose_device(options.device))
    decoder = build_decoder(settings, recognizer, tell)
    transcriber = Transcriber(recognizer, decoder, calibrate)
    failures = 0
    for result in _transcribe_all(transcriber, inputs, options):
        if isinstance(result, Exception):
            failures += 1
            tell(f"error: {one_line(result)}")
    if failures:
        tell(f"{failures} of {len(inputs)} files failed")
    return USER_ERROR_STATUS if failures else 0


def find_inputs(names: Sequence[str], output_dir: Path | None = None) -> list[Input]:
    """Files, the audio files of folders, and standard input.

    Raises:
        ValueError: a folder without audio, or two inputs that would share one output file.
    """
    from asr.audio import AUDIO_SUFFIXES

    inputs: list[Input] = []
    for name in names:
        path = Path(name)
        if name != STDIN and path.is_dir():
            found = sorted(p for p in path.rglob("*") if p.suffix.lower() in AUDIO_SUFFIXES)
            if not found:
                raise ValueError(f"{name}: no audio files, expected {' '.join(AUDIO_SUFFIXES)}")
            inputs += [Input(str(p), p.relative_to(path).with_suffix("")) for p in found]
        else:
            inputs.append(Input(name, Path("stdin" if name == STDIN else path.stem)))
    outputs = Counter(source.relative for source in inputs)
    twice = [source.name for source in inputs if outputs[source.relative] > 1]
    if twice and output_dir is not None:
        raise ValueError(
            f"{twice[0]} and {twice[1]} would be written to one file in {output_dir}, "
            "expected inputs of different names"
        )
    return inputs


def render(name: str, transcript: Transcript, format: str) -> str:
    """A transcript in one of FORMATS.

    text is `name<TAB>text` on a line; json one object on a line.
    """
    if format in ("srt", "vtt"):
        from asr.report.files import srt, vtt

        return (srt if format == "srt" else vtt)(transcript.words)
    if format == "json":
        words = [asdict(word) for word in transcript.words]
        row = {"audio_filepath": name, "text": transcript.text, "words": words}
        return printable_json(row) + "\n"
    return f"{printable(name)}\t{printable(transcript.text)}\n"


def make_parser() -> Parser:
    """The arguments of the command."""
    parser = Parser(
        prog="asr transcribe", description="Turn recordings into text, with word times."
    )
    parser.add_argument("files", nargs="+", help="audio files, folders, or - for standard input")
    parser.add_argument("--model", required=True, help="a model file of asr train")
    parser.add_argument("--format", choices=FORMATS, default="text", help="default: text")
    parser.add_argument(
        "--output-dir", type=Path, help="write a file a recording there instead of to the terminal"
    )
    parser.add_argument(
        "--calibration", type=Path, metavar="FILE",
        help="of asr evaluate fit_calibration=FILE: confidences become probabilities",
    )  # fmt: skip
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda; default: auto")
    add_decoder_options(parser)
    return parser


def _transcribe_all(
    transcriber: Transcriber, inputs: Sequence[Input], options: argparse.Namespace
) -> Iterator[Path | Exception | None]:
    """Each input transcribed and written, or what went wrong with it: the others go on."""
    from asr.cli.progress import track

    sources = track(inputs, "transcribing", "recordings") if len(inputs) > 1 else inputs
    for source in sources:
        result = attempt(partial(_transcribe, transcriber, source), source.name)
        if isinstance(result, Exception):
            yield result
            continue
        text = render(source.name, result, options.format)
        if options.output_dir is None:
            sys.stdout.write(text)
            sys.stdout.flush()
            yield None
        else:
            path = output_file(source, options)
            yield attempt(partial(_write, path, text), source.name)


def _transcribe(transcriber: Transcriber, source: Input) -> Transcript:
    if source.name == STDIN:
        return transcriber.transcribe_file(read_standard_input("audio", MAX_STDIN_BYTES))
    return transcriber.transcribe_file(source.name)


def output_file(source: Input, options: argparse.Namespace) -> Path:
    """Where the transcript of an input goes, with --output-dir."""
    suffix = {"text": ".txt", "json": ".json"}.get(options.format, f".{options.format}")
    path: Path = options.output_dir / f"{source.relative}{suffix}"
    return path


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, text)
    return path
