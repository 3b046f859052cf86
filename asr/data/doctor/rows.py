"""The lines of manifests as entries and findings, in order, sifted check by check."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from asr.data.doctor.findings import Entry, Fault, Finding, Kind
from asr.data.manifest import Problem, Utterance, scan_manifest

Row = Entry | Finding
Check = Callable[[Utterance], Fault | None]


def read_rows(manifest: Path) -> list[Row]:
    """Every line of a manifest: an entry where it is good, a finding where it is not.

    Raises:
        ValueError: an unknown format, a bad header, or a manifest without lines.
        OSError: missing or unreadable.
    """
    scan = scan_manifest(manifest)
    rows: dict[int, Row] = {problem.line: _finding(problem) for problem in scan.problems}
    for line, utterance in zip(scan.lines, scan.utterances, strict=True):
        rows[line] = Entry(manifest, line, utterance)
    if not rows:
        raise ValueError(f"{manifest}: holds no utterances, expected at least one")
    return [rows[line] for line in sorted(rows)]


def sift(rows: Iterable[Row], check: Check) -> list[Row]:
    """The rows with the finding in place of every entry that the check objects to."""
    return [row if isinstance(row, Finding) else _sifted(row, check) for row in rows]


def entries(rows: Iterable[Row]) -> list[Entry]:
    """The rows that nothing objected to."""
    return [row for row in rows if isinstance(row, Entry)]


def findings(rows: Iterable[Row]) -> list[Finding]:
    """The rows that something objected to."""
    return [row for row in rows if isinstance(row, Finding)]


def _sifted(entry: Entry, check: Check) -> Row:
    fault = check(entry.utterance)
    return entry if fault is None else entry.finding(fault)


def _finding(problem: Problem) -> Finding:
    kind = Kind.BAD_LINE if problem.id is None else Kind.DUPLICATE_ID
    return Finding(kind, problem.reason, problem.id, problem.manifest, problem.line)
