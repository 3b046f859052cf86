"""Training utterances that are left out, before the first step and after it: up to a share."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from asr.data.checks import check_frames
from asr.data.dataset import Tokens
from asr.data.manifest import Utterance, seconds
from asr.finding import Finding, append_findings, summarise
from asr.model.ctc import required_frames
from asr.recognizer import Recognizer
from asr.text import printable

logger = logging.getLogger(__name__)

SHOWN = 10  # utterances named in the log, before the first step and after it; the file has all


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


class LeftOut:
    """Tells which training utterances are left out, lists them, and stops where they are too many.

    Args:
        before: found before the first step.
        num_kept: utterances that stay.
        max_share: largest share of all that may be left out, of an epoch.
        path: JSON lines of all findings.
        is_writer: whether this rank tells and lists; all stop.

    Raises:
        ValueError: nothing left, or too much left out, with a summary by kind; `begin` first.
    """

    def __init__(
        self,
        before: Sequence[Finding],
        num_kept: int,
        max_share: float,
        path: Path,
        is_writer: bool,
    ) -> None:
        self.before = before
        self.total = num_kept + len(before)
        self.max_share = max_share
        self.path = path
        self.is_writer = is_writer
        self._epoch: list[Finding] = []  # those of this epoch that this process has met
        self._num_named = 0

    def begin(self, is_resumed: bool) -> None:
        """Tell and list what was found before the first step.

        Args:
            is_resumed: what an earlier part of the training found stays in the list.

        Raises:
            ValueError: nothing is left to learn from, or more is left out than may be.
        """
        found = self.before
        if self.is_writer and not is_resumed:
            self.path.unlink(missing_ok=True)
        if self.is_writer and found:
            append_findings(self.path, found)
            for finding in found[:SHOWN]:
                logger.warning("left out %s", printable(str(finding)))
            logger.warning(
                "left out %d of the training utterances (%s), all in %s",
                len(found), summarise(found), self.path,
            )  # fmt: skip
        # Only now, with the list written, from which the reader of the error can go on.
        if len(found) == self.total:
            raise ValueError(
                f"no training utterance left of {self.total}: {summarise(found)}; first: {found[0]}"
            )
        self._check(len(found), f"{summarise(found)}; first: {found[0]}" if found else "")

    def start_epoch(self) -> None:
        """Begin to count anew what is left out while training."""
        self._epoch.clear()

    def add(self, when: str, found: Sequence[Finding], so_far: int) -> None:
        """Tell and list what was found while training.

        Args:
            when: the step, say, for people.
            found: by any rank, the same on all of them; there may be nothing.
            so_far: utterances that this epoch has left out, with these.

        Raises:
            ValueError: more is left out than may be; on all ranks at once.
        """
        if not found:
            return
        self._epoch += found
        if self.is_writer:
            for finding in found[: max(SHOWN - self._num_named, 0)]:
                logger.warning("%s: left out %s", when, printable(str(finding)))
            append_findings(self.path, found)
        self._num_named += len(found)
        everything = summarise([*self.before, *self._epoch])
        self._check(
            len(self.before) + so_far, f"{everything}, all in {self.path}; last: {found[-1]}"
        )

    def _check(self, count: int, summary: str) -> None:
        if count > self.max_share * self.total:
            raise ValueError(
                f"{count} of {self.total} training utterances cannot be used, expected at most "
                f"{self.max_share:.0%} (trainer.max_left_out): {summary}"
            )
