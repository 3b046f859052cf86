"""What is wrong with an utterance, told in one way everywhere, and its row in a JSON lines file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, fields
from enum import Enum
from pathlib import Path
from typing import Any

from asr.atomic_file import append_text
from asr.text import printable_json
from asr.untrusted import MAX_LINE_BYTES, lines, open_regular, parse_json, record

MAX_FILE_BYTES = 1 << 30  # 1 GiB: some millions of findings


class Severity(Enum):
    """What a finding means for a training."""

    ERROR = "error"  # it cannot be used, and a training leaves it out; or must not be
    WARNING = "warning"  # a person should look at it


class Kind(Enum):
    """What can be wrong; the value is its name for programs and on the command line.

    Attributes:
        severity: what it means for a training.
        singular: its name for people, of one.
        plural: of several.
    """

    severity: Severity
    singular: str
    plural: str

    def __new__(cls, slug: str, severity: Severity, singular: str, plural: str) -> Kind:
        """A member known by its slug alone: `Kind("bad_line")`."""
        kind = object.__new__(cls)
        kind._value_ = slug
        kind.severity, kind.singular, kind.plural = severity, singular, plural
        return kind

    BAD_LINE = "bad_line", Severity.ERROR, "bad line", "bad lines"
    DUPLICATE_ID = "duplicate_id", Severity.ERROR, "duplicate id", "duplicate ids"
    EMPTY_TEXT = "empty_text", Severity.ERROR, "empty text", "empty texts"
    UNKNOWN_CHARACTER = (
        "unknown_character", Severity.ERROR, "text out of the alphabet", "texts out of the alphabet"
    )  # fmt: skip
    UNKNOWN_WORD = (
        "unknown_word", Severity.ERROR, "text out of the lexicon", "texts out of the lexicon"
    )  # fmt: skip
    BAD_LABEL = "bad_label", Severity.ERROR, "label out of range", "labels out of range"
    INFEASIBLE = "infeasible", Severity.ERROR, "text too long for CTC", "texts too long for CTC"
    TOO_SHORT = "too_short", Severity.ERROR, "too short", "too short"
    TOO_LONG = "too_long", Severity.ERROR, "too long", "too long"
    MISSING_AUDIO = "missing_audio", Severity.ERROR, "missing audio file", "missing audio files"
    UNREADABLE_AUDIO = (
        "unreadable_audio", Severity.ERROR, "unreadable audio", "unreadable audio"
    )  # fmt: skip
    # Found while training: features, a loss or a gradient that are no numbers; too little memory.
    NOT_FINITE = "not_finite", Severity.ERROR, "not finite in training", "not finite in training"
    OUT_OF_MEMORY = (
        "out_of_memory", Severity.ERROR, "too large for memory", "too large for memory"
    )  # fmt: skip
    AUDIO_OVERLAP = (
        "audio_overlap", Severity.ERROR, "audio of another split", "audio of another split"
    )  # fmt: skip
    DUPLICATE_AUDIO = "duplicate_audio", Severity.WARNING, "duplicate audio", "duplicate audio"
    DUPLICATE_TEXT = "duplicate_text", Severity.WARNING, "likely duplicate", "likely duplicates"
    WRONG_DURATION = "wrong_duration", Severity.WARNING, "wrong duration", "wrong durations"
    DURATION_OUTLIER = (
        "duration_outlier", Severity.WARNING, "unusual duration", "unusual durations"
    )  # fmt: skip
    TEXT_RATE = (
        "text_rate", Severity.WARNING,
        "unusual text for its audio", "unusual texts for their audio",
    )  # fmt: skip
    TEXT_MISFIT = (
        "text_misfit", Severity.WARNING,
        "text unlike the model's hypothesis", "texts unlike the model's hypothesis",
    )  # fmt: skip
    CLIPPING = "clipping", Severity.WARNING, "clipped audio", "clipped audio"
    SILENCE = "silence", Severity.WARNING, "silent audio", "silent audio"
    EDGE_SILENCE = (
        "edge_silence", Severity.WARNING, "long silence at an end", "long silences at an end"
    )  # fmt: skip
    LOW_RATE = "low_rate", Severity.WARNING, "low sample rate", "low sample rates"
    MIXED_RATE = (
        "mixed_rate", Severity.WARNING,
        "sample rate unlike the rest", "sample rates unlike the rest",
    )  # fmt: skip
    SPEAKER_OVERLAP = (
        "speaker_overlap", Severity.WARNING, "speakers in two splits", "speakers in two splits"
    )  # fmt: skip
    TEXT_OVERLAP = (
        "text_overlap", Severity.WARNING, "texts in two splits", "texts in two splits"
    )  # fmt: skip

    def counted(self, count: int) -> str:
        """`1 bad line`, `12 bad lines`."""
        return f"{count} {self.singular if count == 1 else self.plural}"


# Of whole manifests: no utterance is the one to drop.
OF_MANIFESTS = (Kind.SPEAKER_OVERLAP, Kind.TEXT_OVERLAP)


@dataclass(frozen=True)
class Finding:
    """What is wrong, and with which utterance.

    Attributes:
        kind: what.
        reason: one line with what is and what was expected.
        id: of the utterance; None for a line that could not be read, or a whole manifest.
        manifest: None where it is not known.
        line: from 1; None for a whole manifest, or where it is not known.
        audio_filepath: of the utterance's audio; it follows from the rest, where it is known.
    """

    kind: Kind
    reason: str
    id: str | None = None
    manifest: Path | None = None
    line: int | None = None
    audio_filepath: Path | None = field(default=None, compare=False)

    @property
    def place(self) -> str:
        """`manifest:line`, as far as it is known."""
        return ":".join(str(part) for part in (self.manifest, self.line) if part is not None)

    @property
    def where(self) -> str:
        """The place, or the id where there is none."""
        return self.place or self.id or ""

    def __str__(self) -> str:
        return ": ".join(part for part in (self.place, self.id, self.reason) if part)


def summarise(findings: Iterable[Finding]) -> str:
    """Findings by kind, the most frequent first: `12 bad lines, 5 empty texts`."""
    counts = Counter(finding.kind for finding in findings)
    return ", ".join(kind.counted(count) for kind, count in counts.most_common())


def describe_error(error: BaseException) -> str:
    """An error as the reason of a finding: one line, with the file it is about."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split())


