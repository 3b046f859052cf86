"""Compilation: kept on disk where that is possible, done in memory where it is not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from numba.core import caching

from asr.decoder.compiled import compiled, fingerprint

CALLER = """
import sys
from asr.decoder import compiled
compiled.fingerprint = lambda folder: sys.argv[1]  # what the sources come to
from other import factor
@compiled.compiled
def scaled(value):
    return factor(value)
print(scaled(2.0), sum(scaled.stats.cache_hits.values()))
"""
CALLED = """
from asr.decoder.compiled import compiled
@compiled
def factor(value):
    return {} * value
"""


def twice(number: int) -> int:
    return 2 * number


def test_where_nothing_can_be_written_it_compiles_in_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(caching.CompileResultCacheImpl, "_locator_classes", [])
    with pytest.raises(RuntimeError, match="no locator"):
        caching.FunctionCache(twice)
    assert compiled(twice)(3) == 6


def test_what_is_kept_is_not_used_when_a_file_it_calls_into_changed(tmp_path: Path) -> None:
    (tmp_path / "caller.py").write_text(CALLER)

    def found_by(sources: str, factor: int) -> list[str]:
        (tmp_path / "other.py").write_text(CALLED.format(factor))
        os.utime(tmp_path / "other.py", (factor, factor))
        done = subprocess.run(
            [sys.executable, "caller.py", sources], cwd=tmp_path, capture_output=True, text=True,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    assert found_by("these", 2) == ["4.0", "0"]
    assert found_by("these", 2) == ["4.0", "1"]
    assert found_by("others", 3) == ["6.0", "0"]


def test_the_fingerprint_is_that_of_all_sources(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    first = fingerprint.__wrapped__(tmp_path)
    (tmp_path / "below" / "b.py").write_text("two")
    assert fingerprint.__wrapped__(tmp_path) != first
