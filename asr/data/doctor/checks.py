"""Checks of one utterance that need no decoding; a training applies them before its first step."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from asr.data.doctor.findings import Fault, Kind
from asr.text import CharTokenizer, describe_character


def check_file(path: Path) -> Fault | None:
    """Is there a regular file? Its content is not looked at."""
    if os.path.isfile(path):
        return None
    what = "not a regular file" if os.path.exists(path) else "no such file"
    return Fault(Kind.MISSING_AUDIO, f"{path}: {what}, expected audio")


def check_duration(duration_s: float, min_s: float, max_s: float) -> Fault | None:
    """Is an utterance as long as those to train on [s]?"""
    if min_s <= duration_s <= max_s:
        return None
    kind = Kind.TOO_SHORT if duration_s < min_s else Kind.TOO_LONG
    return Fault(kind, f"{duration_s:.2f} s, expected {min_s:g} to {max_s:g} s")


def check_text(text: str) -> Fault | None:
    """Does a normalised text have a character?"""
    if text:
        return None
    return Fault(Kind.EMPTY_TEXT, "empty text, expected at least one character")


def check_characters(text: str, tokenizer: CharTokenizer) -> Fault | None:
    """Does the alphabet have every character of a normalised text?"""
    unknown = tokenizer.unknown_characters(text)
    if not unknown:
        return None
    more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
    return Fault(
        Kind.UNKNOWN_CHARACTER,
        f"character {describe_character(unknown[0])}{more} not in the alphabet, expected only "
        f"{tokenizer.alphabet!r}",
    )


def check_labels(tokens: Sequence[int], vocab_size: int) -> Fault | None:
    """Is every label id one that the model's output has, and none the blank?"""
    wrong = next((token for token in tokens if not 0 < token < vocab_size), None)
    if wrong is None:
        return None
    blank = " (the blank)" if wrong == 0 else ""
    return Fault(Kind.BAD_LABEL, f"label {wrong}{blank}, expected 1 to {vocab_size - 1}")


def check_frames(
    tokens: Sequence[int],
    duration_s: float,
    frames: int,
    required_frames: Callable[[Sequence[int]], int],
    speed: float = 1.0,
) -> Fault | None:
    """Has CTC a path for these labels?

    Args:
        tokens: label ids without blanks.
        duration_s: of the utterance [s].
        frames: output frames that it leaves at this speed.
        required_frames: fewest output frames for label ids.
        speed: fastest that the augmentation plays it.
    """
    needed = required_frames(tokens)
    if needed <= frames:
        return None
    at_speed = f" at speed {speed:g}" if speed != 1.0 else ""
    return Fault(
        Kind.INFEASIBLE,
        f"{duration_s:.2f} s give {frames} output frames{at_speed}, expected at least {needed} for "
        f"its {len(tokens)} characters",
    )
