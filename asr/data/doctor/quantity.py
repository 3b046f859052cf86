"""Quantities of utterances whose distributions tell about a corpus, and their histograms."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from asr.data.doctor.audio_checks import SILENT_DB
from asr.data.doctor.examined import Examined, ExaminedManifest
from asr.data.doctor.outliers import PLAUSIBLE_RATE

BLOCKS = " ▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class Quantity:
    """A number that an utterance has.

    Attributes:
        name: for people.
        unit: "" for a ratio.
        note: what to look for.
        value: of an utterance; None where it has none.
        is_log: whether equal ratios are shown at equal distances.
        low: below it something is wrong; None for no bound.
        high: above it something is wrong; None for no bound.
    """

    name: str
    unit: str
    note: str
    value: Callable[[Examined], float | None]
    is_log: bool
    low: float | None = None
    high: float | None = None

    @property
    def label(self) -> str:
        """Name and unit."""
        return f"{self.name} [{self.unit}]" if self.unit else self.name

    def values(self, manifest: ExaminedManifest) -> list[float]:
        """Of the utterances that have one, sorted; on a logarithmic scale those above 0."""
        found = (self.value(each) for each in manifest.utterances)
        return sorted(v for v in found if v is not None and (v > 0 or not self.is_log))


def quantities(min_duration_s: float, max_duration_s: float) -> tuple[Quantity, ...]:
    """What the doctor shows, with the bounds of a training's durations [s]."""
    slowest, fastest = PLAUSIBLE_RATE
    return (
        Quantity(
            "duration", "s", "a training takes those between the limits",
            lambda each: each.duration_s, True, min_duration_s, max_duration_s,
        ),
        Quantity(
            "characters a second", "", "far from the rest: wrong text, or cut audio",
            lambda each: each.characters_per_second, True, slowest, fastest,
        ),
        Quantity(
            "level", "dBFS", "at the left: hardly to be heard",
            lambda each: each.level_db, False, SILENT_DB,
        ),
        Quantity(
            "output frames per frame needed", "", "below 1 CTC has no path",
            lambda each: each.slack, True, 1.0,
        ),
    )  # fmt: skip


def shortfall_quantity(max_shortfall: float) -> Quantity:
    """What is shown besides where a model has listened: by how much texts are behind it [nats]."""
    return Quantity(
        "text behind what is heard", "nats a frame", "at the right: the text is likely wrong",
        lambda each: each.shortfall, False, None, max_shortfall,
    )  # fmt: skip


def edges(low: float, high: float, count: int, is_log: bool) -> list[float]:
    """`count + 1` edges of bins of equal width, or of equal ratio.

    Args:
        low: the first edge; above 0 for equal ratios.
        high: the last edge; where it is no higher than the first, one a little higher is taken.
        count: of bins.
        is_log: equal ratios.
    """
    if is_log:
        inner = [math.exp(edge) for edge in edges(math.log(low), math.log(high), count, False)]
        # Not e^log(x), which may be a bit off: the lowest and the highest value would be outside.
        return [low, *inner[1:-1], max(high, inner[-1])]
    width = max(high - low, 1e-6) / count
    return [low + width * number for number in range(count)] + [low + width * count]


def count_bins(values: Sequence[float], bounds: Sequence[float]) -> list[int]:
    """How many values lie in each bin; those on the last edge, or rounded over it, in the last."""
    counts = [0] * (len(bounds) - 1)
    number = 0
    for value in sorted(values):
        while number < len(counts) - 1 and value >= bounds[number + 1]:
            number += 1
        counts[number] += 1
    return counts


def bar_line(counts: Sequence[int]) -> str:
    """A histogram in one line of text: a bar an eighth of a line high for any bin with a value."""
    most = max(counts, default=0) or 1
    return "".join(BLOCKS[math.ceil(8 * count / most)] for count in counts)
