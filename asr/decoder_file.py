"""Decoder files: settings of a decoder as YAML, checked, and the decoder that they make of a model.

The names of settings are those of conf/decoder/. Whoever wrote a file, it is data.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asr.signatures import Parameter, parameters_of
from asr.untrusted import check_arguments, checked, nearest, shown
from asr.user_yaml import read_settings

if TYPE_CHECKING:  # settings are read and checked without torch
    from asr.decoder import BeamSearch, Greedy
    from asr.speech_model import SpeechModel

DECODERS = ("asr.decoder.BeamSearch", "asr.decoder.Greedy")  # all that a `_target_` may name
FILES = ("language_model", "lexicon", "phrases")  # settings that name a file
# How a decoder file names a file beside it, or in a folder beside its own.
NEAR = re.compile(r"(\.\./[\w-]+/)?(?!\.\.)[^/\\]+")


def settings_of(target: str) -> dict[str, Parameter]:
    """Find what a class takes by settings, by name; a decoder's lexicon and phrases are files.

    Args:
        target: its dotted name.
    """
    parameters = parameters_of(target)
    files = FILES if target in DECODERS else ()
    path = Parameter(str | None, is_needed=False)
    return {name: path if name in files else each for name, each in parameters.items()}


def read_decoder_file(path: Path) -> dict[str, Any]:
    """Read decoder settings of a YAML file such as those in conf/decoder/.

    A file that it names without a folder is the one beside it, and `../NAME/FILE` that of a folder
    beside its own, where there is one.

    Raises:
        ValueError: not YAML, none of a decoder, or values that the decoder does not take.
        OSError: missing or unreadable.
    """
    settings = read_settings(path, "decoder settings as in conf/decoder/")
    if "_target_" not in settings:
        raise ValueError(f"{path}: no _target_, expected decoder settings as in conf/decoder/")
    parameters = settings_of(_decoder_name(settings["_target_"], path))
    for name, value in settings.items():
        if name == "_target_":
            continue
        if isinstance(value, Mapping) and "_target_" in value:
            raise ValueError(f"{path}: {name} is {shown(value)}, expected a value and no class")
        if name not in parameters:
            raise ValueError(f"{path}: unknown setting {name}: {nearest(name, parameters)}")
        try:  # what is left out may come by an option or from the model
            checked(value, parameters[name].kind, name)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        if name in FILES and value and NEAR.fullmatch(value):
            near = path.parent / value
            settings[name] = str(near) if near.is_file() else value
    return settings


def read_own_decoder(path: Path) -> dict[str, Any]:
    """Read the decoder file of a model's folder, whose files lie there or in that of another model.

    Raises:
        ValueError: as of `read_decoder_file`, or a file that lies elsewhere.
        OSError: missing or unreadable.
    """
    settings = read_decoder_file(path)
    for name in FILES:
        value = settings.get(name)
        if value is None:
            continue
        own = value.removeprefix(f"{path.parent}/")
        if NEAR.fullmatch(own) is None:
            raise ValueError(
                f"{path}: {name} is {shown(value)}, expected a file in its folder, or ../NAME/FILE"
            )
        settings[name] = str(path.parent / own)
    return settings


def build_decoder(
    settings: Mapping[str, Any], recognizer: SpeechModel, notice: Callable[[str], object]
) -> BeamSearch | Greedy:
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
    import asr.decoder

    arguments = dict(settings)
    name = _decoder_name(arguments.pop("_target_", None), "decoder")
    constructor = getattr(asr.decoder, name.rpartition(".")[-1])
    lexicon, phrases = arguments.pop("lexicon", None), arguments.pop("phrases", None)
    if "alphabet" in parameters_of(name):
        arguments["alphabet"] = recognizer.tokenizer.alphabet
    arguments = check_arguments(constructor, arguments, "decoder")
    if phrases is not None:
        from asr.decoder.phrases import read_phrases

        arguments["phrases"] = read_phrases(Path(str(phrases)), recognizer.text)
    if arguments.get("hotwords"):
        arguments["hotwords"] = {
            # On a command line Hydra makes a number of 10.
            recognizer.text(str(text)): nats
            for text, nats in arguments["hotwords"].items()
        }
    if "lexicon" in parameters_of(name):
        needed = [*(arguments.get("phrases") or ()), *(arguments.get("hotwords") or ())]
        arguments["lexicon"] = _spellings(lexicon, recognizer, needed, notice)
    built: BeamSearch | Greedy = constructor(**arguments)
    unwritable = getattr(built, "unwritable", ())
    if unwritable:
        notice(
            f"{arguments['language_model']}: {len(unwritable):,} of its words have characters that "
            f"the model does not write, {unwritable[0]!r} first"
        )
    return built


def finds_no_words(settings: Mapping[str, Any], recognizer: SpeechModel) -> bool:
    """Tell whether a decoder would leave phones as they are: greedy, of a model of phones."""
    return recognizer.lexicon is not None and str(settings.get("_target_")).endswith(".Greedy")


def _decoder_name(name: object, where: object) -> str:
    """Check what the `_target_` of a decoder names, and return it."""
    if name not in DECODERS:
        raise ValueError(
            f"{where}: _target_ is {shown(name)}, expected one of {', '.join(DECODERS)}"
        )
    return str(name)


def _spellings(
    file: object,
    recognizer: SpeechModel,
    needed: Sequence[str],
    notice: Callable[[str], object],
) -> Mapping[str, Sequence[str]] | None:
    """The only words that there are, and how the model writes them; None for any.

    A lexicon of phones is given the words that phrases and hotwords need beside its own.
    """
    from asr.lexicon import read_words, read_words_of_model
    from asr.pronounce import completed, describe_said

    lexicon = recognizer.lexicon
    if lexicon is None:
        if file is None:
            return None
        return {word: (word,) for word in read_words(Path(str(file)), recognizer.tokenizer)}
    if file is not None:
        lexicon = read_words_of_model(str(file), lexicon.phones, recognizer.text)
    lexicon, given = completed(lexicon, needed)
    if given:
        notice(describe_said(given))
    return lexicon.pronunciations
