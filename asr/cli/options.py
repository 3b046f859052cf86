"""What command lines have in common: their manners, standard input, outputs, and decoders."""

from __future__ import annotations

import argparse
import io
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, cast

import yaml  # type: ignore[import-untyped]

from asr.cli.build import check_section, check_target, target
from asr.cli.conf import conf_dir
from asr.cli.signatures import parameters_of
from asr.untrusted import check_arguments, nearest, read_stream, shown

if TYPE_CHECKING:
    from asr.recognizer import Recognizer
    from asr.transcriber import Decoder

QUOTE = "'"
KINDS = {"int": "a whole number", "float": "a number"}
STDIN = "-"
MAX_STDIN_BYTES = 1 << 30  # 1 GiB of a recording: 9 hours of 16-bit samples at 16 kHz

DECODERS = "asr.decoder"
CHOICES = ("greedy", "beam", "lexicon")
HOTWORD_WEIGHT = 4.0  # [nats] the best of 2 to 16 on dev: docs/results.md

# Options that set one key of a decoder each.
KEYS = {
    "beam_size": "--beam-size",
    "language_model": "--lm",
    "lm_weight": "--lm-weight",
    "word_bonus": "--word-bonus",
    "lexicon": "--lexicon",
    "hotwords": "--hotword",
}

Name = str | Path | None


