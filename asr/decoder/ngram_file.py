"""Files of n-gram models: ARPA, the text that every toolkit reads and writes, and `.ngram`.

A `.ngram` file is one of safetensors with what the tree of a model is made of in a moment. What a
file is shows in its first bytes when it is read, and in its name when it is written.
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
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
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
    link_suffixes,
)
from asr.memory import require_memory
from asr.packed import unpacked
from asr.untrusted import HasLines, open_regular, parse_json, record, whole_lines

COMPACT = ".ngram"
SUFFIXES = (COMPACT, ".arpa", ".arpa.gz")
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
    """Read an ARPA file (plain or packed) or a `.ngram` file, whatever its name.

    Raises:
        ValueError: neither, or damaged.
        OSError: missing or unreadable.
    """
    form = form_of(path)
    if form == Form.KENLM:
        raise ValueError(f"{path}: a binary of KenLM, expected the ARPA file that it was made of")
    return read_compact(path) if form == Form.COMPACT else read_arpa(path)


def check_model_name(path: Path, *, quantize: bool = False) -> None:
    """Refuse the name of a model file that does not say its form, or one that has no bins.

    Raises:
        ValueError: it ends otherwise than SUFFIXES, or than COMPACT where numbers are quantized.
    """
    if not path.name.endswith(SUFFIXES):
        raise ValueError(f"{path}: expected a name that ends in {', '.join(SUFFIXES)}")
    if quantize and path.suffix != COMPACT:
        raise ValueError(f"{path}: numbers in a byte, expected a name that ends in {COMPACT}")


def save_ngram_model(path: Path, model: NgramModel, *, quantize: bool = False) -> None:
    """Write a model in the form that its name asks for; there whole or not at all.

    Args:
        path: of the file.
        model: the model.
        quantize: see `write_compact`.

    Raises:
        ValueError: see `check_model_name`.
        OSError: the file cannot be written; a former one is untouched.
    """
    check_model_name(path, quantize=quantize)
    if path.suffix == COMPACT:
        write_compact(path, model, quantize=quantize)
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
    """Read an ARPA file, plain or packed, of any order up to MAX_ORDER.

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
FORMAT_VERSION = 3
DESCRIPTION = "asr"  # in the metadata of safetensors
WORD_BYTES = 20  # of memory a byte of words: five letters or more become an object of 57 bytes
NODE_BYTES = 60  # of memory an n-gram, while the tree is made
BINS = 256  # for the log probabilities, or back-off weights, of one length of n-gram
_DTYPES = {
    "words": ("U8",),  # in UTF-8, with a line feed between them
    "word_log_probs": ("F32",),
    "word_backoffs": ("F32",),
    "num_children": ("U8", "U16", "U32"),  # of words and n-grams shorter than the longest
    "word_ids": ("U16", "I32"),  # of n-grams of two words and more, as all that follow
    "log_probs": ("F32", "U8"),
    "backoffs": ("F32", "U8"),  # none of the longest
    "log_prob_values": ("F32",),  # BINS for each length, of what is U8; else none
    "backoff_values": ("F32",),
}


@dataclass(frozen=True)
class _Description:
    """What a file says of its arrays: words of the longest n-gram, and a checksum over all."""

    format_version: int
    order: int
    sha256: str


def write_compact(path: Path, model: NgramModel, *, quantize: bool = False) -> None:
    """Write what a model's tree can be made of, in a file of safetensors.

    Args:
        path: of the file.
        model: the model.
        quantize: each number of n-grams of two words and more becomes a byte, see `_quantized`.

    Raises:
        OSError: the file cannot be written; a former one is untouched.
    """
    size, top = len(model.words), model.level_starts[-1]  # where the longest n-grams begin
    num_children = np.diff(model.first_children)[1:top]
    word_ids = model.word_ids[size + 1 :]
    none = np.empty(0, np.float32)
    arrays: dict[str, NDArray[Any]] = {
        "words": np.frombuffer("\n".join(model.words).encode(), np.uint8),
        "word_log_probs": model.log_probs[1 : size + 1],
        "word_backoffs": model.backoffs[1 : size + 1],
        "num_children": num_children.astype(np.min_scalar_type(num_children.max(initial=0))),
        "word_ids": word_ids.astype(np.uint16 if size <= 1 << 16 else np.int32),
        "log_probs": model.log_probs[size + 1 :],
        "backoffs": model.backoffs[size + 1 : top],
        "log_prob_values": none,
        "backoff_values": none,
    }
    if quantize:
        ends = np.cumsum(model.counts[1:]).tolist()
        probs, weights = arrays["log_probs"], arrays["backoffs"]
        arrays["log_probs"], arrays["log_prob_values"] = _quantized(probs, ends)
        arrays["backoffs"], arrays["backoff_values"] = _quantized(weights, ends[:-1])
    description = _Description(FORMAT_VERSION, model.order, _digest(model.order, arrays))
    metadata = {DESCRIPTION: json.dumps(asdict(description))}
    replace_bytes(path, safetensors.numpy.save(arrays, metadata))


