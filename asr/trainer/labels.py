"""Before the first step: which utterances CTC cannot learn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from asr.checkpoint import Recognizer
from asr.data.manifest import Utterance
from asr.model.ctc import required_frames


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
    durations = [utterance.duration or 0.0 for utterance in utterances]
    num_samples = torch.tensor([int(seconds * rate / fastest) for seconds in durations])
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
