"""An evaluation as JSON, and back: every number of a report for programs to read."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

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
from asr.report.slices import Slices, cut

FORMAT = "asr evaluation"
VERSION = 2

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


def read_evaluation(path: Path) -> Evaluation:
    """Reads an `evaluation.json` back; counts and alignments are made anew from its texts.

    Args:
        path: The file.

    Raises:
        ValueError: It is no such file, or its counts are not those of its texts.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            content = {"format": type(content).__name__}
        kind = content.get("format"), content.get("version")
        if kind != (FORMAT, VERSION):
            raise ValueError(f"format and version are {kind}, expected {(FORMAT, VERSION)}")
        return _evaluation(content)
    except KeyError as error:
        raise ValueError(f"{path}: has no {error}, expected an evaluation") from error
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error


def _evaluation(content: Mapping[str, Any]) -> Evaluation:
    return Evaluation(
        title=_text(content, "title"),
        model=ModelDescription(**content["model"]),
        manifest=_text(content, "manifest"),
        real_time_factor=content["real_time_factor"],
        utterances=tuple(_read_utterance(each) for each in content["utterances"]),
        settings=content["settings"],
        text_rules=tuple(content["text_rules"]),
        slice_by=tuple(content["slice_by"]),
    )


def _read_utterance(content: Mapping[str, Any]) -> EvaluatedUtterance:
    id, reference, hypothesis, audio_filepath = (
        _text(content, name) for name in ("id", "reference", "hypothesis", "audio_filepath")
    )
    errors = score_utterance(id, reference, hypothesis)
    stored = content["words"]["errors"], content["characters"]["errors"]
    counted = errors.words.errors, errors.characters.errors
    if stored != counted:
        raise ValueError(
            f"utterance {id!r}: word and character errors are {stored}, "
            f"expected {counted} by its texts"
        )
    return EvaluatedUtterance(
        id,
        content["speaker"],
        content["duration_s"],
        audio_filepath,
        errors,
        content["fields"],
        content["snr_db"],
        tuple(HeardWord(**word) for word in content["heard"]),
    )


def _text(content: Mapping[str, Any], name: str) -> str:
    text = content[name]
    if not isinstance(text, str):
        raise ValueError(f"{name} is {text!r}, expected a text")
    return text


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
