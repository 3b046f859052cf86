"""A scored evaluation: its utterances, totals and intervals, and slices by what they share."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice, pairwise
from pathlib import PurePath

from asr.finding import Finding
from asr.metrics.calibration import Reliability, reliability
from asr.metrics.error_rate import ErrorCounts, Unit, UtteranceErrors, total
from asr.metrics.interval import REPLICATES, Interval, rate_intervals
from asr.report.wording import RATE_NAMES, Setting, counted, number
from asr.word import MAX_SECONDS, Word, text_of

MAX_DECIBELS = 1000  # a signal-to-noise ratio beyond is no measurement but a slip
# Of each slice: there may be hundreds, and the ends of their wide intervals need no third digit.
SLICE_REPLICATES = 2_000
MAX_BINS = 5  # of a numeric field; also, fewer different numbers than this are categories
SPEAKER = "speaker"
UNITS = {"duration": "s", "snr": "dB"}

_PART_OF_CORPUS = re.compile("train|dev|test|val|eval", re.IGNORECASE)


# --- the type -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """The model that was evaluated.

    Attributes:
        name: as its users know it.
        num_parameters: how many numbers were trained.
        training: what is known of the training, by name (data, steps, hours and the like).
    """

    name: str
    num_parameters: int
    training: Mapping[str, Setting] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EvaluatedUtterance:
    """One utterance of an evaluation.

    Attributes:
        id: as in the manifest, and as in `errors`.
        speaker: as in the manifest; None where it does not say.
        duration_s: length of the audio [s].
        audio_filepath: where the audio lies.
        errors: the scored texts.
        fields: further fields of the manifest's line, as text.
        snr_db: estimated ratio of speech to noise [dB]; None where none can be told.
        words: the hypothesis's words with their times; empty where there are none.
    """

    id: str
    speaker: str | None
    duration_s: float
    audio_filepath: str
    errors: UtteranceErrors
    fields: Mapping[str, str] = field(default_factory=dict, hash=False)
    snr_db: float | None = None
    words: tuple[Word, ...] = ()

    def __post_init__(self) -> None:
        if self.id != self.errors.id:
            raise ValueError(
                f"utterance {self.id!r}: errors are of {self.errors.id!r}, expected its own"
            )
        if not 0 <= self.duration_s <= MAX_SECONDS:
            raise ValueError(
                f"utterance {self.id!r}: duration is {self.duration_s} s, expected 0 to "
                f"{MAX_SECONDS:g}"
            )
        if self.snr_db is not None and not abs(self.snr_db) <= MAX_DECIBELS:
            raise ValueError(
                f"utterance {self.id!r}: signal-to-noise ratio is {self.snr_db} dB, expected "
                f"-{MAX_DECIBELS} to {MAX_DECIBELS}"
            )
        text = text_of(self.words)
        if self.words and text != self.errors.hypothesis:
            raise ValueError(
                f"utterance {self.id!r}: words with times are {text!r}, expected those of the "
                f"hypothesis, {self.errors.hypothesis!r}"
            )


# Each utterance's number; what a manifest's field of the same name says is not asked.
MEASURES: Mapping[str, Callable[[EvaluatedUtterance], float | None]] = {
    "duration": lambda utterance: utterance.duration_s,
    "reference_length": lambda utterance: utterance.errors.words.reference_length,
    "snr": lambda utterance: utterance.snr_db,
}


@dataclass(frozen=True, slots=True)
class RateIntervals:
    """95 % bootstrap intervals of the WER and the CER; None with a single utterance."""

    words: Interval | None
    characters: Interval | None


@dataclass(frozen=True)
class Slice:
    """Utterances that have something in common.

    Attributes:
        value: what they share, for a category; None for a bin of numbers, and for utterances of
            which it is not known.
        low: lower bound of a bin, inside it; None for a category.
        high: upper bound, outside the bin but for the last; None for a category.
        utterances: at least one.
    """

    value: str | None
    low: float | None
    high: float | None
    utterances: tuple[EvaluatedUtterance, ...]

    @property
    def num_utterances(self) -> int:
        """How many."""
        return len(self.utterances)

    @cached_property
    def duration_s(self) -> float:
        """Their audio [s]."""
        return math.fsum(each.duration_s for each in self.utterances)

    @cached_property
    def words(self) -> ErrorCounts:
        """Their word errors; `.rate` is the WER."""
        return total(each.errors.words for each in self.utterances)

    @cached_property
    def characters(self) -> ErrorCounts:
        """Their character errors; `.rate` is the CER."""
        return total(each.errors.characters for each in self.utterances)

    @cached_property
    def interval(self) -> Interval | None:
        """95 % bootstrap interval of the WER; None with a single utterance."""
        return bootstrap(self.utterances, SLICE_REPLICATES).words


@dataclass(frozen=True, slots=True)
class Slices:
    """An evaluation by one property.

    Attributes:
        by: name of the property.
        unit: of its numbers; empty where it has none.
        rows: bins from low to high; categories by WER, the highest first; then, where there are
            any, the utterances of which it is not known.
    """

    by: str
    unit: str
    rows: tuple[Slice, ...]

    @property
    def highest(self) -> float | None:
        """Upper bound of the last bin, which is inside it; None without bins."""
        return max((row.high for row in self.rows if row.high is not None), default=None)


@dataclass(frozen=True)
class Evaluation:
    """A model's transcripts of one manifest, scored.

    Attributes:
        title: heading of the report; the manifest where the user gave none.
        model: the model.
        manifest: name of the manifest.
        real_time_factor: computing time over audio time; None where it was not measured.
        utterances: at least one, with at least one reference word among them.
        settings: how the transcripts were made, by name (decoder, device and the like).
        text_rules: what reference and hypothesis both went through before they were compared, one
            rule an entry.
        slice_by: what the WER is told apart by; see `cut`.
        left_out: what is wrong with the utterances of the manifest that are not among these.
    """

    title: str
    model: ModelDescription
    manifest: str
    real_time_factor: float | None
    utterances: tuple[EvaluatedUtterance, ...]
    settings: Mapping[str, Setting] = field(default_factory=dict)
    text_rules: tuple[str, ...] = ()
    slice_by: tuple[str, ...] = ()
    left_out: tuple[Finding, ...] = ()

    def __post_init__(self) -> None:
        factor = self.real_time_factor
        if factor is not None and not (math.isfinite(factor) and factor >= 0):
            raise ValueError(
                f"evaluation {self.title!r}: real-time factor is {factor}, expected 0 or more"
            )
        if self.words.reference_length == 0:
            raise ValueError(
                f"evaluation {self.title!r}: no reference word in {len(self.utterances)} "
                "utterances, expected at least one"
            )
        units = {each.errors.unit for each in self.utterances}
        if len(units) > 1:
            raise ValueError(f"evaluation {self.title!r}: units are {units}, expected one")

    @property
    def unit(self) -> Unit:
        """What errors are counted in: words, or characters, which then are `words` too."""
        return self.utterances[0].errors.unit

    @property
    def rate_name(self) -> str:
        """The headline's: WER, or CER where the unit is the character."""
        return RATE_NAMES[self.unit]

    @property
    def corpus(self) -> str:
        """What was evaluated on: the title, or the manifest by name where none was given."""
        return self.title if self.title != self.manifest else name_of(self.manifest)

    @property
    def heading(self) -> str:
        """The title, or corpus and model by name where none was given."""
        own = self.title == self.manifest
        return f"{self.corpus}, {name_of(self.model.name)}" if own else self.title

    @property
    def completeness(self) -> str:
        """How much of the manifest was evaluated, in words; empty where all of it was."""
        count = len(self.left_out)
        if not count:
            return ""
        total = len(self.utterances) + count
        return f"{number(len(self.utterances))} of {counted(total, 'utterance')}; " + (
            f"{number(count)} could not be read"
        )

    @cached_property
    def duration_s(self) -> float:
        """Audio of all utterances [s]."""
        return math.fsum(each.duration_s for each in self.utterances)

    @cached_property
    def words(self) -> ErrorCounts:
        """Word errors of all utterances; `.rate` is the WER."""
        return total(each.errors.words for each in self.utterances)

    @cached_property
    def characters(self) -> ErrorCounts:
        """Character errors of all utterances; `.rate` is the CER."""
        return total(each.errors.characters for each in self.utterances)

    @cached_property
    def intervals(self) -> RateIntervals:
        """95 % bootstrap intervals of WER and CER, blocked by speaker (asr.metrics.interval)."""
        return bootstrap(self.utterances)

    @cached_property
    def reliability(self) -> Reliability | None:
        """How well the words' confidences tell which are right; None where no word has one."""
        confidences, is_correct = word_outcomes(self.utterances)
        return reliability(confidences, is_correct) if confidences else None

    @cached_property
    def slices(self) -> tuple[Slices, ...]:
        """The evaluation by everything in `slice_by`."""
        return tuple(cut(self, by) for by in self.slice_by)


