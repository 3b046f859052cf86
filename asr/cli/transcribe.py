"""asr transcribe: recordings to text, JSON or subtitles."""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from asr.atomic_file import replace_text
from asr.cli.decoder import add_decoder_options, build_decoder, decoder_settings
from asr.cli.main import USER_ERROR_STATUS
from asr.cli.options import (
    MAX_STDIN_BYTES,
    STDIN,
    Parser,
    attempt,
    check_outputs,
    model_path,
    read_standard_input,
)
from asr.cli.terminal import one_line, tell, track
from asr.text import printable, printable_json

if TYPE_CHECKING:
    from asr.transcriber import Transcript

FORMATS = ("text", "json", "srt", "vtt")
NUM_NAMED = 5  # of the files that are passed over


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
    """Transcribe, each recording by itself.

    Returns:
        0, or 2 where an input failed; all others are done all the same.
    """
    options = make_parser().parse_args(arguments)
    inputs = find_inputs(options.files, options.output_dir)
    _check_format(options, len(inputs))
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
        from asr.report.evaluation_file import read_calibration

        calibrate = read_calibration(options.calibration).apply
    recognizer, _ = load_model(options.model, choose_device(options.device))
    decoder = build_decoder(settings, recognizer, tell)
    transcriber = Transcriber(recognizer, decoder, calibrate)

    def transcribe(source: Input) -> str:
        """Write the file of an input, or return what is to be printed."""
        is_piped = source.name == STDIN
        audio = read_standard_input("audio", MAX_STDIN_BYTES) if is_piped else source.name
        text = render(source.name, transcriber.transcribe_file(audio), options.format)
        if options.output_dir is None:
            return text
        path = output_file(source, options)
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_text(path, text)
        return ""

    failures = 0
    for source in track(inputs, "transcribing", "recordings") if len(inputs) > 1 else inputs:
        result = attempt(partial(transcribe, source), source.name)
        if isinstance(result, Exception):
            failures += 1
            tell(f"error: {one_line(result)}")
        else:
            sys.stdout.write(result)
            sys.stdout.flush()
    if failures:
        tell(f"{failures} of {len(inputs)} files failed")
    return USER_ERROR_STATUS if failures else 0


def _check_format(options: argparse.Namespace, num_inputs: int) -> None:
    """Refuse options that do not go with the format."""
    if options.format in ("srt", "vtt") and num_inputs > 1 and options.output_dir is None:
        raise ValueError(
            f"--format {options.format} for {num_inputs} files needs --output-dir: "
            "subtitles of several recordings do not fit into one stream"
        )
    if options.calibration is not None and options.format != "json":
        raise ValueError(
            f"--calibration has no effect with --format {options.format}, expected json, which "
            "holds confidences"
        )


def find_inputs(names: Sequence[str], output_dir: Path | None = None) -> list[Input]:
    """List files, the audio files of folders, and standard input; name what a folder has besides.

    Raises:
        ValueError: a folder without audio, or two inputs that would share one output file.
    """
    from asr.audio import find_audio

    inputs: list[Input] = []
    for name in names:
        path = Path(name)
        if name != STDIN and path.is_dir():
            found, others = find_audio(path)
            if others:
                first = ", ".join(printable(str(p)) for p in others[:NUM_NAMED])
                more = ", ..." if len(others) > NUM_NAMED else ""
                tell(f"note: {len(others)} files that are no audio passed over: {first}{more}")
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
    """Write a transcript in one of FORMATS.

    text is `name<TAB>text` on a line; json one object on a line.
    """
    if format in ("srt", "vtt"):
        from asr.subtitles import srt, vtt

        return (srt if format == "srt" else vtt)(transcript.words)
    if format == "json":
        words = [asdict(word) for word in transcript.words]
        row = {"audio_filepath": name, "text": transcript.text, "words": words}
        return printable_json(row) + "\n"
    return f"{printable(name)}\t{printable(transcript.text)}\n"


def make_parser() -> Parser:
    """Define the arguments of the command."""
    parser = Parser(
        prog="asr transcribe", description="Turn recordings into text, with word times."
    )
    parser.add_argument("files", nargs="+", help="audio files, folders, or - for standard input")
    parser.add_argument(
        "--model", required=True, type=model_path,
        help="a model file of asr train, or a run's folder, whose best model is taken",
    )  # fmt: skip
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


def output_file(source: Input, options: argparse.Namespace) -> Path:
    """Name the file that the transcript of an input goes to, with --output-dir."""
    suffix = {"text": ".txt", "json": ".json"}.get(options.format, f".{options.format}")
    path: Path = options.output_dir / f"{source.relative}{suffix}"
    return path
