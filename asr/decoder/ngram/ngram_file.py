"""`.ngram` files: a model's arrays as they lie in memory, so that loading is reading.

8 bytes     b"asrngram"
4 bytes     format version, little-endian
4 bytes     length of the header, little-endian
header      JSON: order, sha256 of everything after the header, and of each part its name,
            number type and count
parts       one after the other: the words in UTF-8 with a line feed between them, then the
            arrays of `NgramModel`, little-endian
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from asr.atomic_file import replacing
from asr.decoder.ngram.model import NgramModel

MAGIC = b"asrngram"
FORMAT_VERSION = 1
MAX_HEADER_BYTES = 1 << 12
_PREFIX = struct.Struct("<8sII")
_TYPES = {
    "words": "<u1",
    "log_probs": "<f4",
    "backoffs": "<f4",
    "word_ids": "<i4",
    "first_children": "<i8",
    "suffixes": "<i4",
}


def is_ngram_file(path: Path) -> bool:
    """Whether a file begins as those of `write_ngram_file` do.

    Raises:
        OSError: missing or unreadable.
    """
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def write_ngram_file(path: Path, model: NgramModel) -> None:
    """Write a model in the compact form; the file is there whole or not at all.

    Raises:
        OSError: the file cannot be written; a former one is untouched.
    """
    words = np.frombuffer("\n".join(model.words).encode(), np.uint8)
    values: list[NDArray[Any]] = [words, *model.arrays]
    parts = {name: a.astype(t) for (name, t), a in zip(_TYPES.items(), values, strict=True)}
    digest = hashlib.sha256()
    for part in parts.values():
        digest.update(part.data)
    header = json.dumps(
        {
            "order": model.order,
            "sha256": digest.hexdigest(),
            "parts": [[name, _TYPES[name], len(part)] for name, part in parts.items()],
        }
    ).encode()
    with replacing(path) as file:
        file.write(_PREFIX.pack(MAGIC, FORMAT_VERSION, len(header)) + header)
        for part in parts.values():
            file.write(part.data.cast("B"))


def read_ngram_file(path: Path) -> NgramModel:
    """Read a file of `write_ngram_file`; nothing in it is run, and every byte is checked.

    Raises:
        ValueError: no such file, damaged, of another size than it says, of another version.
        OSError: missing or unreadable.
    """
    with path.open("rb") as file:
        header = _read_header(path, file)
        counts = _counts(path, header)
        expected = file.tell() + sum(np.dtype(_TYPES[n]).itemsize * c for n, c in counts.items())
        actual = os.fstat(file.fileno()).st_size
        if actual != expected:
            raise ValueError(f"{path}: {actual} bytes, expected {expected} as its header says")
        digest = hashlib.sha256()
        parts = {name: _read_part(file, name, count, digest) for name, count in counts.items()}
    if digest.hexdigest() != header["sha256"]:
        raise ValueError(
            f"{path}: damaged: sha256 {digest.hexdigest()[:12]}..., expected "
            f"{str(header['sha256'])[:12]}..."
        )
    try:
        words = tuple(parts.pop("words").tobytes().decode().split("\n"))
        return NgramModel(order=header["order"], words=words, **parts)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _read_part(file: BinaryIO, name: str, count: int, digest: hashlib._Hash) -> NDArray[Any]:
    part = np.fromfile(file, _TYPES[name], count)
    digest.update(part.data)
    # Native and writable, as a trained model's: compiled code knows one kind of array.
    return part.astype(part.dtype.newbyteorder("="), copy=False)


def _read_header(path: Path, file: BinaryIO) -> dict[str, Any]:
    prefix = file.read(_PREFIX.size)
    if prefix[: len(MAGIC)] != MAGIC or len(prefix) < _PREFIX.size:
        raise ValueError(f"{path}: begins with {prefix[:8]!r}, expected {MAGIC!r}: no .ngram file")
    _, version, length = _PREFIX.unpack(prefix)
    if version != FORMAT_VERSION:
        raise ValueError(f"{path}: .ngram format version {version}, expected {FORMAT_VERSION}")
    if length > MAX_HEADER_BYTES:
        raise ValueError(f"{path}: header of {length} bytes, expected at most {MAX_HEADER_BYTES}")
    try:
        header = json.loads(file.read(length))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: damaged header ({error})") from error
    if not isinstance(header, dict) or header.keys() != {"order", "sha256", "parts"}:
        raise ValueError(f"{path}: damaged header, expected order, sha256 and parts")
    if type(header["order"]) is not int:
        raise ValueError(f"{path}: order {header['order']!r}, expected a whole number")
    return header


def _counts(path: Path, header: dict[str, Any]) -> dict[str, int]:
    """How many numbers each part has."""
    parts = header["parts"]
    well_formed = isinstance(parts, list) and all(
        isinstance(part, list) and len(part) == 3 and type(part[2]) is int and part[2] >= 0
        for part in parts
    )
    if not well_formed or [part[:2] for part in parts] != [list(p) for p in _TYPES.items()]:
        raise ValueError(f"{path}: damaged header, expected the parts {', '.join(_TYPES)}")
    return {name: count for name, _, count in parts}