def _quantized(
    numbers: NDArray[np.float32], ends: Sequence[int]
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Put the numbers of each length of n-gram into bins, as many into each.

    A bin's value is the mean of what is in it (Federico & Bertoldi, WMT 2006). Zeros have one of
    their own: an n-gram whose back-off weight is 0 and that has no children is no context.

    Args:
        numbers: of all lengths, one after the other.
        ends: where those of each length end.

    Returns:
        The bin of each, and the values of the bins, `(BINS * lengths,)`.
    """
    bins = np.zeros(len(numbers), np.uint8)
    values = np.zeros((len(ends), BINS), np.float32)
    for level, (start, end) in enumerate(pairwise([0, *ends])):
        others = start + np.flatnonzero(numbers[start:end])
        ranked = others[np.argsort(numbers[others], kind="stable")]
        for number, members in enumerate(np.array_split(ranked, BINS - 1), 1):
            if len(members):
                bins[members] = number
                values[level, number] = numbers[members].mean(dtype=np.float64)
    return bins, values.reshape(-1)


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
            shapes = {name: each.get_shape() for name, each in slices.items()}
            is_known = slices.keys() == _DTYPES.keys() and all(
                each.get_dtype() in _DTYPES[name] for name, each in slices.items()
            )
            if not is_known or any(len(shape) != 1 for shape in shapes.values()):
                raise ValueError(
                    f"{path}: damaged header, expected the arrays {', '.join(_DTYPES)}"
                )
            nodes = shapes["word_log_probs"][0] + shapes["word_ids"][0]
            needed = size + WORD_BYTES * shapes["words"][0] + NODE_BYTES * nodes
            require_memory(needed, str(path))
            arrays = {name: file.get_tensor(name) for name in slices}
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path}: damaged ({error}), expected a language model") from error
    if description.sha256 != (actual := _digest(description.order, arrays)):
        raise ValueError(
            f"{path}: damaged: sha256 {actual[:12]}..., expected {description.sha256[:12]}..."
        )
    try:
        return _grown(description.order, arrays)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _grown(order: int, arrays: Mapping[str, NDArray[Any]]) -> NgramModel:
    """Make a model's tree of a file's arrays.

    Raises:
        ValueError: they are of none.
    """
    size, num_longer = len(arrays["word_log_probs"]), len(arrays["word_ids"])
    text = arrays["words"].tobytes()
    if text.count(b"\n") + 1 != size:
        raise ValueError(f"not an n-gram model: {text.count(10) + 1} words, expected {size}")
    if not 1 <= order <= MAX_ORDER:
        raise ValueError(f"not an n-gram model: order {order}, expected 1 to {MAX_ORDER}")
    first = np.cumsum(np.concatenate([[1, size], arrays["num_children"]]), dtype=np.int64)
    starts = [1]  # of the n-grams of each length
    while len(starts) < order and starts[-1] < len(first):
        starts.append(int(first[starts[-1]]))
    if len(starts) < order or starts[-1] != len(first) - 1:
        raise ValueError(f"not an n-gram model: its longest n-grams have not {order} words")
    if first[-1] != 1 + size + num_longer:
        raise ValueError(f"not an n-gram model: {num_longer} n-grams, expected others")
    word_ids = np.concatenate([[-1], np.arange(size), arrays["word_ids"]]).astype(np.int32)
    if word_ids[1:].min() < 0 or word_ids.max() >= size:
        raise ValueError("not an n-gram model: word ids out of range")
    num_longest = len(word_ids) - starts[-1]
    first_children = np.concatenate([first, np.full(num_longest, first[-1])])
    ends = [start - 1 - size for start in starts[2:]]  # of each length from two words on
    of_all = [*ends, num_longer] if order > 1 else []
    log_probs = _restored(arrays["log_probs"], arrays["log_prob_values"], of_all)
    backoffs = _restored(arrays["backoffs"], arrays["backoff_values"], ends)
    root, none = np.zeros(1, np.float32), np.zeros(num_longest if order > 1 else 0, np.float32)
    return NgramModel(
        order=order,
        words=tuple(text.decode().split("\n")),
        log_probs=np.concatenate([root, arrays["word_log_probs"], log_probs]),
        backoffs=np.concatenate([root, arrays["word_backoffs"], backoffs, none]),
        word_ids=word_ids,
        first_children=first_children,
        suffixes=link_suffixes(word_ids, first_children),
    )


def _restored(
    numbers: NDArray[Any], values: NDArray[np.float32], ends: Sequence[int]
) -> NDArray[np.float32]:
    """Undo `_quantized`, where it was done."""
    lengths = np.diff([0, *ends])
    is_binned = numbers.dtype == np.uint8
    if len(numbers) != lengths.sum() or len(values) != is_binned * BINS * len(ends):
        raise ValueError(
            f"not an n-gram model: {len(numbers)} numbers of {len(values)} values, "
            f"expected {lengths.sum()}"
        )
    if not is_binned:
        return numbers
    restored: NDArray[np.float32] = values[
        BINS * np.repeat(np.arange(len(ends)), lengths) + numbers
    ]
    return restored


def _describe(path: Path, metadata: Mapping[str, str]) -> _Description:
    if metadata.keys() != {DESCRIPTION}:
        raise ValueError(f"{path}: no language model or damaged, expected one description")
    content = parse_json(metadata[DESCRIPTION], path, "a description")
    description = record(_Description, content, path)
    if description.format_version != FORMAT_VERSION:
        raise ValueError(
            f"{path}: .ngram format version {description.format_version}, expected "
            f"{FORMAT_VERSION}: make it anew, with `asr lm train`"
        )
    return description


def _digest(order: int, arrays: Mapping[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256(b"%d" % order)
    for name in _DTYPES:
        digest.update(arrays[name].data)
    return digest.hexdigest()
