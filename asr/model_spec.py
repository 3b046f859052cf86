"""The description of a model: everything but its weights, as data, and what is built of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from asr.lexicon import Lexicon, parse_lexicon
from asr.untrusted import check_arguments, shown

MAX_ARGUMENT_TEXT = 1000  # characters


@dataclass(frozen=True)
class Part:
    """A class of this package by name, and its constructor's arguments: data, never code."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelSpec:
    """Everything but the weights that turns a waveform into text.

    Attributes:
        features: of FEATURES.
        model: of MODELS, without n_mels and vocab_size, which follow from the rest.
        alphabet: characters in the order of their ids, from 1.
        text: the transcript rules' settings.
        phones: names of the phones that the characters stand for; none of a model that writes
            characters.
        lexicon: the words of a model of phones and how they are said, as a file has them.
    """

    features: Part
    model: Part
    alphabet: str
    text: Mapping[str, Any]
    phones: Mapping[str, str] = field(default_factory=dict)
    lexicon: str = ""


def lexicon_fields(lexicon: Lexicon) -> dict[str, Any]:
    """Tell a lexicon as `ModelSpec` has it."""
    return {"phones": dict(lexicon.phones), "lexicon": "\n".join(lexicon.lines())}


def lexicon_of(spec: ModelSpec) -> Lexicon | None:
    """Build the lexicon of a model of phones; None of one that writes characters.

    Raises:
        ValueError: phones that the alphabet has not, or a lexicon of others.
    """
    if not spec.phones:
        if spec.lexicon:
            raise ValueError("a lexicon without phones, expected a model of phones")
        return None
    if not set(spec.phones) <= set(spec.alphabet):
        raise ValueError(
            f"phones {shown(sorted(spec.phones))}, expected characters of the alphabet"
        )
    lines = enumerate(spec.lexicon.encode().split(b"\n"), 1)
    return parse_lexicon(lines, "lexicon", spec.phones)


def construct(constructor: Callable[..., Any], what: str, arguments: Mapping[str, Any]) -> Any:
    """Call a constructor with arguments out of a file, each checked by its annotation.

    Raises:
        ValueError: an argument of another type, too long a text, or what the constructor refuses.
    """
    for name, value in arguments.items():
        if isinstance(value, str) and not (len(value) <= MAX_ARGUMENT_TEXT and value.isprintable()):
            raise ValueError(
                f"{what}.{name} is {shown(value)}, expected at most {MAX_ARGUMENT_TEXT} printable "
                "characters"
            )
    return constructor(**check_arguments(constructor, arguments, what))
