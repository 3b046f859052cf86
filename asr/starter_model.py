"""Trained models that come with asr: folders of a model, its card and its decoder, by name."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from asr.untrusted import open_regular, read_text

BEST_MODEL = "best.safetensors"  # of a run's folder
MODEL, CARD, DECODER = "model.safetensors", "card.md", "decoder.yaml"  # of a model's folder
EXPORTED = ".onnx"  # suffix of a file of `asr export`
EXPORTED_MODEL = f"model{EXPORTED}"  # of a folder where it was put by hand
NAME = re.compile(r"[\w-]+")  # of a model: what has a slash or a suffix is a path
MAX_CARD_BYTES = 1 << 16
# In the place of a model: that of a folder beside its own, which has it.
ANOTHER = re.compile(rb"\.\./[\w-]+/" + re.escape(MODEL.encode()) + rb"\s*")
MAX_ANOTHER_BYTES = 256


@dataclass(frozen=True)
class Card:
    """What a model's card says of it.

    Attributes:
        about: what it is for, in one line.
        text: all of the card.
    """

    about: str
    text: str


def models_dir() -> Path:
    """Name the folder of models: inside the installed package, else beside it in a checkout."""
    package = Path(__file__).resolve().parent
    installed = package / "models"
    return installed if installed.is_dir() else package.parent / "models"


def model_names() -> list[str]:
    """List the models that come with asr."""
    return sorted(file.parent.name for file in models_dir().glob(f"*/{MODEL}"))


def model_folder(name: str) -> Path:
    """Find the folder of a model that comes with asr.

    Raises:
        ValueError: there is none of that name.
    """
    names = model_names()
    if name in names:
        return models_dir() / name
    known = f"expected one of {', '.join(names)}" if names else "as none comes with this asr"
    raise ValueError(f"no model is called {name!r}, {known}")


def model_path(name: str | Path) -> Path:
    """Find the model file that a user names.

    Args:
        name: a model file; the folder of a run, for its best model, or of a model; or the name of a
            model that comes with asr, where nothing else is called so.

    Raises:
        FileNotFoundError: neither a file nor a model has that name. A path is not looked for.
    """
    path = Path(name)
    for file in (BEST_MODEL, MODEL, EXPORTED_MODEL):
        if (path / file).is_file():
            return path / file
    if NAME.fullmatch(str(name)) is None or os.path.lexists(path):
        return path
    try:
        return model_folder(str(name)) / MODEL
    except ValueError as error:
        raise FileNotFoundError(2, f"no such file, and {error}", str(name)) from error


def decoder_file(model_file: Path) -> Path | None:
    """Find the decoder settings that lie beside the model of a model's folder, if any."""
    file = model_file.with_name(DECODER)
    is_there = model_file.name in (MODEL, EXPORTED_MODEL) and file.is_file()
    return file if is_there else None


def weights_path(model_file: Path) -> Path:
    """Find the file that holds a model: it may be that of another model's folder.

    The model.safetensors of a folder may be a line, `../NAME/model.safetensors`, so that one model
    serves two tasks, each with a card and a decoder of its own. It is followed once.

    Raises:
        OSError: missing or unreadable.
    """
    if model_file.name != MODEL:
        return model_file
    with open_regular(model_file, "a model file") as file:
        line = file.read(MAX_ANOTHER_BYTES)
    return model_file.parent / line.decode().strip() if ANOTHER.fullmatch(line) else model_file


def read_card(folder: Path) -> Card:
    """Read the card of a model's folder: its title, and what it is for in the first line below.

    Raises:
        ValueError: it has no such line.
        OSError: missing or unreadable.
    """
    path = folder / CARD
    text = read_text(path, "the card of a model", MAX_CARD_BYTES)
    title, *lines = [line.strip() for line in text.splitlines() if line.strip()] or [""]
    if title != f"# {folder.name}" or not lines or lines[0].startswith("#"):
        raise ValueError(f"{path}: expected '# {folder.name}', and below what it is for, in a line")
    return Card(lines[0], text)
