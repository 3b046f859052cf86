"""Files of n-gram models: ARPA, the text that every toolkit reads and writes, and `.ngram`.

A `.ngram` file is one of safetensors with the arrays of `NgramModel`, so that loading is reading.
What a file is shows in its first bytes when it is read, and in its name when it is written.
"""

from __future__ import annotations

import codecs
import contextlib
import enum
import gzip
import hashlib
import json
import math
import os
from array import array
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, cast

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from asr.atomic_file import replace_bytes, replacing
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
from asr.untrusted import HasLines, open_regular, parse_json, record, unpacked, whole_lines

SUFFIXES = (".ngram", ".arpa", ".arpa.gz")
_KENLM = b"mmap lm http://kheafield.com/code"
_OLD_COMPACT = b"asrngram"

UNLISTED = -100.0  # log10 P(<unk>) where an ARPA file does not list it, as KenLM takes it
SHOWN_CHARACTERS = 60  # of a wrong line, in a message
MAX_DIGITS = 10  # of a count
BLOCK = 1 << 16  # n-grams that are written at a time
_ALIASES = {b"<UNK>": UNKNOWN.encode()}


class Form(enum.Enum):
    """The forms of model files."""

    ARPA = "arpa"
    COMPACT = "compact"
    KENLM = "kenlm"  # which KenLM alone reads


def form_of(path: Path) -> Form:
    """Look what a model file is, whatever its name; what is of no other form may be ARPA.

    Raises:
        ValueError: not a regular file, or a `.ngram` file of an older version.
        OSError: missing or unreadable.
    """
    with open_regular(path, "a language model") as file:
        begin = file.read(len(_KENLM))
    if begin.startswith(_OLD_COMPACT):
        raise ValueError(
            f"{path}: a .ngram file of an older version, expected one made anew: with `asr lm "
            "train`, or with `asr lm convert` of its ARPA file"
        )
    if begin == _KENLM:
        return Form.KENLM
    # The length of a header, in eight bytes, then its JSON; no text has a NUL.
    return Form.COMPACT if b"\0" in begin[:8] and begin[8:9] == b"{" else Form.ARPA


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
        """Read everything from the header to the end."""
        while (content := self._next()) != b"\\data\\":
            if not content:
                self._fail(content, "\\data\\, with which ARPA files begin")
        counts: list[int] = []
        content = self._next()
        while content.startswith(b"ngram") or not counts:
            length = len(counts) + 1
            name, _, count = (part.strip() for part in content.partition(b"="))
            if length > MAX_ORDER:
                self._fail(content, f"n-grams of at most {MAX_ORDER} words")
            if name.split() != [b"ngram", b"%d" % length] or not count.isdigit():
                self._fail(content, f"ngram {length}=COUNT")
            if len(count) > MAX_DIGITS:
                self._fail(content, f"a count of at most {MAX_DIGITS} digits")
            counts.append(int(count))
            content = self._next()
        sections = []
        for length, num_ngrams in enumerate(counts, 1):
            if content != b"\\%d-grams:" % length:
                self._fail(content, f"\\{length}-grams:")
            sections.append(self._section(length, num_ngrams, is_last=length == len(counts)))
            title = f"\\{length + 1}-grams:" if length < len(counts) else "\\end\\"
            content = self._next()
            if content != title.encode():
                self._fail(content, f"{title} after the {num_ngrams} {length}-grams of the header")
        return sections

    def _next(self) -> bytes:
        """Find the next line that is not empty, without white space around it; empty at the end."""
        for number, raw in self._lines:
            self._line = number
            if number == 1:  # what Windows writes before UTF-8
                raw = raw.removeprefix(codecs.BOM_UTF8)
            if content := raw.strip():
                return content
        self._line += 1
        return b""

    def _fail(self, content: bytes, expected: str) -> NoReturn:
        shown = repr(content[:SHOWN_CHARACTERS].decode(errors="backslashreplace"))
        found = shown if content else "the file ends"
        raise ValueError(f"{self._path}:{self._line}: {found}, expected {expected}")

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
            words = fields[1 : length + 1]
            section.ids.extend(self._known(words, content) if length > 1 else [self._new(words[0])])
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
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(replacing(path))
        if path.suffix == ".gz":
            # Neither name nor time inside: the same model makes the same bytes.
            packed = gzip.GzipFile("", "wb", fileobj=file, mtime=0, compresslevel=6)
            file = stack.enter_context(cast(BinaryIO, packed))
        header = [f"ngram {n}={count}" for n, count in enumerate(model.counts, 1)]
        file.write("\n".join(["\\data\\", *header, ""]).encode())
        texts = [""]  # of the n-grams of the level before
        for length, begin in enumerate(model.level_starts[1:], 1):
            file.write(f"\n\\{length}-grams:\n".encode())
            texts = _texts(model, length, texts)
            for first in range(0, len(texts), BLOCK):
                block = texts[first : first + BLOCK]
                here = slice(begin + first, begin + first + len(block))
                probs, weights = _log10(model.log_probs[here]), _log10(model.backoffs[here])
                rows = zip(probs, block, weights, strict=True)
                if length == model.order:
                    lines = [f"{prob:.9g}\t{text}\n" for prob, text, _ in rows]
                else:
                    lines = [f"{prob:.9g}\t{text}\t{weight:.9g}\n" for prob, text, weight in rows]
                file.write("".join(lines).encode())
        file.write(b"\n\\end\\\n")


