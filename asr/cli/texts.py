"""The texts that a command reads, and the options that say by which rules."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path
from typing import Any

from asr.cli.options import STDIN, Parser, standard_input
from asr.packed import unpacked
from asr.starter_model import model_path
from asr.text import UNICODE_FORMS, TextNormalizer
from asr.untrusted import open_text, shown, whole_lines

BYTE_ORDER_MARK = "\ufeff"
PACKED = (".gz", ".xz", ".bz2")
PASSAGE = range(4, 7)  # lengths of what a text must not share with a test [words]
SOURCES = (
    "text, a sentence a line, plain, gzip, xz or bzip2; manifests (.jsonl, .csv, .tsv), of which "
    "`text` is read; - for standard input"
)


class Sentences:
    """The sentences of several sources, one a line, each as its words; may be read once.

    A file is text in UTF-8, plain, gzip, xz or bzip2; with the name of a manifest (.jsonl, .json,
    .csv, .tsv) it is one, of which `text` is read; "-" is standard input.

    Args:
        sources: names of files, in the order to read them.
        normalize: what is done to a line before it is split into words.
        tests: sentences that are kept for tests. A line is passed over that shares six words in a
            row with one of them, or contains one of four or five words.

    Attributes:
        without_words: lines passed over so far because nothing was left of them.
        of_tests: lines passed over so far because of `tests`.
    """

    def __init__(
        self,
        sources: Sequence[str],
        normalize: Callable[[str], str],
        tests: Iterable[Sequence[str]] = (),
    ) -> None:
        self.sources = sources
        self.normalize = normalize
        self.tests = {passage for words in tests for passage in _passages(words)}
        self.without_words = 0
        self.of_tests = 0

    def __iter__(self) -> Iterator[list[str]]:
        """Read the words of each sentence.

        Raises:
            ValueError: a damaged line; the message names source and line.
            OSError: missing or unreadable.
        """
        from asr.decoder.ngram import check_words

        for source in self.sources:
            name = "standard input" if source == STDIN else source
            for line, text in _texts(source, name):
                try:
                    words = self.normalize(text).split()
                    check_words(words)
                except ValueError as error:
                    raise ValueError(f"{name}:{line}: {error}") from error
                if not words:
                    self.without_words += 1
                elif self.tests and any(map(self.tests.__contains__, _windows(words))):
                    self.of_tests += 1
                else:
                    yield words

    def left_out(self) -> str:
        """Tell how many lines were passed over; nothing where all were read."""
        what = {"without words": self.without_words, "of the tests": self.of_tests}
        told = [f"{count} lines {which}" for which, count in what.items() if count]
        return f" ({' and '.join(told)} left out)" if told else ""


def _passages(words: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """The parts of a test's sentence, of six words or else of all, that no text may have."""
    length = min(len(words), PASSAGE[-1])
    if length in PASSAGE:
        yield from _windows(words, lengths=[length])


def _windows(words: Sequence[str], lengths: Iterable[int] = PASSAGE) -> Iterator[tuple[str, ...]]:
    """All parts of a sentence that have one of these lengths."""
    for length in lengths:
        for start in range(len(words) - length + 1):
            yield tuple(words[start : start + length])


def _texts(source: str, name: str) -> Iterator[tuple[int, str]]:
    """Read the texts of a source, each with the number of its line."""
    from asr.data.manifest import MANIFEST_SUFFIXES
    from asr.data.records import BadLineError, read_records

    path = Path(source)
    if source != STDIN and path.suffix.lower() in MANIFEST_SUFFIXES:
        for number, record in read_records(path):
            if isinstance(record, BadLineError):
                raise ValueError(f"{path}:{number}: {record}")
            text = record.get("text")
            if not isinstance(text, str):
                raise ValueError(f"{path}:{number}: text is {shown(text)}, expected a text")
            yield number, text
        return
    if path.suffix.lower() in PACKED and Path(path.stem).suffix.lower() in MANIFEST_SUFFIXES:
        raise ValueError(f"{path}: a packed manifest, expected it unpacked, or plain texts")
    is_piped = source == STDIN
    opened = nullcontext(standard_input("sentences")) if is_piped else open_text(path)
    with opened as file:
        for number, raw in whole_lines(unpacked(file, name) if is_piped else file, name):
            try:
                text = raw.decode()
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{name}:{number}: byte 0x{raw[error.start]:02x} at {error.start + 1}, "
                    "expected UTF-8"
                ) from error
            yield number, text.removeprefix(BYTE_ORDER_MARK) if number == 1 else text


def normalizer(options: argparse.Namespace) -> Callable[[str], str]:
    """The rules of a text: those of a model file, or the usual ones with what options change."""
    names = [rule.name for rule in fields(TextNormalizer) if rule.name != "unit"]  # of no effect
    given = {name: getattr(options, name) for name in names}
    changed = {name: value for name, value in given.items() if value is not None}
    whole = ["--raw"] if options.raw else []
    whole += ["--rules"] if options.rules else []
    flags = [*whole, *(f"--{name.replace('_', '-')}" for name in changed)]
    if whole and len(flags) > 1:
        raise ValueError(f"{flags[0]} and {flags[1]}: expected one of them, {flags[0]} says it all")
    if options.rules:
        from asr.model_file import load_model

        return load_model(options.rules)[0].text
    return str if options.raw else TextNormalizer(**changed)


def rules_parser() -> Parser:
    """Define the options that `normalizer` reads, as the parent of a command's parser."""
    rules = Parser(add_help=False)
    group = rules.add_argument_group(
        "text",
        "Rules as in training (data.text), so that the words are those of the recogniser: best by "
        "--rules.",
    )
    group.add_argument(
        "--rules", type=model_path, metavar="MODEL",
        help="take the rules of this model file, of a run's best model, or of a model by name",
    )  # fmt: skip
    group.add_argument("--raw", action="store_true", help="split at white space, change nothing")
    group.add_argument("--unicode-form", choices=UNICODE_FORMS, help="default: NFC")
    group.add_argument(
        "--lowercase", action=argparse.BooleanOptionalAction, help="default: --lowercase"
    )
    group.add_argument(
        "--remove-punctuation", action=argparse.BooleanOptionalAction,
        help="default: --remove-punctuation",
    )  # fmt: skip
    group.add_argument("--keep", help="punctuation that stays inside words; default: '")
    group.add_argument("--language", help="whose rules of lower case and punctuation hold: tr")
    group.add_argument("--drop-in", help="pairs of marks that go with what stands in them: []()")
    group.add_argument(
        "--remove-arabic-marks", action=argparse.BooleanOptionalAction,
        help="default: --no-remove-arabic-marks",
    )  # fmt: skip
    group.add_argument(
        "--replace", nargs=2, action=_Pairs, metavar=("PATTERN", "TEXT"),
        help="a regular expression and what takes its place; may be given several times",
    )  # fmt: skip
    group.add_argument("--numbers", help="language in which numbers are spelt out: en")
    return rules


class _Pairs(argparse.Action):
    """Gathers pairs in the order in which they are given."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        setattr(namespace, self.dest, (*(getattr(namespace, self.dest) or ()), tuple(values)))
