"""asr doctor: find what is wrong with manifests, utterance by utterance."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from asr.atomic_file import replace_text
from asr.cli.options import Parser, check_outputs
from asr.cli.terminal import progress_bar
from asr.finding import OF_MANIFESTS, Kind, Severity
from asr.starter_model import model_path

if TYPE_CHECKING:
    from asr.data.doctor import Examination, Rules
    from asr.data.manifest import Utterance

ERRORS_STATUS = 1
FRAME_MS = 40.0  # [ms] features every 10 ms, 4 of them to an output frame, as conf/ has it
SAMPLE_RATE = 16_000  # [Hz]
WARNINGS = tuple(
    kind for kind in Kind if kind.severity is Severity.WARNING and kind not in OF_MANIFESTS
)


def main(arguments: list[str]) -> int:
    """Examine manifests.

    Returns:
        0 where nothing stands in the way of a training, 1 where errors were found.

    Raises:
        ValueError: a mistake in the call.
        OSError: a manifest that cannot be read, or a file that cannot be written.
    """
    options = make_parser().parse_args(arguments)
    also = _check(options)
    # Imported here: `--help` and a mistake in the call need none of it.
    from rich.console import Console

    from asr.cli.doctor_view import examination_view
    from asr.data.doctor import clean_paths, examine, quantities, shortfall_quantity
    from asr.report.wording import visible

    clean_to = clean_paths(options.manifests, options.clean) if options.clean else []
    outputs = [options.json, options.picture, *clean_to]
    check_outputs(outputs, [*options.manifests, options.model])
    rules = _rules(options)
    console = Console(highlight=False)
    with progress_bar("examining", "utterances") as progress:
        examination = examine(
            options.manifests, rules, options.headers_only, options.jobs, progress
        )
    # Once more, now that the recordings that the manifests name are known.
    check_outputs(
        outputs,
        (
            each.utterance.audio_filepath
            for manifest in examination.manifests
            for each in manifest.utterances
        ),
    )
    shown = quantities(rules.min_duration_s, rules.max_duration_s)
    if rules.shortfall is not None:
        shown = (*shown, shortfall_quantity(rules.max_shortfall))
    for part in examination_view(examination, shown):
        console.print(part)
    for path in _write(examination, rules, options, clean_to, also):
        console.print(visible(path), markup=False, soft_wrap=True)
    is_bad = any(f.kind.severity is Severity.ERROR for f in examination.findings)
    return ERRORS_STATUS if is_bad else 0


def make_parser() -> Parser:
    """Define the arguments of the command."""
    parser = Parser(
        prog="asr doctor",
        description="Examine manifests and their audio before training on them. Give train first: "
        "audio that is also in a later manifest is an error of the earlier one.",
        epilog="Exit status: 0 no errors, 1 errors, 2 a mistake in the call.",
    )
    parser.add_argument("manifests", nargs="+", type=Path, metavar="MANIFEST")
    model = parser.add_argument_group("what is expected")
    model.add_argument(
        "--model", type=model_path, metavar="FILE",
        help="a model file, run's folder or name: its alphabet, text rules, sample rate and output "
        "frames; it also recognises each utterance, and texts unlike its hypothesis are warned of",
    )  # fmt: skip
    model.add_argument(
        "--alphabet", help="characters that texts may have; default: those of the first manifest"
    )
    model.add_argument("--sample-rate", type=int, metavar="HZ", help=f"default: {SAMPLE_RATE}")
    model.add_argument(
        "--frame-ms", type=float, metavar="MS", help=f"between output frames; default: {FRAME_MS:g}"
    )
    model.add_argument(
        "--speed", type=float, default=1.0, metavar="FACTOR",
        help="fastest of the augmentation (augment=full: 1.1); default: 1",
    )  # fmt: skip
    model.add_argument("--min-duration", type=float, default=0.1, metavar="S", help="default: 0.1")
    model.add_argument("--max-duration", type=float, default=40.0, metavar="S", help="default: 40")
    work = parser.add_argument_group("the work")
    work.add_argument(
        "--headers-only", action="store_true",
        help="decode nothing: no levels, clipping, silence, cut files, equal recordings, and no "
        "recognition",
    )  # fmt: skip
    work.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, metavar="N",
        help="threads that decode; default: one a core",
    )  # fmt: skip
    _add_outputs(parser)
    return parser


def _add_outputs(parser: argparse.ArgumentParser) -> None:
    output = parser.add_argument_group("what is written")
    output.add_argument(
        "--clean", type=Path, metavar="OUT",
        help="the manifest without the errors, as JSONL; a folder where there are several",
    )  # fmt: skip
    output.add_argument(
        "--clean-warnings", action="store_true", help="leave out what has a warning as well"
    )
    output.add_argument(
        "--clean-kinds", metavar="KIND,...",
        help=f"or these warnings only: {', '.join(kind.value for kind in WARNINGS)}",
    )  # fmt: skip
    output.add_argument("--json", type=Path, metavar="OUT", help="totals and all findings")
    output.add_argument("--picture", type=Path, metavar="OUT.png", help="histograms")


def _check(options: argparse.Namespace) -> list[Kind]:
    """Check the call; return the warnings that --clean leaves out as well."""
    twice = next((p for p in options.manifests if options.manifests.count(p) > 1), None)
    if twice is not None:
        raise ValueError(f"{twice} is given twice, expected each manifest once")
    for name in ("sample_rate", "frame_ms", "speed", "max_duration", "jobs"):
        value = getattr(options, name)
        if value is not None and not value > 0:
            raise ValueError(f"--{name.replace('_', '-')} {value:g}, expected more than 0")
    if not 0 <= options.min_duration < options.max_duration:
        raise ValueError(
            f"--min-duration {options.min_duration:g}, expected 0 to less than --max-duration "
            f"{options.max_duration:g}"
        )
    for name in ("alphabet", "sample_rate", "frame_ms"):
        if options.model is not None and getattr(options, name) is not None:
            raise ValueError(
                f"--{name.replace('_', '-')} and --model, expected one of them: a model has its own"
            )
    for path in (options.json, options.picture):  # found out before hours of decoding
        if path is not None and not path.absolute().parent.is_dir():
            raise ValueError(f"{path}: its folder is missing, expected one that is there")
    if options.clean is None and (options.clean_warnings or options.clean_kinds):
        raise ValueError("--clean-warnings and --clean-kinds need --clean, where to write")
    if options.clean_warnings and options.clean_kinds:
        raise ValueError("--clean-warnings and --clean-kinds, expected one of them")
    if options.clean_warnings:
        return list(WARNINGS)
    known = {kind.value: kind for kind in WARNINGS}
    names = options.clean_kinds.split(",") if options.clean_kinds else []
    unknown = next((name for name in names if name not in known), None)
    if unknown is not None:
        raise ValueError(f"--clean-kinds {unknown!r}, expected some of {', '.join(known)}")
    return [known[name] for name in names]


def _rules(options: argparse.Namespace) -> Rules:
    """Set the rules of the model that is to be trained, or of the one that is given."""
    from asr.data.doctor import Rules
    from asr.model.ctc import required_frames
    from asr.text import TextNormalizer

    limits = options.speed, options.min_duration, options.max_duration
    if options.model is None:
        frame_ms = options.frame_ms or FRAME_MS

        def frames_of_features(seconds: float) -> int:
            """Count output frames of centred features: one at the start, one every `frame_ms`."""
            # A millionth of a frame: 0.12 s hold 3.0 frames of 40 ms, and 2.9999999999999996 by
            # division.
            return int(seconds * 1000 / frame_ms + 1e-6) + 1

        return Rules(
            TextNormalizer(), options.alphabet, options.sample_rate or SAMPLE_RATE,
            frames_of_features, required_frames, *limits,
        )  # fmt: skip
    from asr.aligner import MAX_SHORTFALL, Aligner
    from asr.data.dataset import load_utterance

    aligner = Aligner.load(options.model)
    recognizer = aligner.recognizer

    def frames_of_model(seconds: float) -> int:
        return recognizer.timing.output_count(int(seconds * aligner.sample_rate))

    def shortfall(utterance: Utterance, text: str) -> float:
        return aligner.align(load_utterance(utterance, aligner.sample_rate), text).shortfall

    return Rules(
        recognizer.text, recognizer.tokenizer.alphabet, aligner.sample_rate, frames_of_model,
        required_frames, *limits, shortfall, MAX_SHORTFALL, recognizer.lexicon,
    )  # fmt: skip


def _write(
    examination: Examination,
    rules: Rules,
    options: argparse.Namespace,
    clean_to: Sequence[Path],
    also: Sequence[Kind],
) -> Iterator[str]:
    """Write what was asked for; give a line for each."""
    from asr.data.doctor import draw_examination, examination_to_json, write_clean

    bounds = rules.min_duration_s, rules.max_duration_s
    if options.json is not None:
        replace_text(options.json, examination_to_json(examination, *bounds))
        yield f"findings: {options.json}"
    if options.picture is not None:
        draw_examination(examination, options.picture, *bounds)
        yield f"picture: {options.picture}"
    if clean_to:
        left = write_clean(examination, clean_to, also)
        for path, count, manifest in zip(clean_to, left, examination.manifests, strict=True):
            yield f"cleaned: {path}, {count:,} of {manifest.lines:,} lines"
