"""asr transcribe: recordings to text, JSON or subtitles."""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from asr.atomic_file import replace_text
from asr.cli.decoder import add_decoder_options, decoder_settings, load_transcriber
from asr.cli.live import check_live, listen
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
from asr.starter_model import decoder_file
from asr.text import printable

if TYPE_CHECKING:
    from asr.transcriber import Transcriber
    from asr.transcript import Transcript

# Formats, and the ending of a file's name that stands for each.
FORMATS = {"text": ".txt", "json": ".json", "srt": ".srt", "vtt": ".vtt", "manifest": ".jsonl"}
JSON_LINES = ".jsonl"  # of several recordings
NUM_NAMED = 5  # of the files that are passed over
MIX, EACH = "mix", "each"  # of the channels


@dataclass(frozen=True)
class Input:
    """One recording to transcribe.

    Attributes:
        name: as the user gave it, "-" for standard input.
        relative: path of its output below --output-dir, without suffix.
    """

    name: str
    relative: Path


Write = Callable[[Input, str], None]


def main(arguments: list[str]) -> int:
    """Transcribe, each recording by itself.

    Returns:
        0, or 2 where an input failed; all others are done all the same.
    """
    options = make_parser().parse_intermixed_args(arguments)
    check_live(options)
    inputs = [] if options.live else find_inputs(options.files, options.output_dir)
    _check_format(options, inputs)
    own = decoder_file(options.model)
    settings = decoder_settings(options, own)
    check_outputs(
        [options.output, *(output_file(source, options) for source in inputs)],
        [*(source.name for source in inputs), options.model, options.calibration,
         options.decoder_config, own, settings.get("language_model"), settings.get("lexicon"),
         settings.get("phrases")],
    )  # fmt: skip
    os.stat(options.model)  # a model that is missing is told at once
    transcriber = load_transcriber(options.model, settings, options.device, options.calibration)
    if options.live:
        return listen(transcriber, options)
    labels = None
    if options.format == "manifest":
        from asr.pseudo_labels import PseudoLabels

        labels = PseudoLabels(options.min_confidence or 0.0, bool(options.speakers))
    failures = 0
    with open_output(options) as write:
        for source, result in transcripts(transcriber, inputs, options):
            fault: Exception | None = None
            if isinstance(result, Exception):
                fault = result
            else:
                if labels is not None:
                    text = labels.manifest(source.name, result, options.output)
                else:
                    text = render(source.name, result, options, is_only=len(inputs) == 1)
                fault = attempt(partial(write, source, text), source.name)
            if fault is not None:
                failures += 1
                tell(f"error: {one_line(fault)}")
    if failures:
        tell(f"{failures} of {len(inputs)} files failed")
    if labels is not None:
        tell(labels.summary())
    return USER_ERROR_STATUS if failures else 0


def _check_format(options: argparse.Namespace, inputs: Sequence[Input]) -> None:
    """Settle the format, and refuse options that do not go with it or with each other."""
    num_inputs = len(inputs)
    if options.output is not None:
        if options.output_dir is not None:
            raise ValueError("--output and --output-dir, expected one of them")
        _settle_format(options)
        if options.output.suffix == FORMATS["json"] and num_inputs > 1:
            raise ValueError(
                f"--output {options.output} for {num_inputs} files, expected a name in "
                f"{JSON_LINES}: an object a line"
            )
        if not options.output.parent.is_dir():
            raise ValueError(f"{options.output.parent}: no folder, so {options.output} cannot be")
    options.format = options.format or "text"
    format = options.format
    if format in ("srt", "vtt") and num_inputs > 1 and options.output_dir is None:
        raise ValueError(
            f"--format {format} for {num_inputs} files needs --output-dir: "
            "subtitles of several recordings do not fit into one stream"
        )
    for name, value in (("--calibration", options.calibration), ("--n-best", options.nbest)):
        holding = ("json", "manifest") if name == "--calibration" else ("json",)
        if value is not None and format not in holding:
            raise ValueError(
                f"{name} has no effect with --format {format}, expected json, which holds "
                f"{'confidences' if name == '--calibration' else 'alternatives'}"
            )
    _check_manifest(options, inputs)
    if options.speakers and options.channel != EACH:
        raise ValueError("--speaker has no effect without --channel each")


