"""asr export: a trained model as an ONNX file, which runs without torch."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from asr.atomic_file import replace_bytes
from asr.cli.options import Parser, check_outputs
from asr.cli.terminal import say, tell
from asr.starter_model import EXPORTED, EXPORTED_MODEL, decoder_file, model_path


def main(arguments: list[str]) -> int:
    """Export a model file, and check what comes out against it.

    Raises:
        ValueError: an output that exists or is called otherwise, audio that cannot be read, or an
            exported model that says something else than the original.
        OSError: a model or a recording that cannot be read, an output that cannot be written.
    """
    options = make_parser().parse_args(arguments)
    if options.output.suffix != EXPORTED:
        raise ValueError(f"{options.output}, expected a name that ends in {EXPORTED}")
    check_outputs([options.output], [options.model, options.audio])
    if options.output.exists() and not options.overwrite:
        raise ValueError(f"{options.output} exists, expected a new file or --overwrite")
    if not options.output.parent.is_dir():
        raise ValueError(f"{options.output.parent}: no folder, so {options.output} cannot be")
    before = options.model.stat().st_size  # a model that is missing is told at once
    _require_onnx()
    # Imported here: `--help` and a mistake in the call need no torch.
    from asr.audio import load_audio
    from asr.exporter import TOLERANCES, compare, exported, made_sound
    from asr.model_file import file_digest, load_model
    from asr.onnx_model import OnnxModel

    recognizer, training = load_model(options.model)
    if options.audio is None:
        name, waveform = "made sound", made_sound(recognizer.sample_rate)
    else:
        name, waveform = str(options.audio), load_audio(options.audio, recognizer.sample_rate)
    origin = f"{options.model.name} (sha256 {file_digest(options.model)[:12]})"
    content = exported(recognizer, {**training, "exported_from": origin}, options.precision)
    tolerance, fault = TOLERANCES[options.precision], f"{options.output} is not written"
    try:
        agreement = compare(recognizer, OnnxModel(content), waveform)
    except ValueError as error:
        raise ValueError(f"{fault}: {error}") from error
    if not agreement.largest <= tolerance:
        raise ValueError(
            f"{fault}: log-probabilities that differ by {agreement.largest:.3g} nats on {name}, "
            f"expected at most {tolerance:g} in {options.precision}"
        )
    replace_bytes(options.output, content)
    after, seconds = len(content), len(waveform) / recognizer.sample_rate
    say(
        f"{options.output}: {after / 1e6:.1f} MB in {options.precision}, {after / before:.0%} of "
        f"{before / 1e6:.1f} MB\n"
        f"checked on {seconds:.1f} s, {name}: log-probabilities differ by at most "
        f"{agreement.largest:.2g} nats, {agreement.num_changed} of {agreement.num_frames} frames "
        "have another label"
    )
    own = decoder_file(options.model)
    if own is not None:
        tell(
            f"note: {own} is no part of it: in a folder with it and its files, call the model "
            f"{EXPORTED_MODEL}"
        )
    return 0


def _require_onnx() -> None:
    for package in ("onnx", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise ValueError(
                f"{package} is not installed, which asr export needs: pip install 'lstm-asr[onnx]'"
            )


def make_parser() -> Parser:
    """Define the arguments of the command."""
    parser = Parser(
        prog="asr export",
        description="Write a trained model as an ONNX file: samples in, log-probabilities out. asr "
        "transcribe --model FILE.onnx runs it without torch, and any other program by onnxruntime. "
        "It is run once beside the original, and not written where it says something else.",
    )
    parser.add_argument(
        "model", type=model_path, help="model file, a run's folder, or a name of asr models"
    )
    parser.add_argument(
        "--output", required=True, type=Path, metavar="FILE", help="file to write, in .onnx"
    )
    parser.add_argument(
        "--precision", choices=("float32", "float16", "int8"), default="float32",
        help="of the weights as they are stored; int8: a quarter of the size; float16: half of it; "
        "default: float32",
    )  # fmt: skip
    parser.add_argument(
        "--audio", type=Path, metavar="FILE",
        help="recording that both models hear; default: a sound that is made",
    )  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace a file that exists")
    return parser
