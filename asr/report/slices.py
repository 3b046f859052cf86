"""An evaluation cut into slices: by speaker, by size or noise, by any field of its manifest."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from asr.metrics.error_rate import ErrorCounts, total
from asr.metrics.interval import Interval
from asr.report.evaluation import EvaluatedUtterance, Evaluation, bootstrap

# Of each slice: there may be hundreds, and the ends of their wide intervals need no third digit.
SLICE_REPLICATES = 2_000
MAX_BINS = 5  # of a numeric field; also, fewer different numbers than this are categories

# Each utterance's number; what a manifest's field of the same name says is not asked.
MEASURES: Mapping[str, Callable[[EvaluatedUtterance], float | None]] = {
    "duration": lambda utterance: utterance.duration_s,
    "reference_length": lambda utterance: utterance.errors.words.reference_length,
    "snr": lambda utterance: utterance.snr_db,
}
UNITS = {"duration": "s", "reference_length": "words", "snr": "dB"}
SPEAKER = "speaker"


@dataclass(frozen=True, slots=True)
class Slice:
    """Utterances that have something in common, added up.

    Attributes:
        value: What they share, for a category; None for a bin of numbers, and for utterances of
            which it is not known.
        low: Lower bound of a bin, inside it; None for a category.
        high: Upper bound, outside the bin but for the last; None for a category.
        num_utterances: How many.
        duration_s: Their audio [s].
        words: Word errors; `.rate` is the WER.
        characters: Character errors; `.rate` is the CER.
        interval: 95 % bootstrap interval of the WER; None with a single utterance.
    """

    value: str | None
    low: float | None
    high: float | None
    num_utterances: int
    duration_s: float
    words: ErrorCounts
    characters: ErrorCounts
    interval: Interval | None


@dataclass(frozen=True, slots=True)
class Slices:
    """An evaluation by one property.

    Attributes:
        by: Name of the property.
        unit: Of its numbers; empty where it has none.
        rows: Bins from low to high; categories by WER, the highest first; then, where there are
            any, the utterances of which it is not known.
    """

    by: str
    unit: str
    rows: tuple[Slice, ...]

    @property
    def highest(self) -> float | None:
        """Upper bound of the last bin, which is inside it; None without bins."""
        return max((row.high for row in self.rows if row.high is not None), default=None)


def slice_names(fields: Sequence[Mapping[str, object]]) -> list[str]:
    """All that utterances with such fields can be cut by."""
    return [SPEAKER, *MEASURES, *sorted({name for each in fields for name in each} - set(MEASURES))]


def check_slice_by(names: Sequence[str], fields: Sequence[Mapping[str, object]]) -> None:
    """Refuses names that nothing is known of.

    Args:
        names: What to cut by.
        fields: Of every utterance, the manifest's further fields.

    Raises:
        ValueError: A name that is neither a measure nor a field of any utterance.
    """
    known = slice_names(fields)
    for name in names:
        if name not in known:
            raise ValueError(
                f"slice_by: {name!r} is no field of the manifest, expected one of "
                f"{', '.join(known)}"
            )


def cut(evaluation: Evaluation, by: str, max_bins: int = MAX_BINS) -> Slices:
    """The evaluation by one property.

    A field whose every value is a number, more than `max_bins` different ones, is cut at its
    quantiles into bins of like counts; equal numbers stay together.

    Args:
        evaluation: The scored utterances.
        by: "speaker", "duration" [s], "reference_length" [words], "snr" [dB] or a field.
        max_bins: How many bins of numbers at most.

    Raises:
        ValueError: Nothing is known by this name.
    """
    utterances = evaluation.utterances
    check_slice_by([by], [each.fields for each in utterances])
    numbers = _numbers(utterances, by, max_bins)
    rows = _categories(utterances, by) if numbers is None else _bins(utterances, numbers, max_bins)
    return Slices(by, UNITS.get(by, ""), tuple(rows))


def _numbers(
    utterances: Sequence[EvaluatedUtterance], by: str, max_bins: int
) -> list[float | None] | None:
    """A number an utterance, None where it has none; None in all where these are categories."""
    if by in MEASURES:
        return [MEASURES[by](each) for each in utterances]
    if by == SPEAKER:
        return None
    texts = [each.fields.get(by) for each in utterances]
    numbers = [None if text is None else _number(text) for text in texts]
    known = {number for number in numbers if number is not None}
    all_numbers = all((text is None) == (n is None) for text, n in zip(texts, numbers, strict=True))
    return numbers if all_numbers and len(known) > max_bins else None


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _categories(utterances: Sequence[EvaluatedUtterance], by: str) -> list[Slice]:
    groups: defaultdict[str | None, list[EvaluatedUtterance]] = defaultdict(list)
    for each in utterances:
        groups[each.speaker if by == SPEAKER else each.fields.get(by)].append(each)
    rows = [_slice(group, value=value) for value, group in groups.items()]
    return sorted(rows, key=lambda row: (row.value is None, -row.words.rate, row.value or ""))


def _bins(
    utterances: Sequence[EvaluatedUtterance], numbers: Sequence[float | None], max_bins: int
) -> list[Slice]:
    known = sorted(number for number in numbers if number is not None)
    unknown = [each for each, n in zip(utterances, numbers, strict=True) if n is None]
    rows: list[Slice] = []
    if known:
        starts = [known[len(known) * k // max_bins] for k in range(max_bins)]
        edges = sorted({*starts, known[-1]})
        edges = edges if len(edges) > 1 else edges * 2
        for low, high in pairwise(edges):
            group = [
                each
                for each, n in zip(utterances, numbers, strict=True)
                if n is not None and (low <= n < high or (n == high == edges[-1]))
            ]
            rows.append(_slice(group, low=low, high=high))
    return [*rows, *([_slice(unknown)] if unknown else [])]


def _slice(
    group: Sequence[EvaluatedUtterance],
    value: str | None = None,
    low: float | None = None,
    high: float | None = None,
) -> Slice:
    return Slice(
        value,
        low,
        high,
        len(group),
        math.fsum(each.duration_s for each in group),
        total(each.errors.words for each in group),
        total(each.errors.characters for each in group),
        bootstrap(group, SLICE_REPLICATES).words,
    )
