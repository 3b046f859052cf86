"""Before the first step: which utterances CTC cannot learn from, and how much is left out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from asr.data.checks import check_frames
from asr.data.dataset import Tokens
from asr.data.manifest import Utterance
from asr.data.splits import seconds
from asr.finding import Finding, append_findings, summarise
from asr.model.ctc import required_frames
from asr.recognizer import Recognizer
from asr.text import printable

logger = logging.getLogger(__name__)

SHOWN = 10  # utterances named in the log; the file has all


def check_feasible(
    utterances: Sequence[Utterance],
    tokens: Sequence[Tokens],
    recognizer: Recognizer,
    fastest: float = 1.0,
) -> list[Finding | None]:
    """Which utterances have no CTC path.

    Args:
        utterances: with known durations.
        tokens: of each, at least one.
        recognizer: gives the output frames of a duration.
        fastest: largest speed factor of the augmentation; it leaves the fewest frames.

    Returns:
        For each, None, or what is wrong: more labels (and blanks between equal neighbours) than
        output frames.
    """
    rate = recognizer.features.sample_rate
    num_samples = torch.tensor([int(seconds(each) * rate / fastest) for each in utterances])
    frames = recognizer.output_length(num_samples).tolist()
    return [
        check_frames(utterance, seconds(utterance), available, required_frames(ids), fastest)
        for utterance, ids, available in zip(utterances, tokens, frames, strict=True)
    ]


def report_misfits(left_out: Sequence[Finding], path: Path, is_resumed: bool = False) -> None:
    """Name what is left out in the log, and all of it in a JSONL file where there is any.

    Args:
        left_out: before the training.
        path: the file; one of an earlier training in the same folder goes.
        is_resumed: the training goes on, and what it found before stays in the file.
    """
    if not is_resumed:
        path.unlink(missing_ok=True)
    if not left_out:
        return
    append_findings(path, left_out)
    for finding in left_out[:SHOWN]:
        logger.warning("left out %s", printable(str(finding)))
    logger.warning(
        "left out %d of the training utterances (%s), all in %s",
        len(left_out), summarise(left_out), path,
    )  # fmt: skip


def check_misfits(left_out: Sequence[Finding], num_kept: int, max_share: float) -> None:
    """Stop where too little is left.

    Args:
        left_out: what is left out, for any reason.
        num_kept: utterances that stay.
        max_share: largest share of all that may be left out.

    Raises:
        ValueError: nothing left, or more left out than `max_share`; with a summary by kind.
    """
    total = num_kept + len(left_out)
    if not num_kept:
        raise ValueError(
            f"no training utterance left of {total}: {summarise(left_out)}; first: {left_out[0]}"
        )
    if len(left_out) > max_share * total:
        raise ValueError(
            f"{len(left_out)} of {total} training utterances cannot be used, expected at most "
            f"{max_share:.0%} (trainer.max_left_out): {summarise(left_out)}; first: {left_out[0]}"
        )