def _check_manifest(options: argparse.Namespace, inputs: Sequence[Input]) -> None:
    """Refuse what makes no manifest to learn from, and --min-confidence without one."""
    least = options.min_confidence
    if least is not None and not 0 <= least <= 1:
        raise ValueError(f"--min-confidence {least:g}, expected 0 to 1")
    if options.format != "manifest":
        if least is not None:
            raise ValueError(
                f"--min-confidence has no effect with --format {options.format}, expected manifest"
            )
        return
    if options.output_dir is not None:
        raise ValueError("--format manifest with --output-dir, expected --output: one file of all")
    if STDIN in options.files:
        raise ValueError("standard input has no path for a manifest, expected files")
    paths = Counter(os.path.realpath(source.name) for source in inputs)
    path, count = paths.most_common(1)[0]
    if count > 1:
        raise ValueError(f"{path} is given {count} times, expected each recording once")


def _settle_format(options: argparse.Namespace) -> None:
    """Take the format of --output from its ending, where --format does not tell it."""
    endings = {ending: format for format, ending in FORMATS.items()} | {JSON_LINES: "json"}
    ending = options.output.suffix.lower()
    named = endings.get(ending)
    if options.format == "manifest" and ending != FORMATS["manifest"]:
        raise ValueError(f"--output {options.output}, expected a name in .jsonl for a manifest")
    if options.format is None and named is None:
        raise ValueError(
            f"--output {options.output}, expected a name in {', '.join(endings)}, or --format"
        )
    if (
        named is not None
        and named != (options.format or named)
        and ending != FORMATS[options.format]
    ):
        tell(f"note: {options.output} will hold {options.format}, as --format says, not {named}")
    options.format = options.format or named


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


def transcripts(
    transcriber: Transcriber, inputs: Sequence[Input], options: argparse.Namespace
) -> Iterator[tuple[Input, Transcript | Exception]]:
    """Transcribe side by side, and show how much audio is done.

    Yields:
        Each input with its transcript, or with what is wrong with it: in the order of the inputs,
        or with --output-dir as soon as it is done.
    """
    sources: list[str | bytes] = []
    numbers: dict[
        Path | str | bytes, list[int]
    ] = {}  # of the inputs of each source: some come twice
    done: dict[int, Transcript | Exception] = {}
    for number, each in enumerate(inputs):
        audio: str | bytes | Exception = each.name
        if each.name == STDIN:
            audio = attempt(partial(read_standard_input, "audio", MAX_STDIN_BYTES), STDIN)
        if isinstance(audio, Exception):
            done[number] = audio
        else:
            sources.append(audio)
            numbers.setdefault(audio, []).append(number)
    following = 0  # of the inputs, that is yielded next
    with progress_bar("transcribing", "s of audio") as progress:

        def tell_progress(seconds: float, total: float | None) -> None:
            progress(round(seconds), None if total is None else round(total))

        results = transcriber.transcribe_files(
            sources,
            channel=None if options.channel == MIX else options.channel,
            speakers=options.speakers,
            progress=tell_progress,
        )
        for source, result in results:
            number = numbers[source].pop(0)
            if options.output_dir is not None:
                yield inputs[number], result
                continue
            done[number] = result
            while following in done:
                yield inputs[following], done.pop(following)
                following += 1
    for number in sorted(done):  # standard input, where it alone failed
        yield inputs[number], done[number]


