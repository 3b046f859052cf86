"""asr average: write the mean of several model files."""

from __future__ import annotations

from pathlib import Path

from asr.cli.options import Parser, check_outputs
from asr.cli.terminal import say
from asr.starter_model import model_path


def main(arguments: list[str]) -> int:
    """Average model files.

    Raises:
        ValueError: an output that exists, or models that have no average.
        OSError: a model that cannot be read, or an output that cannot be written.
    """
    options = make_parser().parse_args(arguments)
    check_outputs([options.output], options.models)
    if options.output.exists() and not options.overwrite:
        raise ValueError(f"{options.output} exists, expected a new file or --overwrite")
    for path in options.models:
        path.stat()  # a model that is missing is told at once
    # Imported here: `--help` and a mistake in the call need no torch.
    from asr.model_file import average_models, save_model

    recognizer, training = average_models(options.models)
    save_model(options.output, recognizer, training)
    has_statistics = any(name.endswith("running_mean") for name, _ in recognizer.named_buffers())
    too = ", batch norm's running statistics too" if has_statistics else ""
    say(f"{options.output}: mean of {len(options.models)} models{too}")
    return 0


def make_parser() -> Parser:
    """Define the arguments of the command."""
    parser = Parser(
        prog="asr average",
        description="Write the arithmetic mean of models of one training, its last validations for "
        "instance: weights and batch norm's running statistics.",
    )
    parser.add_argument("models", nargs="+", type=model_path, help="model files, two or more")
    parser.add_argument("--output", required=True, type=Path, help="model file to write")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that exists")
    return parser
