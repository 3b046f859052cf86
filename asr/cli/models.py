"""asr models: the trained models that come with asr, and what their cards say."""

from __future__ import annotations

from pathlib import Path

from asr.cli.options import Parser
from asr.cli.terminal import print_table, say
from asr.starter_model import MODEL, model_folder, model_names, models_dir, read_card, weights_path
from asr.text import printable


def main(arguments: list[str]) -> int:
    """List the models, or print the card of one."""
    options = make_parser().parse_args(arguments)
    if options.name is not None:
        folder = model_folder(options.name)
        say(f"{read_card(folder).text.rstrip()}\n\nIts files: {folder}")
        return 0
    names = model_names()
    if not names:
        say(f"no model comes with this asr ({models_dir()} has none): train one, or give a file")
        return 0
    # Imported here: `--help` and a mistake in the call need none of it.
    from rich.table import Table

    table = Table("name", "what it is for", "size", "sample rate", "writes")
    for name in names:
        table.add_row(*(printable(cell) for cell in _row(models_dir() / name)))
    print_table(table)
    say(f"the card of one: asr models {names[0]}")
    return 0


def _row(folder: Path) -> tuple[str, ...]:
    """Tell a model in a line: name, purpose, size of all its files, sample rate and units."""
    from asr.model_file import load_model

    recognizer, _ = load_model(folder / MODEL)
    size = sum(weights_path(file).stat().st_size for file in folder.iterdir())
    weights = sum(each.numel() for each in recognizer.model.parameters())
    return (
        folder.name,
        read_card(folder).about,
        f"{size / 1e6:.1f} MB, {weights / 1e6:.1f} M weights",
        f"{recognizer.sample_rate / 1000:g} kHz",
        f"{len(recognizer.spec.phones)} phones"
        if recognizer.spec.phones
        else f"{len(recognizer.label_names)} characters",
    )


def make_parser() -> Parser:
    """Define the arguments of the command."""
    parser = Parser(
        prog="asr models",
        description="List the trained models that come with asr. Their names stand for a model "
        "file: --model NAME, model_file=NAME, init_from=NAME.",
    )
    parser.add_argument("name", nargs="?", help="print the card of this one")
    return parser
