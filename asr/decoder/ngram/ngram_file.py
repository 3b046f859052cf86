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
from asr.memory import require_memory
from asr.untrusted import open_regular, parse_json

MAGIC = b"asrngram"
FORMAT_VERSION = 1
MAX_HEADER_BYTES = 1 << 12
WORD_BYTES = 20  # of memory a byte of words: they have five letters or more, and 57 bytes as text
_PREFIX = struct.Struct("<8sII32s")
_TYPES = {
    "words": "<u1",
    "log_probs": "<f4",
    "backoffs": "<f4",
    "word_ids": "<i4",
    "first_children": "<i8",
    "suffixes": "<i4",
}


def write_ngram_file(path: Path, model: NgramModel) -> None:
    """Write a model in the compact form; the file is there whole or not at all.

    Raises:
        OSError: the file cannot be written; a former one is untouched.
    """
    words = np.frombuffer("\n".join(model.words).encode(), np.uint8)
    values: list[NDArray[Any]] = [words, *model.arrays]
    parts = {name: a.astype(t) for (name, t), a in zip(_TYPES.items(), values, strict=True)}
    shape = [[name, _TYPES[name], len(part)] for name, part in parts.items()]
    header = json.dumps({"order": model.order, "parts": shape}).encode()
    digest = hashlib.sha256(header)
    for part in parts.values():
        digest.update(part.data)
    with replacing(path) as file:
        file.write(_PREFIX.pack(MAGIC, FORMAT_VERSION, len(header), digest.digest()) + header)
        for part in parts.values():
            file.write(part.data.cast("B"))


def read_ngram_file(path: Path) -> NgramModel:
    """Read a file of `write_ngram_file`; nothing in it is run, and every byte is checked.

    Raises:
        ValueError: no such file, damaged, of another size than it says, of another version.
        OSError: missing or unreadable.
    """
    with open_regular(path, "a language model") as file:
        content, sha256 = _read_header(path, file)
        order, counts = _parse_header(path, content)
        expected = file.tell() + sum(np.dtype(_TYPES[n]).itemsize * c for n, c in counts.items())
        actual = os.fstat(file.fileno()).st_size
        if actual != expected:
            raise ValueError(f"{path}: {actual} bytes, expected {expected} as its header says")
        # Words become objects; a file with holes in it may be of any size.
        require_memory(expected + WORD_BYTES * counts["words"], str(path))
        digest = hashlib.sha256(content)
        parts = {name: _read_part(file, name, count, digest) for name, count in counts.items()}
    if digest.digest() != sha256:
        actual_hex = digest.hexdigest()[:12]
        raise ValueError(
            f"{path}: damaged: sha256 {actual_hex}..., expected {sha256.hex()[:12]}..."
        )
    try:
        text = parts.pop("words").tobytes()
        if text.count(b"\n") >= counts["log_probs"]:
            raise ValueError("not an n-gram model: more words than nodes")
        return NgramModel(order=order, words=tuple(text.decode().split("\n")), **parts)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _read_part(file: BinaryIO, name: str, count: int, digest: hashlib._Hash) -> NDArray[Any]:
    part = np.fromfile(file, _TYPES[name], count)
    digest.update(part.data)
    # Native and writable, as a trained model's: compiled code knows one kind of array.
    return part.astype(part.dtype.newbyteorder("="), copy=False)


def _read_header(path: Path, file: BinaryIO) -> tuple[bytes, bytes]:
    """The header as it is, and the SHA-256 of it and the rest."""
    prefix = file.read(_PREFIX.size)
    if prefix[: len(MAGIC)] != MAGIC or len(prefix) < _PREFIX.size:
        raise ValueError(f"{path}: begins with {prefix[:8]!r}, expected {MAGIC!r} and a header")
    _, version, length, sha256 = _PREFIX.unpack(prefix)
    if version != FORMAT_VERSION:
        raise ValueError(f"{path}: .ngram format version {version}, expected {FORMAT_VERSION}")
    if length > MAX_HEADER_BYTES:
        raise ValueError(f"{path}: header of {length} bytes, expected at most {MAX_HEADER_BYTES}")
    return file.read(length), sha256


def _parse_header(path: Path, content: bytes) -> tuple[int, dict[str, int]]:
    """The order, and how many numbers each part has."""
    header = parse_json(content.decode(errors="replace"), path, "a header")
    if not isinstance(header, dict) or header.keys() != {"order", "parts"}:
        raise ValueError(f"{path}: damaged header, expected order and parts")
    order, parts = header["order"], header["parts"]
    if type(order) is not int:
        raise ValueError(f"{path}: damaged header: order {order!r}, expected a whole number")
    well_formed = isinstance(parts, list) and all(
        isinstance(part, list) and len(part) == 3 and type(part[2]) is int and part[2] >= 0
        for part in parts
    )
    if not well_formed or [part[:2] for part in parts] != [list(p) for p in _TYPES.items()]:
        raise ValueError(f"{path}: damaged header, expected the parts {', '.join(_TYPES)}")
    return order, {name: count for name, _, count in parts}
