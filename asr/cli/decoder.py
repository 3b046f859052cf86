"""Which decoder: by options of a command line, by Hydra's `decoder=`, or by a file of settings.

The names, their settings and defaults are those of conf/decoder/ in each of these ways, and
`build_decoder` builds what any of them asks for.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml  # type: ignore[import-untyped]

from asr.cli.build import check_section, check_target, target
from asr.cli.conf import MISSING, conf_dir, config_groups
from asr.cli.signatures import parameters_of
from asr.cli.user_yaml import read_settings
from asr.untrusted import check_arguments, shown

if TYPE_CHECKING:
    from asr.recognizer import Recognizer
    from asr.transcriber import Decoder

STAGE = "asr.decoder"  # the package whose classes a decoder's settings may name
DEFAULT = "greedy"  # where a command line names none; conf/evaluate.yaml has its own
HOTWORD_WEIGHT = 4.0  # [nats] the best of 2 to 16 on dev: docs/results.md

# The options of a command line that change one setting of conf/decoder/ each.
OPTIONS = {
    "beam_size": "--beam-size",
    "nbest": "--n-best",
    "language_model": "--lm",
    "lm_weight": "--lm-weight",
    "word_bonus": "--word-bonus",
    "lexicon": "--lexicon",
    "phrases": "--phrases",
    "hotwords": "--hotword",
}


# --- options of a command line -------------------------------------------------------------------


def add_decoder_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `decoder_settings` reads."""
    group = parser.add_argument_group(
        "decoding",
        "default: the decoder.yaml in a model's folder, else greedy; beam with --lm, --hotword, "
        "--lexicon or --phrases",
    )
    source = group.add_mutually_exclusive_group()
    source.add_argument(
        "--decoder", choices=config_groups()["decoder"],
        help="settings: conf/decoder/; beam with --lm is beam_ngram",
    )  # fmt: skip
    source.add_argument(
        "--decoder-config", type=Path, metavar="FILE",
        help="decoder settings as YAML; the options below change them",
    )  # fmt: skip
    group.add_argument("--beam-size", type=int, metavar="N")
    group.add_argument(
        "--n-best", dest="nbest", type=int, metavar="N",
        help="texts of a segment, with log-probabilities (--format json)",
    )  # fmt: skip
    group.add_argument(
        "--lm", dest="language_model", metavar="FILE", help="n-gram model: .ngram, .arpa, .arpa.gz"
    )
    group.add_argument("--lm-weight", type=float, metavar="X")
    group.add_argument("--word-bonus", type=float, metavar="NATS")
    group.add_argument(
        "--phrases", metavar="FILE",
        help="the only phrases there are, one a line: turn {on,off} the {light,radio}",
    )  # fmt: skip
    group.add_argument("--lexicon", metavar="FILE", help="the only words there are, one a line")
    group.add_argument(
        "--hotword", dest="hotwords", action="append", metavar="WORD[:WEIGHT]",
        help="a word or phrase that is likely; nats for each occurrence, default: "
        f"{HOTWORD_WEIGHT:g}; may be repeated",
    )  # fmt: skip


def decoder_settings(options: argparse.Namespace, own: Path | None = None) -> dict[str, Any]:
    """Find the settings of the decoder that the options ask for, as `build_decoder` takes them.

    Args:
        options: of `add_decoder_options`.
        own: the model's own decoder file, which holds where none of them chooses a decoder or a
            language model; the others change it.

    Raises:
        ValueError: an option that the decoder has no use for, one that it needs, or a file of no
            such settings.
        OSError: a file that cannot be read.
    """
    if options.decoder_config is not None:
        settings = read_decoder_file(options.decoder_config)
    elif own and not (options.decoder or options.language_model):
        settings = _read_own_decoder(own)
    else:
        name = options.decoder or DEFAULT
        if options.decoder is None and (
            options.language_model or options.hotwords or options.lexicon or options.phrases
        ):
            name = "beam"
        if name == "beam" and options.language_model is not None:
            name = "beam_ngram"
        settings = _settings_of_conf(name)
    class_name = str(settings["_target_"]).rpartition(".")[-1]
    given = {key: getattr(options, key) for key in OPTIONS if getattr(options, key) is not None}
    parameters = parameters_of(settings["_target_"])
    for key in given:
        if key not in parameters:
            expected = "expected another decoder"
            raise ValueError(f"{OPTIONS[key]} has no effect with {class_name}, {expected}")
    if "hotwords" in given:  # they join those of the file
        given["hotwords"] = (settings.get("hotwords") or {}) | parse_hotwords(given["hotwords"])
    settings |= given
    if settings.get("language_model") == MISSING:
        raise ValueError("language_model is missing, expected --lm FILE")
    if settings.get("language_model") is None:
        for key in ("lm_weight", "word_bonus"):
            if key in given and (key == "lm_weight" or class_name == "BeamSearch"):
                raise ValueError(f"{OPTIONS[key]} has no effect without --lm")
    return settings


