"""The start of a training from a trained model: its architecture and weights, other characters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from asr.checkpoint.model_file import (
    ModelSpec,
    Part,
    Recognizer,
    complete_spec,
    file_digest,
    load_model,
)
from asr.text import BLANK_ID

# Arguments of a model that no weight depends on: they act in training or choose a kernel.
TRAINING_ARGUMENTS = ("dropout", "recurrent_dropout", "zoneout", "backend")
HEAD = ("model.head.weight", "model.head.bias")


@dataclass(frozen=True)
class Transfer:
    """A recogniser to train, made from a trained one.

    Attributes:
        recognizer: in training mode.
        training: the training summary of the model file.
        notes: a line each on what the settings asked for and the model file decided, and on the
            characters.
    """

    recognizer: Recognizer
    training: Mapping[str, Any]
    notes: tuple[str, ...]


def transfer_model(path: Path, settings: ModelSpec) -> Transfer:
    """Start from a model file.

    Features and model are those of the file but for TRAINING_ARGUMENTS; these, the alphabet and the
    text rules are those of the settings. Stored feature statistics are weights like any other.

    Args:
        path: the model file.
        settings: what the training asks for.

    Raises:
        ValueError: not a model file, or settings that its model refuses.
        OSError: missing or unreadable.
    """
    trained, training = load_model(path)
    theirs, ours = complete_spec(trained.spec), complete_spec(settings)
    recognizer = Recognizer(
        replace(ours, features=theirs.features, model=_with_training_arguments(theirs, ours))
    )
    carry_weights(trained, recognizer)
    return Transfer(recognizer, training, tuple(_notes(path.name, theirs, ours)))


def origin_of(path: Path) -> dict[str, str]:
    """What the training summary of a new model says of the file that it started from.

    Raises:
        OSError: missing or unreadable.
    """
    return {"init_from": path.name, "init_from_sha256": file_digest(path)}


@torch.no_grad()
def carry_weights(trained: Recognizer, fresh: Recognizer) -> None:
    """Copy all weights and statistics; the head's go by character, see `head_rows`.

    Args:
        trained: where they come from.
        fresh: where they go to; its alphabet may be another.

    Raises:
        ValueError: a weight of another shape than the fresh model's, which is then untouched.
    """
    weights, targets = trained.state_dict(), fresh.state_dict()
    old, new = trained.tokenizer.alphabet, fresh.tokenizer.alphabet
    for name in HEAD:
        weights[name] = head_rows(weights[name], trained.model.upsampling, old, new)
    for name in sorted(weights.keys() | targets.keys()):
        found, expected = (
            list(tensors[name].shape) if name in tensors else None for tensors in (weights, targets)
        )
        if found != expected:
            raise ValueError(f"weight {name} has shape {found}, expected {expected}")
    for name, target in targets.items():
        target.copy_(weights[name])


def head_rows(rows: Tensor, upsampling: int, old: str, new: str) -> Tensor:
    """The head's weight or bias for another alphabet.

    The blank and the characters of both alphabets keep their rows. A character that is new gets the
    mean of the old characters' rows, so its logit is the mean of theirs and its probability their
    geometric mean: at no input more than an average character's, and next to nothing wherever the
    model is sure of one. It starts as some character or other and leaves the ratios of the rest
    alone (Hewitt, "Initializing new word embeddings for pretrained language models", 2021).

    Args:
        rows: `(upsampling * V, ...)`.
        upsampling: output frames that the head reads off one LSTM frame.
        old: characters of the rows, V - 1.
        new: characters of the result, V' - 1.

    Returns:
        `(upsampling * V', ...)`.
    """
    of_phases = rows.reshape(upsampling, len(old) + 1, *rows.shape[1:])  # (upsampling, V, ...)
    mean = of_phases[:, BLANK_ID + 1 :].mean(dim=1, keepdim=True)
    with_mean = torch.cat([of_phases, mean], dim=1)  # at V
    ids = {character: i for i, character in enumerate(old, BLANK_ID + 1)}
    chosen = [BLANK_ID, *(ids.get(character, len(old) + 1) for character in new)]
    return with_mean[:, chosen].flatten(0, 1)


def _with_training_arguments(theirs: ModelSpec, ours: ModelSpec) -> Part:
    chosen = {name: ours.model.arguments[name] for name in TRAINING_ARGUMENTS}
    return Part(theirs.model.name, {**theirs.model.arguments, **chosen})


def _notes(file: str, theirs: ModelSpec, ours: ModelSpec) -> Iterator[str]:
    decided = [
        line
        for their, our in ((theirs.features, ours.features), (theirs.model, ours.model))
        for line in _differences(their.arguments, our.arguments)
    ]
    if decided:
        yield f"{file}: {'; '.join(decided)}"
    was, is_now = (spec.model.arguments["zoneout"] for spec in (theirs, ours))
    if was != is_now:
        yield (
            f"{file}: zoneout {is_now} of the settings, not {was} of the model file: evaluation "
            "keeps that share of the state too, so the start is not quite that model"
        )
    rules = [
        f"{name} {ours.text[name]} of the settings, not {value} of the model file"
        for name, value in theirs.text.items()
        if ours.text[name] != value
    ]
    if rules:
        yield f"{file}: text rules: {'; '.join(rules)}"
    yield f"{file}: {_characters(theirs.alphabet, ours.alphabet)}"


def _differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> Iterator[str]:
    for name, value in theirs.items():
        if name not in TRAINING_ARGUMENTS and ours[name] != value:
            yield f"{name} {value} of the model file, not {ours[name]} of the settings"


def _characters(old: str, new: str) -> str:
    kept = [character for character in new if character in old]
    added = [character for character in new if character not in old]
    dropped = [character for character in old if character not in new]
    shares = (("kept", kept), ("added", added), ("dropped", dropped))
    told = [
        f"{len(names)} {what} ({''.join(names)!r})" if names else f"none {what}"
        for what, names in shares
    ]
    return f"characters: {', '.join(told)}"