class Parser(argparse.ArgumentParser):
    """The arguments of a command, with `--debug` and `--help`.

    A mistake is a ValueError in one line; a misspelt option or choice is told with the nearest one.

    Args:
        settings: as of argparse.ArgumentParser.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, **settings)
        if self.add_help:
            self.add_argument("--debug", action="store_true", help="show the traceback of an error")

    @property
    def arguments(self) -> list[argparse.Action]:
        """All arguments, those of its groups too."""
        return list(self._actions)  # there is no public way to list them (python/cpython#125363)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As of argparse, after a look for options that there are not.

        Raises:
            ValueError: there is such an option, of which argparse would say nothing as long as a
                required one is missing.
        """
        known = [name for argument in self.arguments for name in argument.option_strings]
        has_commands = any(isinstance(argument.choices, dict) for argument in self.arguments)
        for word in args:
            name = word.partition("=")[0]
            if word == "--" or (has_commands and not word.startswith("-")):
                break
            if re.match(r"--?[A-Za-z]", name) and name not in known:
                self.error(f"unknown option {name}: {nearest(name, known)}")
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Tell of a mistake.

        Raises:
            ValueError: always, with argparse's message in this program's words.
        """
        if found := re.fullmatch(
            r"argument (.+): invalid choice: (.+) \(choose from (.+)\)", message
        ):
            name, value, choices = found.groups()
            known = [choice.strip(QUOTE) for choice in choices.split(", ")]
            message = f"{name} is {value}: {nearest(value.strip(QUOTE), known)}"
        elif found := re.fullmatch(r"the following arguments are required: (.+)", message):
            message = f"missing: {found[1]}"
        elif found := re.fullmatch(r"argument (.+): invalid (int|float) value: (.+)", message):
            message = f"{found[1]} is {found[3]}, expected {KINDS[found[2]]}"
        raise ValueError(f"{message} ({self.prog} --help)")


# --- standard input as one of the files that a user names ---------------------------------------


def standard_input(expected: str) -> io.BufferedReader:
    """Standard input, for reading bytes.

    Args:
        expected: what should come from there, for the message.

    Raises:
        ValueError: it is closed.
    """
    # Python has no sys.stdin where the process was started without one.
    if sys.stdin is None:
        raise ValueError(f"standard input is closed, expected {expected}")
    return cast(io.BufferedReader, sys.stdin.buffer)


def read_standard_input(expected: str, max_bytes: int) -> bytes:
    """All of standard input.

    Args:
        expected: what should come from there, for the message.
        max_bytes: no more than that is read.

    Raises:
        ValueError: it is closed, a terminal, or has more.
    """
    file = standard_input(expected)
    if file.isatty():
        raise ValueError(f"standard input is a terminal, expected {expected}")
    return read_stream(file, "standard input", expected, max_bytes)


# --- what a command writes is never what it reads -----------------------------------------------


def check_outputs(outputs: Iterable[Name], inputs: Iterable[Name]) -> None:
    """Refuse outputs that would take the place of an input, or of each other.

    A file is known by what it is, not by its name: another spelling, a link, a hard link lead to
    the same one.

    Args:
        outputs: files that will be written; None for one that was not asked for.
        inputs: files that are read: recordings, manifests, models and settings; None and `-` are
            passed over.

    Raises:
        ValueError: naming the output.
    """
    written: dict[object, Name] = {}
    for path in outputs:
        if path is None:
            continue
        identity = _identity(path)
        if identity in written:
            raise ValueError(
                f"{path}: two outputs would be written to it, expected a file for each"
            )
        written[identity] = path
    if not written:
        return
    for path in inputs:
        if path is not None and str(path) != STDIN and (output := written.get(_identity(path))):
            also = "" if str(output) == str(path) else f" as {path}"
            raise ValueError(
                f"{output}: would be overwritten and is read{also}, expected another file to "
                "write to"
            )


def listed(setting: object) -> list[str]:
    """The files that a setting names: one, several in a list, or none."""
    if isinstance(setting, Sequence) and not isinstance(setting, str):
        return [str(each) for each in setting]
    return [] if setting is None else [str(setting)]


def _identity(path: Name) -> object:
    """Device and number of a file that is there, else where its name leads."""
    assert path is not None
    try:
        status = os.stat(path)
    except OSError:
        return os.path.realpath(path)
    except ValueError:  # a name that no file can have: with a zero byte
        return str(path)
    return status.st_dev, status.st_ino


# --- which decoder: options of a command line, and files of settings ----------------------------


def add_decoder_options(parser: argparse.ArgumentParser) -> None:
    """The options that `decoder_settings` reads."""
    group = parser.add_argument_group("decoding", "default: greedy")
    source = group.add_mutually_exclusive_group()
    source.add_argument("--decoder", choices=CHOICES, help="settings: conf/decoder/")
    source.add_argument(
        "--decoder-config", type=Path, metavar="FILE",
        help="decoder settings as YAML; the options below change them",
    )  # fmt: skip
    group.add_argument("--beam-size", type=int, metavar="N")
    group.add_argument(
        "--lm", dest="language_model", metavar="FILE", help="n-gram model: .ngram, .arpa, .arpa.gz"
    )
    group.add_argument("--lm-weight", type=float, metavar="X")
    group.add_argument("--word-bonus", type=float, metavar="NATS")
    group.add_argument("--lexicon", metavar="FILE", help="words to keep to, one a line")
    group.add_argument(
        "--hotword", dest="hotwords", action="append", metavar="WORD[:WEIGHT]",
        help=f"a word or phrase that is likely; nats for each occurrence, {HOTWORD_WEIGHT:g} if "
        "not said; may be repeated",
    )  # fmt: skip


def decoder_settings(options: argparse.Namespace) -> dict[str, Any]:
    """The settings of the decoder that the options ask for, as `build_decoder` takes them.

    Raises:
        ValueError: an option that the decoder has no use for, or a file of no such settings.
        OSError: a file that cannot be read.
    """
    if options.decoder_config is not None:
        settings = read_decoder_file(options.decoder_config)
    else:
        name = options.decoder or "greedy"
        settings = _of_conf(name)
        if name == "beam" and options.language_model is not None:
            settings |= _of_conf("beam_ngram")
    name = str(settings["_target_"]).rpartition(".")[-1]
    given = {key: getattr(options, key) for key in KEYS if getattr(options, key) is not None}
    if "hotwords" in given:
        given["hotwords"] = parse_hotwords(given["hotwords"])
    parameters = parameters_of(settings["_target_"])
    for key in given:
        if key not in parameters:
            raise ValueError(f"{KEYS[key]} has no effect with {name}, expected another decoder")
    if "hotwords" in given:  # they join those of the file
        given["hotwords"] = (settings.get("hotwords") or {}) | given["hotwords"]
    settings |= given
    if settings.get("language_model") is None:
        for key in ("lm_weight", "word_bonus"):
            if key in given and (key == "lm_weight" or name == "BeamSearch"):
                raise ValueError(f"{KEYS[key]} has no effect without --lm")
    return settings


def build_decoder(
    settings: Mapping[str, Any], recognizer: Recognizer, notice: Callable[[str], object]
) -> Decoder:
    """A decoder for a model: with its alphabet, and with hotwords as its text rules have them.

    Args:
        settings: of conf/decoder, or of a user's file: `_target_`, which names a decoder, beside
            plain values.
        recognizer: the model.
        notice: is told in a line which words of a language model can never be written.

    Raises:
        ValueError: a `_target_` that is no decoder, or what its constructor refused.
        OSError: a file that cannot be read.
    """
    arguments = dict(settings)
    name = check_target(arguments.pop("_target_", None), "decoder", DECODERS)
    constructor = target(name, "decoder")
    if "alphabet" in parameters_of(name):
        arguments["alphabet"] = recognizer.tokenizer.alphabet
    arguments = check_arguments(constructor, arguments, "decoder")
    if arguments.get("hotwords"):
        arguments["hotwords"] = {
            recognizer.text(text): nats for text, nats in arguments["hotwords"].items()
        }
    built: Decoder = constructor(**arguments)
    unwritable = getattr(built, "unwritable", ())
    if unwritable:
        notice(
            f"{arguments['language_model']}: {len(unwritable):,} of its words have characters that "
            f"the model does not write, {unwritable[0]!r} first"
        )
    return built


def parse_hotwords(texts: Iterable[str]) -> dict[str, float]:
    """`WORD` or `WORD:WEIGHT` each to words and their weights [nats]."""
    hotwords: dict[str, float] = {}
    for text in texts:
        phrase, colon, weight = text.rpartition(":")
        try:
            value = float(weight) if colon else HOTWORD_WEIGHT
        except ValueError:
            raise ValueError(f"--hotword {text!r}, expected WORD or WORD:WEIGHT") from None
        phrase = phrase if colon else text
        if phrase in hotwords:
            raise ValueError(f"--hotword {phrase!r} is given twice, expected once")
        hotwords[phrase] = value
    return hotwords


def read_decoder_file(path: Path) -> dict[str, Any]:
    """Decoder settings of a YAML file such as those in conf/decoder/: data, whoever wrote it.

    Raises:
        ValueError: not YAML, none of a decoder, or values that the decoder does not take.
        OSError: missing or unreadable.
    """
    from asr.cli.user_yaml import read_settings

    settings = read_settings(path, "decoder settings as in conf/decoder/")
    if "_target_" not in settings:
        raise ValueError(f"{path}: no _target_, expected decoder settings as in conf/decoder/")
    check_target(settings["_target_"], path, DECODERS)
    for name, value in settings.items():
        if isinstance(value, Mapping) and "_target_" in value:
            raise ValueError(f"{path}: {name} is {shown(value)}, expected a value and no class")
    try:
        check_section(settings, "")  # what is left out may come by an option or from the model
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return settings


def with_decoder_files(arguments: Iterable[str]) -> list[str]:
    """Hydra's arguments, where `decoder=FILE.yaml` has become an option of the group.

    Raises:
        ValueError: a file of no decoder settings.
        OSError: missing or unreadable.
    """
    rewritten = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if key == "decoder" and equals and value.endswith(".yaml"):
            from hydra.core.config_store import ConfigStore

            name = "from_file"
            ConfigStore.instance().store(name, read_decoder_file(Path(value)), group="decoder")
            argument = f"decoder={name}"
        rewritten.append(argument)
    return rewritten


def _of_conf(name: str) -> dict[str, Any]:
    """A file of conf/decoder/, without those that its defaults name."""
    settings = yaml.safe_load((conf_dir() / "decoder" / f"{name}.yaml").read_text("utf-8"))
    settings.pop("defaults", None)
    return {str(key): value for key, value in settings.items()}