# --- rows of a file ----------------------------------------------------------------------------


def row_of(finding: Finding) -> dict[str, str | int | None]:
    """A finding as plain data, the same in every file that lists findings."""
    return {
        "kind": finding.kind.value,
        "severity": finding.kind.severity.value,
        "where": finding.where,
        "manifest": None if finding.manifest is None else str(finding.manifest),
        "line": finding.line,
        "id": finding.id,
        "audio_filepath": None if finding.audio_filepath is None else str(finding.audio_filepath),
        "reason": finding.reason,
    }


def finding_of(row: Any, where: object) -> Finding:
    """The finding of a row that was read; what follows from the rest is not looked at.

    Raises:
        ValueError: it is none of a finding; the message names `where`.
    """
    known = {each.name for each in fields(Finding)}
    is_row = isinstance(row, dict)
    kept = {name: row[name] for name in row if name in known} if is_row else row
    return record(Finding, kept, where)


def as_lines(findings: Iterable[Finding]) -> str:
    """Findings as JSON lines."""
    return "".join(f"{printable_json(row_of(finding))}\n" for finding in findings)


def append_findings(path: Path, findings: Iterable[Finding]) -> None:
    """Add findings to a file of JSON lines, those that it lacks.

    Raises:
        ValueError: something that is no regular file, or too large.
        OSError: from reading or writing.
    """
    known: set[Finding] = set()
    if path.exists():
        with open_regular(path, "utterances that were left out") as file:
            for number, raw in lines(file, path, MAX_FILE_BYTES):
                where = f"{path}:{number}"
                if len(raw) <= MAX_LINE_BYTES:
                    with suppress(ValueError):  # of a line that a kill or a full disk cut
                        known.add(finding_of(parse_json(raw.decode(), where, "a finding"), where))
    append_text(path, as_lines(each for each in dict.fromkeys(findings) if each not in known))
