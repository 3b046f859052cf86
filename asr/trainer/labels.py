"""Before the first step: which utterances CTC cannot learn from, and how much is left out."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from asr.atomic_file import append_text
from asr.data.doctor.checks import check_frames, check_labels
from asr.data.doctor.findings import Fault, Finding, summarise
from asr.data.manifest import Utterance
from asr.data.splits import seconds
from asr.data.window import Tokens
from asr.model.ctc import required_frames
from asr.recognizer import Recognizer
from asr.text import printable
from asr.untrusted import read_text

logger = logging.getLogger(__name__)

MAX_LIST_BYTES = 1 << 30  # 1 GiB: some millions of utterances
SHOWN = 10  # utterances named in the log; the file has all


def check_feasible(
    utterances: Sequence[Utterance],
    tokens: Sequence[Tokens],
    recognizer: Recognizer,
    fastest: float = 1.0,
) -> list[Fault | None]:
    """Which utterances have no CTC path.

    Args:
        utterances: with known durations.
        tokens: of each, at least one.
        recognizer: gives the output frames of a duration.
        fastest: largest speed factor of the augmentation; it leaves the fewest frames.

    Returns:
        For each, None, or what is wrong: a label that the model does not have, or more labels (and
        blanks between equal neighbours) than output frames.
    """
    rate, vocab_size = recognizer.features.sample_rate, recognizer.tokenizer.vocab_size
    num_samples = torch.tensor([int(seconds(each) * rate / fastest) for each in utterances])
    frames = recognizer.output_length(num_samples).tolist()
    return [
        check_labels(ids, vocab_size)
        or check_frames(ids, seconds(utterance), available, required_frames, fastest)
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
    append_left_out(path, left_out)
    for finding in left_out[:SHOWN]:
        logger.warning("left out %s", printable(str(finding)))
    logger.warning(
        "left out %d of the training utterances (%s), all in %s",
        len(left_out), summarise(left_out), path,
    )  # fmt: skip


def append_left_out(path: Path, left_out: Sequence[Finding]) -> None:
    """Add utterances to the JSONL file, each once for a reason."""
    known = set()
    if path.exists():
        known = set(read_text(path, "utterances that were left out", MAX_LIST_BYTES).splitlines())
    rows = [json.dumps(_row(finding)) for finding in left_out]
    new = [row for row in rows if row not in known]
    append_text(path, "".join(f"{row}\n" for row in new))


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


def _row(finding: Finding) -> dict[str, str | int | None]:
    return {
        "id": finding.id,
        "kind": finding.kind.slug,
        "reason": finding.reason,
        "manifest": None if finding.manifest is None else str(finding.manifest),
        "line": finding.line,
    }
