"""Files of n-gram models: ARPA, the text that every toolkit reads and writes, and `.ngram`.

What a file is shows in its first bytes when it is read, and in its name when it is written.
"""

from __future__ import annotations

import enum
import gzip
import hashlib
import json
import math
import os
import struct
from array import array
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, cast

import numpy as np
from numpy.typing import NDArray

from asr.atomic_file import replacing
from asr.decoder.ngram import (
    END,
    LOG10,
    MAX_ORDER,
    START,
    UNKNOWN,
    BadNgramError,
    NgramModel,
    Rows,
    build_tree,
)
from asr.memory import require_memory
from asr.untrusted import HasLines, open_regular, parse_json, unpacked, whole_lines

SUFFIXES = (".ngram", ".arpa", ".arpa.gz")

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

UNLISTED = -100.0  # log10 P(<unk>) where an ARPA file does not list it, as KenLM takes it
SHOWN_CHARACTERS = 60  # of a wrong line, in a message
MAX_DIGITS = 10  # of a count
BLOCK = 1 << 16  # n-grams that are written at a time
_ALIASES = {b"<UNK>": UNKNOWN.encode()}


class Form(enum.Enum):
    """The forms of model files, by what these begin with."""

    COMPACT = MAGIC
    KENLM = b"mmap lm http://kheafield.com/code"  # which KenLM alone reads
    ARPA = b""


def form_of(path: Path) -> Form:
    """Look what a model file is, whatever its name; what is of no other form may be ARPA.

    Raises:
        ValueError: not a regular file.
        OSError: missing or unreadable.
    """
    with open_regular(path, "a language model") as file:
        begin = file.read(max(len(form.value) for form in Form))
    return next(form for form in Form if begin.startswith(form.value))


def load_ngram_model(path: Path) -> NgramModel:
    """Read an ARPA file (plain or gzip) or a `.ngram` file, whatever its name.

    Raises:
        ValueError: neither, or damaged.
        OSError: missing or unreadable.
    """
    form = form_of(path)
    if form == Form.KENLM:
        raise ValueError(f"{path}: a binary of KenLM, expected the ARPA file that it was made of")
    return read_compact(path) if form == Form.COMPACT else read_arpa(path)


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
        write_compact(path, model)
    else:
        write_arpa(path, model)


# --- ARPA --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Section:
    """The n-grams of one length in the file's order.

    Attributes:
        ids: the ids of every n-gram's words, one after the other.
        log10_probs, backoffs: of each n-gram [log10].
        lines: the number of each one's line.
    """

    ids: array[int] = field(default_factory=lambda: array("i"))
    log10_probs: array[float] = field(default_factory=lambda: array("d"))
    backoffs: array[float] = field(default_factory=lambda: array("d"))
    lines: array[int] = field(default_factory=lambda: array("q"))


def read_arpa(path: Path) -> NgramModel:
    """Read an ARPA file, plain or gzip, of any order up to MAX_ORDER.

    Tabs or spaces part the fields, a back-off weight may be missing (0). `<UNK>` is taken for
    `<unk>`; where a file has neither, `<unk>` is added with a log10 probability of UNLISTED.

    Raises:
        ValueError: not ARPA, damaged or cut short; the message names the line, what is there and
            what was expected.
        OSError: missing or unreadable.
    """
    with open_regular(path, "a language model") as file:
        reader = _ArpaReader(path, unpacked(file, path))
        sections = reader.read()
    words = [word.decode() for word in reader.ids]
    for mark in (START, END):
        if mark not in words:
            raise ValueError(f"{path}: no {mark} among {len(words)} words, expected it")
    if UNKNOWN not in words:
        sections[0].ids.append(len(words))
        sections[0].log10_probs.append(UNLISTED)
        sections[0].backoffs.append(0.0)
        words.append(UNKNOWN)

    def nats(values: array[float]) -> NDArray[np.float32]:
        return (np.array(values) * LOG10).astype(np.float32)

    levels = [
        Rows(
            np.array(each.ids, np.int32).reshape(-1, length),
            nats(each.log10_probs),
            nats(each.backoffs),
        )
        for length, each in enumerate(sections, 1)
    ]
    try:
        return build_tree(words, levels)
    except BadNgramError as error:
        line = sections[error.length - 1].lines[error.row]
        raise ValueError(f"{path}:{line}: {error}") from error