def parse_hotwords(texts: Iterable[str]) -> dict[str, float]:
    """Parse `WORD` or `WORD:WEIGHT` each to words and their weights [nats]."""
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


def _settings_of_conf(name: str) -> dict[str, Any]:
    """Read a file of conf/decoder/, over those that it builds on: without Hydra, which is slow."""
    own: dict[str, Any] = yaml.safe_load(
        (conf_dir() / "decoder" / f"{name}.yaml").read_text("utf-8")
    )
    settings: dict[str, Any] = {}
    for base in own.pop("defaults", ()):
        settings |= _settings_of_conf(base) if base != "_self_" else {}
    return settings | own


# --- files of settings, and Hydra's command line -------------------------------------------------


def read_decoder_file(path: Path) -> dict[str, Any]:
    """Read decoder settings of a YAML file such as those in conf/decoder/: data, whoever wrote it.

    Raises:
        ValueError: not YAML, none of a decoder, or values that the decoder does not take.
        OSError: missing or unreadable.
    """
    settings = read_settings(path, "decoder settings as in conf/decoder/")
    if "_target_" not in settings:
        raise ValueError(f"{path}: no _target_, expected decoder settings as in conf/decoder/")
    check_target(settings["_target_"], path, STAGE)
    for name, value in settings.items():
        if isinstance(value, Mapping) and "_target_" in value:
            raise ValueError(f"{path}: {name} is {shown(value)}, expected a value and no class")
    try:
        check_section(settings, "")  # what is left out may come by an option or from the model
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return settings


def _read_own_decoder(path: Path) -> dict[str, Any]:
    """Read the decoder file in a model's folder, whose own files lie there too."""
    settings = read_decoder_file(path)
    for name in ("language_model", "lexicon", "phrases"):
        value = settings.get(name)
        if value in (None, MISSING):
            continue
        if Path(value).is_absolute() or ".." in Path(value).parts:
            raise ValueError(f"{path}: {name} is {shown(value)}, expected a file in its folder")
        settings[name] = str(path.parent / value)
    return settings


def with_decoder_files(arguments: Iterable[str]) -> list[str]:
    """Rewrite Hydra's arguments so that `decoder=FILE.yaml` is an option of the group.

    Raises:
        ValueError: a file of no decoder settings.
        OSError: missing or unreadable.
    """
    rewritten = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if key == "decoder" and equals and value.endswith(".yaml"):
            from hydra.core.config_store import ConfigStore

            # Hydra takes a file for a group only from its own folders, or from this store.
            name = "from_file"
            ConfigStore.instance().store(name, read_decoder_file(Path(value)), group="decoder")
            argument = f"decoder={name}"
        rewritten.append(argument)
    return rewritten


# --- what all of them lead to --------------------------------------------------------------------


def build_decoder(
    settings: Mapping[str, Any], recognizer: Recognizer, notice: Callable[[str], object]
) -> Decoder:
    """Build a decoder for a model, with its alphabet, and hotwords as its text rules have them.

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
    name = check_target(arguments.pop("_target_", None), "decoder", STAGE)
    constructor = target(name, "decoder")
    lexicon, phrases = arguments.pop("lexicon", None), arguments.pop("phrases", None)
    if "alphabet" in parameters_of(name):
        arguments["alphabet"] = recognizer.tokenizer.alphabet
    arguments = check_arguments(constructor, arguments, "decoder")
    if "lexicon" in parameters_of(name):
        arguments["lexicon"] = _spellings(lexicon, recognizer)
    if phrases is not None:
        from asr.decoder.phrases import read_phrases

        arguments["phrases"] = read_phrases(Path(str(phrases)), recognizer.text)
    if arguments.get("hotwords"):
        arguments["hotwords"] = {
            # On a command line Hydra makes a number of 10.
            recognizer.text(str(text)): nats
            for text, nats in arguments["hotwords"].items()
        }
    built: Decoder = constructor(**arguments)
    unwritable = getattr(built, "unwritable", ())
    if unwritable:
        notice(
            f"{arguments['language_model']}: {len(unwritable):,} of its words have characters that "
            f"the model does not write, {unwritable[0]!r} first"
        )
    return built


def for_model(settings: Mapping[str, Any], recognizer: Recognizer) -> Mapping[str, Any]:
    """Give settings that a model can use: greedy makes no words of phones, a beam search does."""
    is_greedy = str(settings.get("_target_")).endswith(".Greedy")
    return _settings_of_conf("beam") if recognizer.lexicon is not None and is_greedy else settings


def _spellings(file: object, recognizer: Recognizer) -> Mapping[str, Sequence[str]] | None:
    """The only words that there are, and how the model writes them; None for any."""
    from asr.lexicon import read_lexicon, read_words

    if file is None:
        return recognizer.spellings
    path = Path(str(file))
    if recognizer.lexicon is not None:
        own = read_lexicon(path, recognizer.lexicon.phones).under(recognizer.text)
        if not own.pronunciations:
            raise ValueError(f"{path}: no words that the model's text rules leave, expected some")
        return own.pronunciations
    return {word: (word,) for word in read_words(path, recognizer.tokenizer)}
