"""Before the first step: which utterances CTC cannot learn from."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from asr.checkpoint import Recognizer
from asr.data.manifest import Utterance
from asr.data.splits import seconds
from asr.model.ctc import required_frames

logger = logging.getLogger(__name__)

SHOWN = 10  # misfits named in the log; the file has all


@dataclass(frozen=True)
class Misfit:
    """An utterance left out of the training, and why."""

    utterance: Utterance
    reason: str


def split_feasible(
    utterances: Sequence[Utterance], recognizer: Recognizer, fastest: float = 1.0
) -> tuple[list[Utterance], list[Misfit]]:
    """Separate the utterances that have a CTC path from those that have none.

    Args:
        utterances: with normalised text and known durations.
        recognizer: gives the output frames of a duration, and the tokens of a text.
        fastest: largest speed factor of the augmentation; it leaves the fewest frames.

    Returns:
        The utterances to train on, in order, and the misfits with a reason each: an empty text, or
        more labels (and blanks between equal neighbours) than output frames.
    """
    rate = recognizer.features.sample_rate
    num_samples = torch.tensor([int(seconds(each) * rate / fastest) for each in utterances])
    frames = recognizer.output_length(num_samples).tolist()
    kept: list[Utterance] = []
    misfits: list[Misfit] = []
    for utterance, available in zip(utterances, frames, strict=True):
        needed = required_frames(recognizer.tokenizer.encode(utterance.text))
        if not utterance.text:
            misfits.append(Misfit(utterance, "empty text, expected at least one character"))
        elif needed > available:
            speed = f" at speed {fastest:g}" if fastest != 1.0 else ""
            reason = (
                f"{utterance.duration:.2f} s give {available} output frames{speed}, expected at "
                f"least {needed} for its {len(utterance.text)} characters"
            )
            misfits.append(Misfit(utterance, reason))
        else:
            kept.append(utterance)
    return kept, misfits


def report_misfits(misfits: Sequence[Misfit], path: Path) -> None:
    """Name the misfits in the log, and all of them in a JSONL file where there are any."""
    path.unlink(missing_ok=True)  # of an earlier training in the same folder
    if not misfits:
        return
    rows = [{"id": misfit.utterance.id, "reason": misfit.reason} for misfit in misfits]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for row in rows[:SHOWN]:
        logger.warning("left out %s: %s", row["id"], row["reason"])
    logger.warning("left out %d of the training utterances, all in %s", len(rows), path)


def check_misfits(misfits: Sequence[Misfit], num_kept: int, max_share: float) -> None:
    """Stop where too little is left.

    Args:
        misfits: what was left out.
        num_kept: utterances that stay.
        max_share: largest share of all that may be left out.

    Raises:
        ValueError: nothing left, or more left out than `max_share`.
    """
    total = num_kept + len(misfits)
    if not num_kept:
        raise ValueError(
            f"no training utterance left of {total}: {misfits[0].utterance.id}: {misfits[0].reason}"
        )
    if len(misfits) > max_share * total:
        raise ValueError(
            f"{len(misfits)} of {total} training utterances cannot be learnt, expected at most "
            f"{max_share:.0%} (trainer.max_left_out); first: {misfits[0].utterance.id}: "
            f"{misfits[0].reason}"
        )
