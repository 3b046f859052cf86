"""CTM by hand, and as NIST's own validator reads it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from asr.report.ctm import ctm
from asr.transcriber import Word

VALIDATOR = Path("/usr/lib/sctk/bin/ctmValidator.pl")


def test_by_hand(tmp_path: Path) -> None:
    words = [Word("don't", 0.5, 0.9, 0.75), Word("stop", 3661.25, 3661.9, 1.0)]
    text = ctm("clip_1-a", words)
    assert text == ("clip_1-a 1 0.500 0.400 don't 0.7500\nclip_1-a 1 3661.250 0.650 stop 1.0000\n")
    if not VALIDATOR.is_file():
        pytest.skip("NIST's ctmValidator.pl is not here (Debian: sctk)")
    path = tmp_path / "a.ctm"
    path.write_text(text)
    checked = subprocess.run(
        ["perl", VALIDATOR, "-i", path], capture_output=True, text=True, check=False
    )
    assert checked.stdout.strip() == f"Validated {path}"


def test_no_words() -> None:
    assert ctm("clip", []) == ""


@pytest.mark.parametrize(("name", "word"), [("my clip", "a"), ("clip", "a b"), ("", "a")])
def test_fields_that_would_be_two(name: str, word: str) -> None:
    with pytest.raises(ValueError, match="cannot stand in a CTM file, expected no white space"):
        ctm(name, [Word(word, 0, 1, 1)])
