"""Why a training does not learn: the utterances it understands least, and what its curves say."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from asr.atomic_file import replace_text

PATIENCE = 3  # validations that a judgement looks back on
SMALL = 0.01  # relative change of a loss that counts as none
MANY = 0.9  # share of steps that is nearly all of them


@dataclass(frozen=True)
class Loud:
    """A training utterance with a high loss: often one whose text is not what is said.

    Attributes:
        id: of the utterance.
        audio: its file.
        loss: [nats a character], while it was learnt from.
        reference: its text.
        hypothesis: what the model hears; empty until asked.
    """

    id: str
    audio: str
    loss: float
    reference: str
    hypothesis: str = ""


class Worst:
    """The utterances of an epoch with the highest loss a character.

    Args:
        count: how many are kept.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._heap: list[tuple[float, str]] = []

    def add(self, losses: Iterable[tuple[str, float]]) -> None:
        """Note utterances by id with their losses [nats a character]."""
        for name, loss in losses:
            if len(self._heap) < self.count:
                heapq.heappush(self._heap, (loss, name))
            elif self._heap and loss > self._heap[0][0]:
                heapq.heapreplace(self._heap, (loss, name))

    def names(self) -> list[str]:
        """Ids of those that are kept."""
        return [name for _, name in self._heap]

    def take(self) -> list[tuple[str, float]]:
        """Ids and losses, the highest first; nothing is kept for the next epoch."""
        found = [(name, loss) for loss, name in sorted(self._heap, reverse=True)]
        self._heap = []
        return found


def write_worst(path: Path, worst: Sequence[Loud]) -> None:
    """Write them as JSON lines, the highest loss first."""
    rows = [json.dumps(asdict(each), ensure_ascii=False) + "\n" for each in worst]
    replace_text(path, "".join(rows))


@dataclass(frozen=True)
class Point:
    """A training at one validation.

    Attributes:
        train_loss: mean over the steps since the one before [nats a character].
        dev_loss: [nats a character].
        cer: on dev, a fraction.
        blank_share: share of output frames whose best label is the blank, in training.
        clipped_share: share of the steps whose gradient was clipped.
    """

    train_loss: float
    dev_loss: float
    cer: float
    blank_share: float
    clipped_share: float


def advise(points: Sequence[Point]) -> str | None:
    """What stands in the way of learning, with a suggestion; None where nothing does.

    Args:
        points: of all validations so far, oldest first.
    """
    if len(points) < PATIENCE:
        return None
    recent = points[-PATIENCE:]
    last = recent[-1]
    if all(point.blank_share > MANY and point.cer > MANY for point in recent):
        return (
            f"{100 * last.blank_share:.0f} % of the frames are blank and CER is "
            f"{100 * last.cer:.0f} %: usual in the first hundreds of steps; if it stays, try "
            "debug=overfit, a higher optim.lr or shorter utterances"
        )
    if all(point.clipped_share > MANY for point in recent) and _is_flat(recent):
        return (
            f"{100 * last.clipped_share:.0f} % of the gradients are clipped and the loss stands "
            "still: try a lower optim.lr"
        )
    if last.train_loss < (1 - SMALL) * recent[0].train_loss and all(
        point.dev_loss > (1 + SMALL) * min(p.dev_loss for p in points) for point in recent
    ):
        return (
            "the train loss falls and the dev loss has risen for "
            f"{PATIENCE} validations: it learns by heart; try augment=full, more model.dropout, a "
            "smaller model or more data"
        )
    if _is_flat(recent):
        return (
            f"neither loss has moved by {100 * SMALL:.0f} % in {PATIENCE} validations: try another "
            "optim.lr, or a larger model if the train loss is still high"
        )
    return None


def _is_flat(points: Sequence[Point]) -> bool:
    """Whether neither loss is below the first one by more than a trifle."""
    first = points[0]
    return all(
        point.train_loss > (1 - SMALL) * first.train_loss
        and point.dev_loss > (1 - SMALL) * first.dev_loss
        for point in points[1:]
    )
