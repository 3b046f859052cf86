"""A scored evaluation: the type, its figures and slices, and the JSON file that holds it."""

from __future__ import annotations

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from itertools import pairwise
from pathlib import Path, PurePath
from typing import Any

from asr.atomic_file import replace_text
from asr.finding import Finding, Kind
from asr.metrics.calibration import Calibration, Reliability, reliability
from asr.metrics.error_rate import (
    ErrorCounts,
    UtteranceErrors,
    confusions,
    score_utterance,
    total,
)
from asr.metrics.interval import REPLICATES, Interval, rate_intervals
from asr.report.wording import Setting, counted, number
from asr.untrusted import read_json, record, shown
from asr.word import MAX_SECONDS, Word

FORMAT, VERSION = "asr evaluation", 2
CALIBRATION_FORMAT, CALIBRATION_VERSION = "asr calibration", 1
MAX_BYTES = 1 << 30  # half a million utterances
MAX_CALIBRATION_BYTES = 1 << 16
MAX_DECIBELS = 1000
# Of each slice: there may be hundreds, and the ends of their wide intervals need no third digit.
SLICE_REPLICATES = 2_000
MAX_BINS = 5  # of a numeric field; also, fewer different numbers than this are categories
SPEAKER = "speaker"
UNITS = {"duration": "s", "reference_length": "words", "snr": "dB"}

_PART_OF_CORPUS = re.compile("train|dev|test|val|eval", re.IGNORECASE)
_SURROGATE = re.compile("[\ud800-\udfff]")


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
        text = " ".join(word.word for word in self.words)
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
            confidences += [word.confidence for word in utterance.words]
            is_correct += [step.kind == "equal" for step in steps if step.hypothesis is not None]
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
    rows = _categories(utterances, by) if numbers is None else _bins(utterances, numbers, max_bins)
    return Slices(by, UNITS.get(by, ""), tuple(rows))


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


def _bins(
    utterances: Sequence[EvaluatedUtterance], numbers: Sequence[float | None], max_bins: int
) -> list[Slice]:
    known = sorted(number for number in numbers if number is not None)
    pairs = list(zip(utterances, numbers, strict=True))
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
    return [*rows, *([Slice(None, None, None, unknown)] if unknown else [])]


# --- the JSON file ------------------------------------------------------------------------------


def dump_json(value: object, indent: int | None = None) -> str:
    """Write strict JSON that UTF-8 can hold.

    Args:
        value: what `json.dumps` takes, without NaN and infinities.
        indent: as for `json.dumps`; None puts everything on one line without spaces.

    Returns:
        The text; letters of every script stay as they are, lone surrogates (file names that are
        not UTF-8 have them) are escaped.
    """
    separators = (",", ":") if indent is None else None
    text = json.dumps(
        value, ensure_ascii=False, allow_nan=False, indent=indent, separators=separators
    )
    return _SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def evaluation_to_json(evaluation: Evaluation) -> str:
    """Write the whole evaluation: totals, slices, speakers by their WER, every utterance.

    Rates are fractions; one that is infinite (words against an empty reference) is null, and so
    is a setting that is not finite.
    """
    words, characters = evaluation.words, evaluation.characters
    model = evaluation.model
    content = {
        "format": FORMAT,
        "version": VERSION,
        "title": evaluation.title,
        "model": {
            "name": model.name,
            "num_parameters": model.num_parameters,
            "training": {name: _finite(value) for name, value in model.training.items()},
        },
        "manifest": evaluation.manifest,
        "settings": {name: _finite(value) for name, value in evaluation.settings.items()},
        "num_utterances": len(evaluation.utterances),
        "left_out": [
            {"id": each.id, "audio_filepath": str(each.audio_filepath), "reason": each.reason}
            for each in evaluation.left_out
        ],
        "duration_s": evaluation.duration_s,
        "real_time_factor": evaluation.real_time_factor,
        "text_rules": list(evaluation.text_rules),
        "wer": _finite(words.rate),
        "wer_interval": interval_to_json(evaluation.intervals.words),
        "cer": _finite(characters.rate),
        "cer_interval": interval_to_json(evaluation.intervals.characters),
        "words": counts_to_json(words),
        "characters": counts_to_json(characters),
        "confusions": asdict(confusions(each.errors for each in evaluation.utterances)),
        "reliability": evaluation.reliability and asdict(evaluation.reliability),
        "slice_by": list(evaluation.slice_by),
        "slices": [
            {
                "by": each.by,
                "unit": each.unit,
                "rows": [
                    {"value": row.value, "low": row.low, "high": row.high}
                    | _slice_to_json(row)
                    | {"wer_interval": interval_to_json(row.interval)}
                    for row in each.rows
                ],
            }
            for each in evaluation.slices
        ],
        "speakers": [
            {"speaker": row.value} | _slice_to_json(row) for row in by_speaker(evaluation)
        ],
        "utterances": [_utterance_to_json(each) for each in evaluation.utterances],
    }
    return dump_json(content, indent=1) + "\n"


@dataclass(frozen=True)
class _Counts:
    """`counts_to_json`."""

    reference_length: int
    hits: int
    substitutions: int
    deletions: int
    insertions: int
    errors: int