class _ArpaReader:
    """Goes once through the lines of a file.

    Attributes:
        ids: the words met so far, in UTF-8, and their ids.
    """

    def __init__(self, path: Path, file: HasLines) -> None:
        self.ids: dict[bytes, int] = {}
        self._path = path
        self._lines = whole_lines(file, path)
        self._line = 0

    def read(self) -> list[_Section]:
        """Everything from the header to the end."""
        while (content := self._next()) != b"\\data\\":
            if not content:
                self._fail(content, "\\data\\, with which ARPA files begin")
        counts: list[int] = []
        content = self._next()
        while content.startswith(b"ngram") or not counts:
            counts.append(self._count(content, len(counts) + 1))
            content = self._next()
        sections = []
        for length, count in enumerate(counts, 1):
            if content != b"\\%d-grams:" % length:
                self._fail(content, f"\\{length}-grams:")
            sections.append(self._section(length, count, is_last=length == len(counts)))
            title = f"\\{length + 1}-grams:" if length < len(counts) else "\\end\\"
            content = self._next()
            if content != title.encode():
                self._fail(content, f"{title} after the {count} {length}-grams of the header")
        return sections

    def _next(self) -> bytes:
        """The next line that is not empty, without white space around it; empty at the end."""
        for number, raw in self._lines:
            self._line = number
            if content := raw.strip():
                return content
        self._line += 1
        return b""

    def _fail(self, content: bytes, expected: str) -> NoReturn:
        shown = repr(content[:SHOWN_CHARACTERS].decode(errors="backslashreplace"))
        found = shown if content else "the file ends"
        raise ValueError(f"{self._path}:{self._line}: {found}, expected {expected}")

    def _count(self, content: bytes, length: int) -> int:
        name, _, count = content.partition(b"=")
        count = count.strip()
        if length > MAX_ORDER:
            self._fail(content, f"n-grams of at most {MAX_ORDER} words")
        if name.split() != [b"ngram", b"%d" % length] or not count.isdigit():
            self._fail(content, f"ngram {length}=COUNT")
        if len(count) > MAX_DIGITS:
            self._fail(content, f"a count of at most {MAX_DIGITS} digits")
        return int(count)

    def _section(self, length: int, count: int, *, is_last: bool) -> _Section:
        section = _Section()
        for done in range(count):
            content = self._next()
            fields = content.split()
            if not length + 1 <= len(fields) <= length + 2:
                self._fail(
                    content,
                    f"a log10 probability, {length} words and perhaps a back-off weight "
                    f"({done} of {count} {length}-grams are there)",
                )
            names = fields[1 : length + 1]
            section.ids.extend(self._known(names, content) if length > 1 else [self._new(names[0])])
            section.log10_probs.append(self._log10(fields[0], content))
            weight = self._log10(fields[-1], content, is_weight=True) if fields[length + 1 :] else 0
            if is_last and weight:
                self._fail(content, "no back-off weight in an n-gram of the highest order")
            section.backoffs.append(weight)
            section.lines.append(self._line)
        return section

    def _new(self, word: bytes) -> int:
        word = _ALIASES.get(word, word)
        try:
            word.decode()
        except UnicodeDecodeError:
            self._fail(word, "a word in UTF-8")
        if word in self.ids:
            self._fail(word, "a word that is not there already")
        return self.ids.setdefault(word, len(self.ids))

    def _known(self, words: list[bytes], content: bytes) -> list[int]:
        try:
            return [self.ids[word] for word in words]
        except KeyError:  # seldom: words are looked up as they stand first
            words = [_ALIASES.get(word, word) for word in words]
            if not all(word in self.ids for word in words):
                self._fail(content, "words that are among the 1-grams")
            return [self.ids[word] for word in words]

    def _log10(self, text: bytes, content: bytes, *, is_weight: bool = False) -> float:
        try:
            value = math.nan if b"_" in text else float(text)  # Python reads 1_0 as 10
        except ValueError:
            value = math.nan
        if is_weight and not math.isfinite(value):
            self._fail(content, "a finite number as its back-off weight [log10]")
        if not is_weight and not value <= 0:
            self._fail(content, "a log10 probability of at most 0")
        return value