def _texts(model: NgramModel, length: int, shorter: list[str]) -> list[str]:
    """Write out the n-grams of a length, given those one word shorter."""
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


def _log10(nats: NDArray[np.float32]) -> list[float]:
    """Tell numbers to base 10, in few digits (-99, 0) where these bring back the same float32."""
    exact = nats.astype(np.float64) / LOG10
    short = np.round(exact, 4)
    same = (short * LOG10).astype(np.float32) == nats
    values: list[float] = np.where(same, short, exact).tolist()
    return values


# --- the compact form --------------------------------------------------------------------------

MAX_HEADER_BYTES = 1 << 12
FORMAT_VERSION = 2
DESCRIPTION = "asr"  # in the metadata of safetensors
WORD_BYTES = 20  # of memory a byte of words: five letters or more become an object of 57 bytes
_DTYPES = {
    "words": "U8",  # in UTF-8, with a line feed between them
    "log_probs": "F32",
    "backoffs": "F32",
    "word_ids": "I32",
    "first_children": "I64",
    "suffixes": "I32",
}


@dataclass(frozen=True)
class _Description:
    """What a file says of its arrays: words of the longest n-gram, and a checksum over all."""

    format_version: int
    order: int
    sha256: str


def write_compact(path: Path, model: NgramModel) -> None:
    """Write a model's arrays as they lie in memory, in a file of safetensors.

    Raises:
        OSError: the file cannot be written; a former one is untouched.
    """
    words = np.frombuffer("\n".join(model.words).encode(), np.uint8)
    arrays = {"words": words, **model.ngrams._asdict()}
    description = _Description(FORMAT_VERSION, model.order, _digest(model.order, arrays))
    metadata = {DESCRIPTION: json.dumps(asdict(description))}
    replace_bytes(path, safetensors.numpy.save(arrays, metadata))


def read_compact(path: Path) -> NgramModel:
    """Read a file of `write_compact`; nothing in it is run, and every byte is checked.

    Raises:
        ValueError: no such file, damaged, of another version, or too large for the memory.
        OSError: missing or unreadable.
    """
    with open_regular(path, "a language model") as raw:
        header_size, size = int.from_bytes(raw.read(8), "little"), raw.seek(0, os.SEEK_END)
    if header_size > MAX_HEADER_BYTES:  # safetensors itself would parse 100 MB
        raise ValueError(
            f"{path}: header of {header_size} bytes, expected at most {MAX_HEADER_BYTES}"
        )
    require_memory(size, str(path))  # a file with holes in it may be of any size
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            description = _describe(path, file.metadata() or {})
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            dtypes = {name: each.get_dtype() for name, each in slices.items()}
            shapes = {name: each.get_shape() for name, each in slices.items()}
            if dtypes != _DTYPES or any(len(shape) != 1 for shape in shapes.values()):
                raise ValueError(
                    f"{path}: damaged header, expected the arrays {', '.join(_DTYPES)}"
                )
            require_memory(size + WORD_BYTES * shapes["words"][0], str(path))
            arrays = {name: file.get_tensor(name) for name in slices}
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path}: damaged ({error}), expected a language model") from error
    if description.sha256 != (actual := _digest(description.order, arrays)):
        raise ValueError(
            f"{path}: damaged: sha256 {actual[:12]}..., expected {description.sha256[:12]}..."
        )
    try:
        text = arrays.pop("words").tobytes()
        if text.count(b"\n") >= len(arrays["log_probs"]):
            raise ValueError("not an n-gram model: more words than nodes")
        return NgramModel(order=description.order, words=tuple(text.decode().split("\n")), **arrays)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _describe(path: Path, metadata: Mapping[str, str]) -> _Description:
    if metadata.keys() != {DESCRIPTION}:
        raise ValueError(f"{path}: no language model or damaged, expected one description")
    content = parse_json(metadata[DESCRIPTION], path, "a description")
    description = record(_Description, content, path)
    if description.format_version != FORMAT_VERSION:
        raise ValueError(
            f"{path}: .ngram format version {description.format_version}, expected {FORMAT_VERSION}"
        )
    return description


def _digest(order: int, arrays: Mapping[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256(b"%d" % order)
    for name in _DTYPES:
        digest.update(arrays[name].data)
    return digest.hexdigest()