@dataclass(frozen=True)
class _Utterance:
    """`_utterance_to_json`."""

    id: str
    speaker: str | None
    duration_s: float
    audio_filepath: str
    reference: str
    hypothesis: str
    words: _Counts
    characters: _Counts
    fields: Mapping[str, str]
    snr_db: float | None
    heard: tuple[Word, ...]

    def scored(self) -> EvaluatedUtterance:
        """Align the texts anew; ValueError where the counts are not theirs."""
        errors = score_utterance(self.id, self.reference, self.hypothesis)
        stored = self.words.errors, self.characters.errors
        counted = errors.words.errors, errors.characters.errors
        if stored != counted:
            raise ValueError(
                f"utterance {shown(self.id)}: word and character errors are {stored}, "
                f"expected {counted} by its texts"
            )
        return EvaluatedUtterance(
            self.id, self.speaker, self.duration_s, self.audio_filepath, errors, self.fields,
            self.snr_db, self.heard,
        )  # fmt: skip


@dataclass(frozen=True)
class _LeftOut:
    """A finding, in fewer words than its row in other files has."""

    id: str
    audio_filepath: str
    reason: str

    def finding(self) -> Finding:
        path = Path(self.audio_filepath)
        return Finding(Kind.UNREADABLE_AUDIO, self.reason, self.id, audio_filepath=path)


@dataclass(frozen=True)
class _File:
    """What is read of `evaluation_to_json`; the rest follows from it."""

    title: str
    model: ModelDescription
    manifest: str
    settings: Mapping[str, Setting]
    real_time_factor: float | None
    text_rules: tuple[str, ...]
    slice_by: tuple[str, ...]
    utterances: tuple[_Utterance, ...]
    left_out: tuple[_LeftOut, ...] = ()  # older files have none


def read_evaluation(path: Path) -> Evaluation:
    """Read an `evaluation.json` back; counts and alignments are made anew from its texts.

    Args:
        path: the file.

    Raises:
        ValueError: it is no such file, a value in it is of another type, or its counts are not
            those of its texts.
        OSError: missing or unreadable.
    """
    content = _read_versioned(path, FORMAT, VERSION, MAX_BYTES)
    known = {each.name for each in fields(_File)}
    file = record(_File, {name: content[name] for name in content.keys() & known}, path)
    try:
        check_slice_by(file.slice_by, [each.fields for each in file.utterances])
        ids = [*(each.id for each in file.utterances), *(each.id for each in file.left_out)]
        for id, times in Counter(ids).items():
            if times > 1:
                raise ValueError(f"utterance {shown(id)} occurs twice, expected each id once")
        made = {
            "utterances": tuple(each.scored() for each in file.utterances),
            "left_out": tuple(each.finding() for each in file.left_out),
        }
        return Evaluation(**{each.name: getattr(file, each.name) for each in fields(_File)} | made)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def write_calibration(path: Path, calibration: Calibration) -> None:
    """Write a calibration, in place of an earlier one; its folder is made where it is missing."""
    head = {"format": CALIBRATION_FORMAT, "version": CALIBRATION_VERSION}
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, json.dumps(head | asdict(calibration), indent=1) + "\n")


def read_calibration(path: Path) -> Calibration:
    """Read what `write_calibration` wrote.

    Raises:
        ValueError: it is no such file.
        OSError: missing or unreadable.
    """
    content = _read_versioned(path, CALIBRATION_FORMAT, CALIBRATION_VERSION, MAX_CALIBRATION_BYTES)
    return record(Calibration, content, path)


def _read_versioned(path: Path, form: str, version: int, max_bytes: int) -> dict[str, Any]:
    """Read a JSON file of ours that says what it is: `form` and `version`, which are left out."""
    content = read_json(path, f"a file of {form}", max_bytes)
    if not isinstance(content, dict):
        content = {"format": type(content).__name__}
    kind = content.pop("format", None), content.pop("version", None)
    if kind != (form, version):
        raise ValueError(
            f"{path}: format and version are {shown(kind)}, expected {(form, version)}"
        )
    return content


def _utterance_to_json(utterance: EvaluatedUtterance) -> dict[str, object]:
    return {
        "id": utterance.id,
        "speaker": utterance.speaker,
        "duration_s": utterance.duration_s,
        "audio_filepath": utterance.audio_filepath,
        "reference": utterance.errors.reference,
        "hypothesis": utterance.errors.hypothesis,
        "words": counts_to_json(utterance.errors.words),
        "characters": counts_to_json(utterance.errors.characters),
        "fields": dict(utterance.fields),
        "snr_db": utterance.snr_db,
        "heard": [asdict(word) for word in utterance.words],
    }


def _slice_to_json(row: Slice) -> dict[str, object]:
    return {
        "num_utterances": row.num_utterances,
        "duration_s": row.duration_s,
        "wer": _finite(row.words.rate),
        "cer": _finite(row.characters.rate),
        "words": counts_to_json(row.words),
        "characters": counts_to_json(row.characters),
    }


def interval_to_json(interval: Interval | None) -> dict[str, object] | None:
    """Tell an interval, or null where there is none; an infinite end is null too."""
    if interval is None:
        return None
    return asdict(interval) | {"low": _finite(interval.low), "high": _finite(interval.high)}


def counts_to_json(counts: ErrorCounts) -> dict[str, int]:
    """Tell counts of errors, with their sum and the reference's length."""
    return {each.name: getattr(counts, each.name) for each in fields(_Counts)}


def _finite(value: Setting) -> Setting:
    return None if isinstance(value, float) and not math.isfinite(value) else value
