"""Model files of either form, told apart by what they hold and written by what they are called."""

from __future__ import annotations

from pathlib import Path

from asr.decoder.ngram.arpa import read_arpa, write_arpa
from asr.decoder.ngram.model import NgramModel
from asr.decoder.ngram.ngram_file import MAGIC, read_ngram_file, write_ngram_file
from asr.untrusted import open_regular

SUFFIXES = (".ngram", ".arpa", ".arpa.gz")
_KENLM = b"mmap lm http://kheafield.com/code"


def load_ngram_model(path: Path) -> NgramModel:
    """Read an ARPA file (plain or gzip) or a `.ngram` file, whatever its name.

    Raises:
        ValueError: neither, or damaged.
        OSError: missing or unreadable.
    """
    if is_ngram_file(path):
        return read_ngram_file(path)
    if is_kenlm_binary(path):
        raise ValueError(f"{path}: a binary of KenLM, expected the ARPA file that it was made of")
    return read_arpa(path)


def is_ngram_file(path: Path) -> bool:
    """Whether a file is of the compact form, whatever its name.

    Raises:
        ValueError: not a regular file.
        OSError: missing or unreadable.
    """
    return _begins_with(path, MAGIC)


def is_kenlm_binary(path: Path) -> bool:
    """Whether a file is of KenLM's own form, whatever its name.

    Raises:
        ValueError: not a regular file.
        OSError: missing or unreadable.
    """
    return _begins_with(path, _KENLM)


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


def _begins_with(path: Path, begin: bytes) -> bool:
    with open_regular(path, "a language model") as file:
        return file.read(len(begin)) == begin