def write_arpa(path: Path, model: NgramModel) -> None:
    """Write a model as ARPA, with gzip where the name ends in .gz; there whole or not at all.

    Numbers have as many digits as bring back the very same model.

    Raises:
        OSError: the file cannot be written; a former one is untouched.
    """
    with replacing(path) as raw, _packed(raw) if path.suffix == ".gz" else nullcontext(raw) as file:
        header = [f"ngram {n}={count}" for n, count in enumerate(model.counts, 1)]
        file.write("\n".join(["\\data\\", *header, ""]).encode())
        texts = [""]  # of the n-grams of the level before
        for length, begin in enumerate(model.level_starts[1:], 1):
            file.write(f"\n\\{length}-grams:\n".encode())
            texts = _texts(model, length, texts)
            for first in range(0, len(texts), BLOCK):
                block = texts[first : first + BLOCK]
                file.write(_arpa_lines(model, begin + first, block, length == model.order))
        file.write(b"\n\\end\\\n")


def _packed(file: BinaryIO) -> BinaryIO:
    # Neither name nor time inside: the same model makes the same bytes.
    return cast(
        BinaryIO, gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0, compresslevel=6)
    )


def _texts(model: NgramModel, length: int, shorter: list[str]) -> list[str]:
    """The n-grams of a length in words, given those one word shorter."""
    if length == 1:
        return list(model.words)
    starts = [*model.level_starts, len(model.log_probs)]
    first_children = model.first_children[starts[length - 1] : starts[length] + 1]
    contexts = np.repeat(np.arange(len(shorter)), np.diff(first_children)).tolist()
    word_ids = model.word_ids[starts[length] : starts[length + 1]].tolist()
    return [
        f"{shorter[context]} {model.words[word_id]}"
        for context, word_id in zip(contexts, word_ids, strict=True)
    ]


def _arpa_lines(model: NgramModel, first: int, texts: list[str], is_last: bool) -> bytes:
    here = slice(first, first + len(texts))
    probs, weights = _log10(model.log_probs[here]), _log10(model.backoffs[here])
    if is_last:
        rows = [f"{p:.9g}\t{text}\n" for p, text in zip(probs, texts, strict=True)]
    else:
        rows = [f"{p:.9g}\t{t}\t{w:.9g}\n" for p, t, w in zip(probs, texts, weights, strict=True)]
    return "".join(rows).encode()


def _log10(nats: NDArray[np.float32]) -> list[float]:
    """In base 10, and in few digits (-99, 0) where these bring back the same float32."""
    exact = nats.astype(np.float64) / LOG10
    short = np.round(exact, 4)
    same = (short * LOG10).astype(np.float32) == nats
    values: list[float] = np.where(same, short, exact).tolist()
    return values


# --- the compact form ---------------------------------------------------------------------------

# `.ngram` files: a model's arrays as they lie in memory, so that loading is reading.
#
# 8 bytes     b"asrngram"
# 4 bytes     format version, little-endian
# 4 bytes     length of the header, little-endian
# header      JSON: order, sha256 of everything after the header, and of each part its name,
#             number type and count
# parts       one after the other: the words in UTF-8 with a line feed between them, then the
#             arrays of `NgramModel`, little-endian


def write_compact(path: Path, model: NgramModel) -> None:
    """Write a model in the compact form; the file is there whole or not at all.

    Raises:
        OSError: the file cannot be written; a former one is untouched.
    """
    words = np.frombuffer("\n".join(model.words).encode(), np.uint8)
    values: list[NDArray[Any]] = [words, *model.ngrams]
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


def read_compact(path: Path) -> NgramModel:
    """Read a file of `write_compact`; nothing in it is run, and every byte is checked.

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
