"""An evaluation as JSON, and back: every number of a report for programs to read."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from asr.finding import Finding, Kind
from asr.metrics.error_rate import ErrorCounts, confusions, score_utterance
from asr.metrics.interval import Interval
from asr.report.evaluation import (
    EvaluatedUtterance,
    Evaluation,
    HeardWord,
    ModelDescription,
    Setting,
    SpeakerErrors,
    by_speaker,
)
from asr.report.slices import Slices, check_slice_by, cut
from asr.untrusted import read_json, record, shown

FORMAT = "asr evaluation"
VERSION = 2
MAX_BYTES = 1 << 30  # half a million utterances

_SURROGATE = re.compile("[\ud800-\udfff]")


def dump_json(value: object, indent: int | None = None) -> str:
    """Strict JSON that can be written as UTF-8.

    Args:
        value: What `json.dumps` takes, without NaN and infinities.
        indent: As for `json.dumps`; None puts everything on one line without spaces.

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
    """The whole evaluation: totals, slices, speakers in the order of their WER, every utterance.

    Rates are fractions; one that is infinite (words against an empty reference) is null, and so
    is a setting that is not finite.
    """
    words, characters = evaluation.words, evaluation.characters
    content = {
        "format": FORMAT,
        "version": VERSION,
        "title": evaluation.title,
        "model": {
            "name": evaluation.model.name,
            "num_parameters": evaluation.model.num_parameters,
            "training": _settings(evaluation.model.training),
        },
        "manifest": evaluation.manifest,
        "settings": _settings(evaluation.settings),
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
        "slices": [_slices(cut(evaluation, by)) for by in evaluation.slice_by],
        "speakers": [_speaker(row) for row in by_speaker(evaluation)],
        "utterances": [_utterance(each) for each in evaluation.utterances],
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
    """`_utterance`."""

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
    heard: tuple[HeardWord, ...]

    def scored(self) -> EvaluatedUtterance:
        """The utterance with its alignments.

        Raises:
            ValueError: Its counts are not those of its texts.
        """
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
    """What is wrong with an utterance, in fewer words than a row of other files has."""

    id: str
    audio_filepath: str
    reason: str


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
    """Reads an `evaluation.json` back; counts and alignments are made anew from its texts.

    Args:
        path: The file.

    Raises:
        ValueError: It is no such file, a value in it is of another type, or its counts are not
            those of its texts.
        OSError: Missing or unreadable.
    """
    content = read_versioned(path, FORMAT, VERSION, MAX_BYTES)
    known = {each.name for each in fields(_File)}
    file = record(_File, {name: content[name] for name in content.keys() & known}, path)
    try:
        check_slice_by(file.slice_by, [each.fields for each in file.utterances])
        ids = [*(each.id for each in file.utterances), *(each.id for each in file.left_out)]
        if twice := _twice(ids):
            raise ValueError(f"utterance {shown(twice)} occurs twice, expected each id once")
        return Evaluation(
            title=file.title,
            model=file.model,
            manifest=file.manifest,
            real_time_factor=file.real_time_factor,
            utterances=tuple(each.scored() for each in file.utterances),
            settings=file.settings,
            text_rules=file.text_rules,
            slice_by=file.slice_by,
            left_out=tuple(
                Finding(
                    Kind.UNREADABLE_AUDIO,
                    each.reason,
                    each.id,
                    audio_filepath=Path(each.audio_filepath),
                )
                for each in file.left_out
            ),
        )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def read_versioned(path: Path, form: str, version: int, max_bytes: int) -> dict[str, Any]:
    """The content of a JSON file of ours that says what it is.

    Args:
        path: The file.
        form: What its `format` must say.
        version: Its `version`.
        max_bytes: A larger file is refused.

    Raises:
        ValueError: It is no such file.
        OSError: Missing or unreadable.
    """
    content = read_json(path, f"a file of {form}", max_bytes)
    if not isinstance(content, dict):
        content = {"format": type(content).__name__}
    kind = content.pop("format", None), content.pop("version", None)
    if kind != (form, version):
        raise ValueError(
            f"{path}: format and version are {shown(kind)}, expected {(form, version)}"
        )
    return content


def _twice(ids: Iterable[str]) -> str | None:
    """The first that was there before."""
    known: set[str] = set()
    for id in ids:
        if id in known:
            return id
        known.add(id)
    return None


def _speaker(row: SpeakerErrors) -> dict[str, object]:
    return {
        "speaker": row.speaker,
        "num_utterances": row.num_utterances,
        "duration_s": row.duration_s,
        "wer": _finite(row.words.rate),
        "cer": _finite(row.characters.rate),
        "words": counts_to_json(row.words),
        "characters": counts_to_json(row.characters),
    }


def _utterance(utterance: EvaluatedUtterance) -> dict[str, object]:
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


def _slices(slices: Slices) -> dict[str, object]:
    rows = [
        {
            "value": row.value,
            "low": row.low,
            "high": row.high,
            "num_utterances": row.num_utterances,
            "duration_s": row.duration_s,
            "wer": _finite(row.words.rate),
            "wer_interval": interval_to_json(row.interval),
            "cer": _finite(row.characters.rate),
            "words": counts_to_json(row.words),
            "characters": counts_to_json(row.characters),
        }
        for row in slices.rows
    ]
    return {"by": slices.by, "unit": slices.unit, "rows": rows}


def interval_to_json(interval: Interval | None) -> dict[str, object] | None:
    """An interval, or null where there is none; an infinite end is null too."""
    if interval is None:
        return None
    return asdict(interval) | {"low": _finite(interval.low), "high": _finite(interval.high)}


def counts_to_json(counts: ErrorCounts) -> dict[str, int]:
    """Counts of errors, with their sum and the reference's length."""
    return {
        "reference_length": counts.reference_length,
        "hits": counts.hits,
        "substitutions": counts.substitutions,
        "deletions": counts.deletions,
        "insertions": counts.insertions,
        "errors": counts.errors,
    }


def _settings(settings: Mapping[str, Setting]) -> dict[str, Setting]:
    return {
        name: _finite(value) if isinstance(value, float) else value
        for name, value in settings.items()
    }


def _finite(rate: float) -> float | None:
    return rate if math.isfinite(rate) else None
