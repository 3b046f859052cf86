"""Sentences out of text files and manifests, for the language model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from asr.cli.options import STDIN, standard_input
from asr.data.manifest import MANIFEST_SUFFIXES, BadLineError, read_records
from asr.decoder.ngram import check_words
from asr.untrusted import open_text, shown, unpacked, whole_lines

_BOM = "\ufeff"


class Sentences:
    """The sentences of several sources, one a line, each as its words; may be read once.

    A file is text in UTF-8, plain or gzip; with the name of a manifest (.jsonl, .json, .csv, .tsv)
    it is one, of which `text` is read; "-" is standard input.

    Args:
        sources: names of files, in the order to read them.
        normalize: what is done to a line before it is split into words.

    Attributes:
        without_words: lines passed over so far because nothing was left of them.
    """

    def __init__(self, sources: Sequence[str], normalize: Callable[[str], str]) -> None:
        self.sources = sources
        self.normalize = normalize
        self.without_words = 0

    def __iter__(self) -> Iterator[list[str]]:
        """The words of each sentence.

        Raises:
            ValueError: a damaged line; the message names source and line.
            OSError: missing or unreadable.
        """
        for source in self.sources:
            name = "standard input" if source == STDIN else source
            for line, text in _texts(source, name):
                words = self.normalize(text).split()
                try:
                    check_words(words)
                except ValueError as error:
                    raise ValueError(f"{name}:{line}: {error}") from error
                if words:
                    yield words
                else:
                    self.without_words += 1


def _texts(source: str, name: str) -> Iterator[tuple[int, str]]:
    path = Path(source)
    if source == STDIN:
        file = unpacked(standard_input("sentences"), name)
        yield from _decoded(name, whole_lines(file, name))
    elif path.suffix.lower() in MANIFEST_SUFFIXES:
        yield from _manifest_texts(path)
    else:
        with open_text(path) as file:
            yield from _decoded(name, whole_lines(file, name))


def _decoded(name: str, lines: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, str]]:
    for number, raw in lines:
        try:
            text = raw.decode()
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{name}:{number}: byte 0x{raw[error.start]:02x} at {error.start + 1}, "
                "expected UTF-8"
            ) from error
        yield number, text.removeprefix(_BOM) if number == 1 else text


def _manifest_texts(path: Path) -> Iterator[tuple[int, str]]:
    for line, record in read_records(path):
        if isinstance(record, BadLineError):
            raise ValueError(f"{path}:{line}: {record}")
        text = record.get("text")
        if not isinstance(text, str):
            raise ValueError(f"{path}:{line}: text is {shown(text)}, expected a text")
        yield line, text
