"""The files of an evaluation: `evaluation.json`, all of it, and a calibration fitted on it."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from asr.atomic_file import replace_text
from asr.finding import Finding, Kind
from asr.metrics.calibration import Calibration
from asr.metrics.error_rate import ErrorCounts, Unit, confusions, score_utterance
from asr.metrics.interval import Interval
from asr.report.evaluation import (
    EvaluatedUtterance,
    Evaluation,
    ModelDescription,
    Slice,
    by_speaker,
    check_slice_by,
)
from asr.report.wording import Setting
from asr.untrusted import read_json, record, shown
from asr.word import Word

FORMAT, VERSION = "asr evaluation", 2
CALIBRATION_FORMAT, CALIBRATION_VERSION = "asr calibration", 1
MAX_BYTES = 1 << 30  # half a million utterances
MAX_CALIBRATION_BYTES = 1 << 16

_SURROGATE = re.compile("[\ud800-\udfff]")


# --- writing ------------------------------------------------------------------------------------


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
        # Where it is the character, "wer" and "words" are of characters too.
        **({"unit": evaluation.unit} if evaluation.unit != "word" else {}),
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
        "heard": [word.row() for word in utterance.words],
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


# --- reading ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Counts:
    """What `counts_to_json` writes."""

    reference_length: int
    hits: int
    substitutions: int
    deletions: int
    insertions: int
    errors: int


@dataclass(frozen=True)
class _UtteranceRow:
    """What `_utterance_to_json` writes."""

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

    def scored(self, unit: Unit) -> EvaluatedUtterance:
        """Align the texts anew; ValueError where the counts are not theirs."""
        errors = score_utterance(self.id, self.reference, self.hypothesis, unit)
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
class _LeftOutRow:
    """What is written of a finding: less than its row in other files has."""

    id: str
    audio_filepath: str
    reason: str

    def finding(self) -> Finding:
        path = Path(self.audio_filepath)
        return Finding(Kind.UNREADABLE_AUDIO, self.reason, self.id, audio_filepath=path)


@dataclass(frozen=True)
class _File:
    """What is read of what `evaluation_to_json` writes; the rest follows from it."""

    title: str
    model: ModelDescription
    manifest: str
    settings: Mapping[str, Setting]
    real_time_factor: float | None
    text_rules: tuple[str, ...]
    slice_by: tuple[str, ...]
    utterances: tuple[_UtteranceRow, ...]
    left_out: tuple[_LeftOutRow, ...] = ()  # older files have none
    unit: Unit = "word"


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
            "utterances": tuple(each.scored(file.unit) for each in file.utterances),
            "left_out": tuple(each.finding() for each in file.left_out),
        }
        values = {each.name: getattr(file, each.name) for each in fields(_File)} | made
        del values["unit"]
        return Evaluation(**values)
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