# --- figures ------------------------------------------------------------------------------------


def name_of(path: str) -> str:
    """Name what a path leads to: `digits test` of `data/digits/test.jsonl`.

    A part of a corpus, and the best model of a training, have their names from their folders.
    """
    folder, stem = PurePath(path).parent.name, PurePath(path).stem
    if folder and stem == "best":
        return folder
    return f"{folder} {stem}" if folder and _PART_OF_CORPUS.match(stem) else stem or path


def bootstrap(
    utterances: Sequence[EvaluatedUtterance], replicates: int = REPLICATES
) -> RateIntervals:
    """Draw 95 % bootstrap intervals of some utterances' WER and CER, blocked by speaker."""
    counts = [
        [each.errors.words for each in utterances],
        [each.errors.characters for each in utterances],
    ]
    speakers = [each.speaker for each in utterances]
    return RateIntervals(*rate_intervals(counts, speakers, replicates))


def word_outcomes(utterances: Iterable[EvaluatedUtterance]) -> tuple[list[float], list[bool]]:
    """Collect the confidence of every word, and whether its alignment says that it is right.

    Utterances without words with times are left out: their hypothesis has no confidences.
    """
    confidences: list[float] = []
    is_correct: list[bool] = []
    for utterance in utterances:
        if utterance.words:
            steps = utterance.errors.alignment
            right = iter([step.kind == "equal" for step in steps if step.hypothesis is not None])
            for word in utterance.words:
                # Of the unit "character" a word may be several: a letter with its marks.
                length = len(word.word) if utterance.errors.unit == "character" else 1
                confidences.append(word.confidence)
                is_correct.append(min(islice(right, length)))
    return confidences, is_correct


