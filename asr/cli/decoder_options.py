"""Which decoder: options of a command line, and files of decoder settings."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml  # type: ignore[import-untyped]

from asr.cli.conf import conf_dir
from asr.untrusted import check_arguments

if TYPE_CHECKING:
    from asr.recognizer import Recognizer
    from asr.transcriber import Decoder

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
    from asr.cli.construct import target

    constructor = target(settings["_target_"], "decoder", DECODERS)
    name = str(settings["_target_"]).rpartition(".")[-1]
    given = {key: getattr(options, key) for key in KEYS if getattr(options, key) is not None}
    if "hotwords" in given:
        given["hotwords"] = parse_hotwords(given["hotwords"])
    parameters = inspect.signature(constructor).parameters
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
    from asr.cli.construct import target

    arguments = dict(settings)
    constructor = target(arguments.pop("_target_", None), "decoder", DECODERS)
    if "alphabet" in inspect.signature(constructor).parameters:
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
    from asr.cli.construct import target
    from asr.cli.user_yaml import read_settings

    settings = read_settings(path, "decoder settings as in conf/decoder/")
    if "_target_" not in settings:
        raise ValueError(f"{path}: no _target_, expected decoder settings as in conf/decoder/")
    constructor = target(settings["_target_"], path, DECODERS)
    arguments = {name: value for name, value in settings.items() if name != "_target_"}
    try:
        # Whatever is left out may come by an option or from the model.
        checked = check_arguments(constructor, arguments, "", partial=True)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return {"_target_": settings["_target_"], **checked}


def with_decoder_files(arguments: Iterable[str]) -> list[str]:
    """Hydra's arguments, where `decoder=FILE.yaml` has become an option of the group.

    Raises:
        ValueError: a file of no decoder settings.
        OSError: missing or unreadable.
    """
    from hydra.core.config_store import ConfigStore

    rewritten = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if key == "decoder" and equals and value.endswith(".yaml"):
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
