"""Which decoder: by options of a command line, Hydra's `decoder=`, a file, or the model's own.

The names, their settings and defaults are those of conf/decoder/ in each of these ways, and
`asr.decoder_file.build_decoder` builds what any of them asks for.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml  # type: ignore[import-untyped]

from asr.cli.conf import MISSING, conf_dir, config_groups
from asr.cli.terminal import tell
from asr.decoder_file import (
    build_decoder,
    finds_no_words,
    read_decoder_file,
    read_own_decoder,
)
from asr.signatures import parameters_of
from asr.starter_model import decoder_file, model_path

if TYPE_CHECKING:
    from asr.speech_model import SpeechModel
    from asr.transcriber import Transcriber

FROM_FILE, OF_MODEL = "from_file", "of_model"  # options of Hydra's group `decoder`
DEFAULT = "greedy"  # where a command line names none; conf/evaluate.yaml has its own
HOTWORD_WEIGHT = 4.0  # [nats] the best of 2 to 16 on dev: docs/results.md

# The options of a command line that change one setting of conf/decoder/ each.
OPTIONS = {
    "beam_size": "--beam-size",
    "nbest": "--n-best",
    "language_model": "--lm",
    "lm_weight": "--lm-weight",
    "word_bonus": "--word-bonus",
    "prior_weight": "--prior-weight",
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
        help="settings: conf/decoder/; beam with --lm is beam_ngram; beam_phones for phones",
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
        "--prior-weight", type=float, metavar="X",
        help="how much of a label's frequency in the language model is taken out of what is heard",
    )  # fmt: skip
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
        settings = read_own_decoder(own)
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
        for key in ("lm_weight", "prior_weight", "word_bonus"):
            if key in given:
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


# --- Hydra's command line ------------------------------------------------------------------------


def own_decoder(words: Iterable[str]) -> Path | None:
    """Find the decoder in the folder of the model that `asr evaluate` is to use.

    Args:
        words: of its command line.

    Returns:
        None where they choose a decoder, or where the model has none of its own.
    """
    given = {key.lstrip("+"): value for key, _, value in (word.partition("=") for word in words)}
    if "decoder" in given or "model_file" not in given:
        return None
    try:
        return decoder_file(model_path(given["model_file"].strip("'\"")))
    except OSError:  # no such model, of which the command itself tells
        return None


def with_decoder_files(arguments: Sequence[str]) -> list[str]:
    """Rewrite Hydra's arguments so that a decoder file is an option of the group `decoder`.

    It is that of `decoder=FILE.yaml`, or without any `decoder=` that of `own_decoder`.

    Raises:
        ValueError: a file of no decoder settings.
        OSError: missing or unreadable.
    """
    files = {
        argument: read_decoder_file(Path(argument.partition("=")[2]))
        for argument in arguments
        if argument.startswith("decoder=") and argument.endswith(".yaml")
    }
    rewritten = [f"decoder={FROM_FILE}" if each in files else each for each in arguments]
    for settings in files.values():
        _store(FROM_FILE, settings)
    own = own_decoder(arguments)
    if own is not None:
        _store(OF_MODEL, read_own_decoder(own))
        rewritten.append(f"decoder={OF_MODEL}")
    return rewritten


def _store(name: str, settings: Mapping[str, Any]) -> None:
    """Make settings an option of `decoder`: Hydra takes one from its own folders, or from here."""
    from hydra.core.config_store import ConfigStore

    ConfigStore.instance().store(name, settings, group="decoder")


def load_transcriber(
    model_file: Path, settings: Mapping[str, Any], device: str, calibration: Path | None = None
) -> Transcriber:
    """Load a model with its decoder.

    Args:
        model_file: trained or exported.
        settings: of `decoder_settings`.
        device: "auto", "cpu" or "cuda".
        calibration: of `asr evaluate fit_calibration=`; None leaves confidences as they come.

    Raises:
        ValueError: a file of something else, or settings that the model has no use for.
        OSError: a file that cannot be read.
    """
    # Imported here: `--help` and a mistake in the call need none of it.
    from asr.loading import load_speech_model
    from asr.transcriber import Transcriber

    calibrate = None
    if calibration is not None:
        from asr.report.evaluation_file import read_calibration

        calibrate = read_calibration(calibration).apply
    recognizer, _ = load_speech_model(model_file, device)
    decoder = build_decoder(for_model(settings, recognizer), recognizer, tell)
    return Transcriber(recognizer, decoder, calibrate)


def for_model(settings: Mapping[str, Any], recognizer: SpeechModel) -> Mapping[str, Any]:
    """Give settings that a model can use: greedy makes no words of phones, a beam search does."""
    return _settings_of_conf("beam") if finds_no_words(settings, recognizer) else settings
