"""Checks of one utterance that need no decoding; a training applies them before its first step."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from asr.data.manifest import Utterance
from asr.finding import Finding, Kind
from asr.text import CharTokenizer, describe_character


def check_file(utterance: Utterance) -> Finding | None:
    """Is there a regular file? Its content is not looked at."""
    path = utterance.audio_filepath
    if os.path.isfile(path):
        return None
    what = "not a regular file" if os.path.exists(path) else "no such file"
    return utterance.finding(Kind.MISSING_AUDIO, f"{path}: {what}, expected audio")


def check_duration(
    utterance: Utterance, duration_s: float, min_s: float, max_s: float
) -> Finding | None:
    """Is an utterance as long as those to train on [s]?"""
    if min_s <= duration_s <= max_s:
        return None
    kind = Kind.TOO_SHORT if duration_s < min_s else Kind.TOO_LONG
    return utterance.finding(kind, f"{duration_s:.2f} s, expected {min_s:g} to {max_s:g} s")


def check_text(utterance: Utterance) -> Finding | None:
    """Does the normalised text have a character?"""
    if utterance.text:
        return None
    return utterance.finding(Kind.EMPTY_TEXT, "empty text, expected at least one character")


def check_characters(utterance: Utterance, tokenizer: CharTokenizer) -> Finding | None:
    """Does the alphabet have every character of the normalised text?"""
    unknown = tokenizer.unknown_characters(utterance.text)
    if not unknown:
        return None
    more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
    return utterance.finding(
        Kind.UNKNOWN_CHARACTER,
        f"character {describe_character(unknown[0])}{more} not in the alphabet, expected only "
        f"{tokenizer.alphabet!r}",
    )


def check_frames(
    utterance: Utterance,
    tokens: Sequence[int],
    duration_s: float,
    frames: int,
    required_frames: Callable[[Sequence[int]], int],
    speed: float = 1.0,
) -> Finding | None:
    """Has CTC a path for these labels?

    Args:
        utterance: with these labels.
        tokens: label ids without blanks.
        duration_s: of its audio [s].
        frames: output frames that it leaves at this speed.
        required_frames: fewest output frames for label ids.
        speed: fastest that the augmentation plays it.
    """
    needed = required_frames(tokens)
    if needed <= frames:
        return None
    at_speed = f" at speed {speed:g}" if speed != 1.0 else ""
    return utterance.finding(
        Kind.INFEASIBLE,
        f"{duration_s:.2f} s give {frames} output frames{at_speed}, expected at least {needed} for "
        f"its {len(tokens)} characters",
    )
