"""Model files of either form, told apart by what they hold and written by what they are called."""

from __future__ import annotations

from pathlib import Path

from asr.decoder.ngram.arpa import read_arpa, write_arpa
from asr.decoder.ngram.model import NgramModel
from asr.decoder.ngram.ngram_file import MAGIC, read_ngram_file, write_ngram_file

SUFFIXES = (".ngram", ".arpa", ".arpa.gz")
_KENLM = b"mmap lm http://kheafield.com/code"


def load_ngram_model(path: Path) -> NgramModel:
    """Read an ARPA file (plain or gzip) or a `.ngram` file, whatever its name.

    Raises:
        ValueError: neither, or damaged.
        OSError: missing or unreadable.
    """
    with path.open("rb") as file:
        begin = file.read(len(_KENLM))
    if begin.startswith(MAGIC):
        return read_ngram_file(path)
    if begin == _KENLM:
        raise ValueError(f"{path}: a binary of KenLM, expected the ARPA file that it was made of")
    return read_arpa(path)


def check_model_name(path: Path) -> None:
    """Refuse the name of a model file that does not say its form.

    Raises:
        ValueError: it ends otherwise than SUFFIXES.
    """
    if not path.name.endswith(SUFFIXES):
        raise ValueError(f"{path}: expected a name that ends in {', '.join(SUFFIXES)}")


def save_ngram_model(path: Path, model: NgramModel) -> None:
    """Write a model in the form that its name asks for; there whole or not at all.

    Raises:
        ValueError: see `check_model_name`.
        OSError: the file cannot be written; a former one is untouched.
    """
    check_model_name(path)
    if path.suffix == ".ngram":
        write_ngram_file(path, model)
    else:
        write_arpa(path, model)