def render(name: str, transcript: Transcript, options: argparse.Namespace, is_only: bool) -> str:
    """Write a transcript in one of FORMATS.

    text is `name<TAB>text` on a line, and a line a turn where there are speakers; a file of one
    recording has no names. json is one object on a line.
    """
    if options.format == "srt":
        return transcript.srt()
    if options.format == "vtt":
        return transcript.vtt()
    if options.format == "json":
        return transcript.json(name, options.nbest or 0) + "\n"
    is_alone = options.output_dir is not None or (options.output is not None and is_only)
    lead = "" if is_alone else f"{printable(name)}\t"
    lines = [
        f"{lead}{printable(f'{turn.speaker}: ' if turn.speaker else '')}{printable(turn.text)}\n"
        for turn in transcript.turns
    ]
    return "".join(lines) or f"{lead}\n"


@contextmanager
def open_output(options: argparse.Namespace) -> Iterator[Write]:
    """Take texts while the block runs: for the terminal, a file of all, or a file each.

    The file of all is there when the block ends without an error, unless no text came.
    """
    texts: list[str] = []

    def write(source: Input, text: str) -> None:
        path = output_file(source, options)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_text(path, text)
        elif options.output is not None:
            texts.append(text)
        else:
            sys.stdout.write(text)
            sys.stdout.flush()

    yield write
    if texts and (any(texts) or options.format != "manifest"):  # which is none without a line
        replace_text(options.output, "".join(texts))


def make_parser() -> Parser:
    """Define the arguments of the command."""
    parser = Parser(
        prog="asr transcribe", description="Turn recordings into text, with word times."
    )
    parser.add_argument("files", nargs="*", help="audio files, folders, or - for standard input")
    add_model_option(parser)
    parser.add_argument(
        "--format", choices=tuple(FORMATS),
        help="default: text, or what the ending of --output says",
    )  # fmt: skip
    parser.add_argument(
        "--output", type=Path, metavar="FILE",
        help="write all there instead of to the terminal: .txt, .json, .jsonl, .srt, .vtt",
    )  # fmt: skip
    parser.add_argument(
        "--output-dir", type=Path, metavar="FOLDER", help="write a file a recording there"
    )
    parser.add_argument(
        "--channel", type=_channel, default=MIX, metavar="CHANNEL",
        help="mix: the mean of all; a number from 0: that one; each: all, one by one; default: mix",
    )  # fmt: skip
    parser.add_argument(
        "--speaker", dest="speakers", action="append", default=[], metavar="NAME",
        help="who speaks on a channel, once for each; default: channel 0, channel 1, ...",
    )  # fmt: skip
    parser.add_argument(
        "--calibration", type=Path, metavar="FILE",
        help="of asr evaluate fit_calibration=FILE: confidences become probabilities",
    )  # fmt: skip
    parser.add_argument(
        "--min-confidence", type=float, metavar="P",
        help="leave out segments that have a word of less confidence, 0 to 1 (--format manifest)",
    )  # fmt: skip
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda; default: auto")
    live = parser.add_argument_group("live", "Words while somebody speaks.")
    live.add_argument(
        "--live", action="store_true",
        help="listen to the microphone; with -, to raw samples of 16 bits, one channel",
    )  # fmt: skip
    live.add_argument(
        "--sample-rate", type=int, metavar="HZ", help="of these; default: that of the model"
    )
    live.add_argument(
        "--microphone",
        metavar="NAME",
        help="its number, or a part of its name; default: the system's",
    )
    add_decoder_options(parser)
    return parser


def _channel(text: str) -> str | int:
    if text in (MIX, EACH):
        return text
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}, expected {MIX}, {EACH} or a number from 0")
    return int(text)


def output_file(source: Input, options: argparse.Namespace) -> Path | None:
    """Name the file that the transcript of an input goes to, with --output-dir."""
    if options.output_dir is None:
        return None
    path: Path = options.output_dir / f"{source.relative}{FORMATS[options.format]}"
    return path
