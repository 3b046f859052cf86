"""asr shrink: write a model file with its weights in fewer bytes, to hand on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asr.cli.options import Parser, check_outputs
from asr.cli.terminal import say
from asr.starter_model import model_path

if TYPE_CHECKING:
    from asr.recognizer import Recognizer

FLOAT32_BYTES = 4


def main(arguments: list[str]) -> int:
    """Shrink a model file.

    Raises:
        ValueError: an output that exists, a model that is small already, or a lexicon that is none
            for it.
        OSError: a model or lexicon that cannot be read, or an output that cannot be written.
    """
    options = make_parser().parse_args(arguments)
    check_outputs([options.output], [options.model, options.lexicon])
    if options.output.exists() and not options.overwrite:
        raise ValueError(f"{options.output} exists, expected a new file or --overwrite")
    before = options.model.stat().st_size  # a model that is missing is told at once
    # Imported here: `--help` and a mistake in the call need no torch.
    from asr.model_file import file_digest, load_model, save_model

    recognizer, training = load_model(options.model)
    num_weights = sum(weight.numel() for weight in recognizer.parameters())
    if before < FLOAT32_BYTES * num_weights:
        raise ValueError(
            f"{options.model} has fewer than {FLOAT32_BYTES} bytes a weight already, expected the "
            "model that it was made of"
        )
    if options.lexicon is not None:
        recognizer.describe(replace(recognizer.spec, **_lexicon(options.lexicon, recognizer)))
    origin = f"{options.model.name} (sha256 {file_digest(options.model)[:12]})"
    save_model(options.output, recognizer, {**training, "shrunk_from": origin}, options.to)
    after = options.output.stat().st_size
    say(
        f"{options.output}: {after / 1e6:.1f} MB in {options.to}, "
        f"{after / before:.0%} of {before / 1e6:.1f} MB"
    )
    return 0


def _lexicon(path: Path, recognizer: Recognizer) -> dict[str, Any]:
    """Read the words that the small model is to have, in the phones of the model."""
    from asr.lexicon import read_words_of_model
    from asr.model_spec import lexicon_fields

    if recognizer.lexicon is None:
        raise ValueError("--lexicon has no effect on a model of characters, expected one of phones")
    return lexicon_fields(read_words_of_model(path, recognizer.lexicon.phones, recognizer.text))


def make_parser() -> Parser:
    """Define the arguments of the command."""
    parser = Parser(
        prog="asr shrink",
        description="Write a model file with its weights in 8 or 16 bits in place of 32, to hand "
        "it on. It is used like any other, as fast, and from its float32 weights a training "
        "starts. asr evaluate tells what it costs, if anything.",
    )
    parser.add_argument(
        "model", type=model_path, help="model file, a run's folder, or a name of asr models"
    )
    parser.add_argument("--output", required=True, type=Path, help="model file to write")
    parser.add_argument(
        "--to", choices=("int8", "float16"), default="int8",
        help="int8: a quarter of the size, whole numbers with a scale for each row of a matrix; "
        "float16: half of it; default: int8",
    )  # fmt: skip
    parser.add_argument(
        "--lexicon", type=Path, metavar="FILE",
        help="the words that it will have, of a model of phones; default: those of the model",
    )  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace a file that exists")
    return parser
