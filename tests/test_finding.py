"""Findings: their summary, their row in a file, and what of a file from anybody is one."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from asr.finding import (
    Finding,
    Kind,
    append_findings,
    as_lines,
    describe_error,
    finding_of,
    row_of,
    summarise,
)

WHOLE = Finding(
    Kind.MISSING_AUDIO, "a.wav: no such file, expected audio", "u1", Path("m.jsonl"), 7,
    Path("/data/a.wav"),
)  # fmt: skip


def test_a_summary_counts_by_kind_the_most_frequent_first() -> None:
    kinds = [Kind.EMPTY_TEXT, Kind.BAD_LINE, Kind.BAD_LINE, Kind.CLIPPING]
    assert summarise([Finding(kind, "") for kind in kinds]) == (
        "2 bad lines, 1 empty text, 1 clipped audio"
    )


def test_places_go_from_the_manifest_to_the_reason() -> None:
    assert str(WHOLE) == "m.jsonl:7: u1: a.wav: no such file, expected audio"
    assert str(Finding(Kind.BAD_LINE, "why", None, Path("m"), 3)) == "m:3: why"
    assert str(Finding(Kind.NOT_FINITE, "why", "u1")) == "u1: why"
    assert [WHOLE.where, Finding(Kind.NOT_FINITE, "why", "u1").where] == ["m.jsonl:7", "u1"]


def test_a_row_by_hand() -> None:
    assert row_of(WHOLE) == {
        "kind": "missing_audio",
        "severity": "error",
        "where": "m.jsonl:7",
        "manifest": "m.jsonl",
        "line": 7,
        "id": "u1",
        "audio_filepath": "/data/a.wav",
        "reason": "a.wav: no such file, expected audio",
    }


@pytest.mark.parametrize("kind", Kind)
def test_rows_are_read_back(kind: Kind) -> None:
    for finding in (WHOLE, Finding(kind, "why"), Finding(kind, "na\u00efve \x1b", "\udc80")):
        (line,) = as_lines([finding]).splitlines()
        assert line.encode().isascii() or "\u00ef" in line
        assert "\x1b" not in line
        read = finding_of(json.loads(line), "here")
        assert (read, read.audio_filepath) == (finding, finding.audio_filepath)
        assert pickle.loads(pickle.dumps(finding)) == finding


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        pytest.param(7, "here: content is 7", id="no row"),
        pytest.param({"kind": "clipping"}, "here: content has no reason", id="no reason"),
        pytest.param({"kind": "x", "reason": "y"}, "here: kind is 'x', expected one of", id="kind"),
        pytest.param(
            {"kind": "clipping", "reason": "y", "line": "7"},
            "here: line is '7', expected a whole number or null",
            id="line",
        ),
    ],
)
def test_what_is_no_row_is_refused(row: object, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        finding_of(row, "here")


def test_each_is_appended_once_whatever_else_the_file_holds(tmp_path: Path) -> None:
    path = tmp_path / "left_out.jsonl"
    # As older versions wrote it, and what a kill left of a line.
    row = {key: row_of(WHOLE)[key] for key in ("id", "kind", "reason", "manifest", "line")}
    path.write_text(f'{json.dumps(row)}\n\n\x00\n[1]\n{{"id": \n')
    other = Finding(Kind.OUT_OF_MEMORY, "alone", "u2")
    append_findings(path, [WHOLE, other, other])
    append_findings(path, [other])
    assert [json.loads(line)["id"] for line in path.read_text().splitlines()[5:]] == ["u2"]


def test_an_error_is_one_line_with_its_file() -> None:
    assert describe_error(FileNotFoundError(2, "No such file", "a.wav")) == "a.wav: No such file"
    assert describe_error(ValueError("a\n  b")) == "a b"
