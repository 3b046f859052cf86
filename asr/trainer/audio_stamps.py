"""Whether audio files are still those that a training began to learn from."""

from __future__ import annotations

import logging
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from asr.data.manifest import Utterance
from asr.text import printable

logger = logging.getLogger(__name__)


class AudioStamps:
    """A short number for the file of each training utterance, kept with the training's state.

    Args:
        utterances: of a manifest, in an order that the plan's fingerprint fixes.
        is_writer: whether this rank saves states; the others look at no file.
    """

    def __init__(self, utterances: Sequence[Utterance], is_writer: bool = True) -> None:
        self.paths = [utterance.audio_filepath for utterance in utterances]
        self.is_writer = is_writer
        # One look at a file, however many utterances are cut from it.
        known = {path: _stamp(path) for path in dict.fromkeys(self.paths)} if is_writer else {}
        stamps = [known.get(path, 0) for path in self.paths]
        self.stamps = torch.tensor(stamps, dtype=torch.int32)

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` compares with."""
        return {"stamps": self.stamps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Tell in a line which files are no longer those of a state; the training takes them.

        Args:
            state_dict: of as many utterances.
        """
        if not self.is_writer:
            return
        places = torch.nonzero(self.stamps != state_dict["stamps"]).flatten().tolist()
        changed = dict.fromkeys(self.paths[place] for place in places)
        if changed:
            logger.warning(
                "resumed on other audio than before: %d of %d files have another size or time of "
                "change than when the state's training began to read them, %s first; it goes on "
                "with them as they are (files that were copied without their times look so too)",
                len(changed), len(set(self.paths)), printable(str(next(iter(changed)))),
            )  # fmt: skip


def _stamp(path: Path) -> int:
    """32 bits, signed, of a file's size and time of change; 0 where it is gone."""
    try:
        found = os.stat(path)
    except OSError:
        return 0
    stamp = zlib.crc32(f"{found.st_size} {found.st_mtime_ns}".encode())
    return stamp - (1 << 32 if stamp >> 31 else 0)
