"""Findings: what is wrong with which line of a manifest, and how bad that is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from asr.data.manifest import Utterance


class Severity(Enum):
    """What a finding means for a training."""

    ERROR = "error"  # it cannot be used, and a training leaves it out; or must not be
    WARNING = "warning"  # a person should look at it


class Kind(Enum):
    """What can be wrong: severity, its name for one and for several."""

    BAD_LINE = Severity.ERROR, "bad line", "bad lines"
    DUPLICATE_ID = Severity.ERROR, "duplicate id", "duplicate ids"
    EMPTY_TEXT = Severity.ERROR, "empty text", "empty texts"
    UNKNOWN_CHARACTER = Severity.ERROR, "text out of the alphabet", "texts out of the alphabet"
    BAD_LABEL = Severity.ERROR, "label out of range", "labels out of range"
    INFEASIBLE = Severity.ERROR, "text too long for CTC", "texts too long for CTC"
    TOO_SHORT = Severity.ERROR, "too short", "too short"
    TOO_LONG = Severity.ERROR, "too long", "too long"
    MISSING_AUDIO = Severity.ERROR, "missing audio file", "missing audio files"
    UNREADABLE_AUDIO = Severity.ERROR, "unreadable audio", "unreadable audio"
    # Found while training: features, a loss or a gradient that are no numbers; too little memory.
    NOT_FINITE = Severity.ERROR, "not finite in training", "not finite in training"
    OUT_OF_MEMORY = Severity.ERROR, "too large for memory", "too large for memory"
    AUDIO_OVERLAP = Severity.ERROR, "audio of another split", "audio of another split"
    DUPLICATE_AUDIO = Severity.WARNING, "duplicate audio", "duplicate audio"
    DUPLICATE_TEXT = Severity.WARNING, "likely duplicate", "likely duplicates"
    WRONG_DURATION = Severity.WARNING, "wrong duration", "wrong durations"
    DURATION_OUTLIER = Severity.WARNING, "unusual duration", "unusual durations"
    TEXT_RATE = Severity.WARNING, "unusual text for its audio", "unusual texts for their audio"
    TEXT_MISFIT = Severity.WARNING, "text unlike what is heard", "texts unlike what is heard"
    CLIPPING = Severity.WARNING, "clipped audio", "clipped audio"
    SILENCE = Severity.WARNING, "silent audio", "silent audio"
    EDGE_SILENCE = Severity.WARNING, "long silence at an end", "long silences at an end"
    LOW_RATE = Severity.WARNING, "low sample rate", "low sample rates"
    MIXED_RATE = Severity.WARNING, "sample rate unlike the rest", "sample rates unlike the rest"
    SPEAKER_OVERLAP = Severity.WARNING, "speakers in two splits", "speakers in two splits"
    TEXT_OVERLAP = Severity.WARNING, "texts in two splits", "texts in two splits"

    @property
    def severity(self) -> Severity:
        """What it means for a training."""
        return self.value[0]

    @property
    def slug(self) -> str:
        """Its name for programs and on the command line."""
        return self.name.lower()

    @property
    def plural(self) -> str:
        """Its name for people, of several."""
        return self.value[2]

    def counted(self, count: int) -> str:
        """`1 bad line`, `12 bad lines`."""
        return f"{count} {self.value[1] if count == 1 else self.plural}"


@dataclass(frozen=True)
class Fault:
    """What is wrong with an utterance, wherever it stands.

    Attributes:
        kind: what.
        reason: one line with what is and what was expected.
    """

    kind: Kind
    reason: str


@dataclass(frozen=True)
class Finding:
    """A fault and its place.

    Attributes:
        kind: what is wrong.
        reason: one line with what is and what was expected.
        id: of the utterance; None for a line that could not be read, or a whole manifest.
        manifest: None where it is not known any more.
        line: from 1; None for a whole manifest.
    """

    kind: Kind
    reason: str
    id: str | None = None
    manifest: Path | None = None
    line: int | None = None

    @property
    def place(self) -> str:
        """`manifest:line`, as far as it is known."""
        return ":".join(str(part) for part in (self.manifest, self.line) if part is not None)

    def __str__(self) -> str:
        return ": ".join(part for part in (self.place, self.id, self.reason) if part)


@dataclass(frozen=True)
class Entry:
    """An utterance and the line it stands on."""

    manifest: Path
    line: int
    utterance: Utterance

    def finding(self, fault: Fault) -> Finding:
        """The fault as one of this utterance."""
        return Finding(fault.kind, fault.reason, self.utterance.id, self.manifest, self.line)


def summarise(findings: Iterable[Finding]) -> str:
    """Findings by kind, the most frequent first: `12 bad lines, 5 empty texts`."""
    counts = Counter(finding.kind for finding in findings)
    return ", ".join(kind.counted(count) for kind, count in counts.most_common())