def worst(evaluation: Evaluation, limit: int | None = None) -> list[EvaluatedUtterance]:
    """List the utterances with word errors, most errors first; equal ones by rate, then id."""
    wrong = [each for each in evaluation.utterances if each.errors.words.errors]
    wrong.sort(key=lambda each: (-each.errors.words.errors, -each.errors.words.rate, each.id))
    return wrong[:limit]


def by_speaker(evaluation: Evaluation) -> list[Slice]:
    """Group the evaluation by speaker, the highest WER first, wherever no speaker is given."""
    rows = _categories(evaluation.utterances, SPEAKER)
    return sorted(rows, key=lambda row: (-row.words.rate, row.value or ""))


def slice_names(fields: Sequence[Mapping[str, object]]) -> list[str]:
    """List all that utterances with such fields can be cut by."""
    return [SPEAKER, *MEASURES, *sorted({name for each in fields for name in each} - set(MEASURES))]


def check_slice_by(names: Sequence[str], fields: Sequence[Mapping[str, object]]) -> None:
    """Refuse names that nothing is known of.

    Args:
        names: what to cut by.
        fields: of every utterance, the manifest's further fields.

    Raises:
        ValueError: a name that is neither a measure nor a field of any utterance.
    """
    known = slice_names(fields)
    for name in names:
        if name not in known:
            raise ValueError(
                f"slice_by: {name!r} is no field of the manifest, expected one of "
                f"{', '.join(known)}"
            )


def cut(evaluation: Evaluation, by: str, max_bins: int = MAX_BINS) -> Slices:
    """Cut an evaluation by one property.

    A field whose every value is a number, more than `max_bins` different ones, is cut at its
    quantiles into bins of like counts; equal numbers stay together.

    Args:
        evaluation: the scored utterances.
        by: "speaker", "duration" [s], "reference_length" [words], "snr" [dB] or a field.
        max_bins: how many bins of numbers at most.

    Raises:
        ValueError: nothing is known by this name.
    """
    utterances = evaluation.utterances
    check_slice_by([by], [each.fields for each in utterances])
    numbers: list[float | None] | None = None  # where these are categories
    if by in MEASURES:
        numbers = [MEASURES[by](each) for each in utterances]
    elif by != SPEAKER:
        texts = [each.fields.get(by) for each in utterances]
        found = [_number(text) for text in texts]
        is_numeric = texts.count(None) == found.count(None)
        if is_numeric and len(set(found) - {None}) > max_bins:
            numbers = found
    if numbers is None:
        return Slices(by, "", tuple(_categories(utterances, by)))
    pairs = list(zip(utterances, numbers, strict=True))
    known = sorted(number for number in numbers if number is not None)
    rows: list[Slice] = []
    if known:
        starts = [known[len(known) * k // max_bins] for k in range(max_bins)]
        edges = sorted({*starts, known[-1]})
        for low, high in pairwise(edges if len(edges) > 1 else edges * 2):
            is_last = high == edges[-1]
            group = [
                each
                for each, n in pairs
                if n is not None and (low <= n < high or (is_last and n == high))
            ]
            rows.append(Slice(None, low, high, tuple(group)))
    unknown = tuple(each for each, n in pairs if n is None)
    if unknown:
        rows.append(Slice(None, None, None, unknown))
    unit = f"{evaluation.unit}s" if by == "reference_length" else UNITS.get(by, "")
    return Slices(by, unit, tuple(rows))


def _number(text: str | None) -> float | None:
    try:
        number = math.nan if text is None else float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _categories(utterances: Sequence[EvaluatedUtterance], by: str) -> list[Slice]:
    groups: defaultdict[str | None, list[EvaluatedUtterance]] = defaultdict(list)
    for each in utterances:
        groups[each.speaker if by == SPEAKER else each.fields.get(by)].append(each)
    rows = [Slice(value, None, None, tuple(group)) for value, group in groups.items()]
    return sorted(rows, key=lambda row: (row.value is None, -row.words.rate, row.value or ""))
