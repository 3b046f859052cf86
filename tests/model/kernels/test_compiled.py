"""Compilation: kept on disk where that is possible, done in memory where it is not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numba.core import caching

from asr.model.kernels.compiled import compiled, fingerprint


def double(values):
    for j in range(len(values)):
        values[j] *= 2


def test_where_nothing_can_be_written_it_compiles_in_memory(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(caching.CompileResultCacheImpl, "_locator_classes", [])
    with pytest.raises(RuntimeError, match="no locator"):
        caching.FunctionCache(double)
    values = np.ones(3, np.float32)
    compiled(double)(values)
    np.testing.assert_array_equal(values, [2, 2, 2])


CALLER = """
import sys
from asr.model.kernels import compiled
compiled.fingerprint = lambda folder: sys.argv[1]  # what the sources come to
from other import factor
@compiled.compiled
def scaled(value):
    return factor(value)
print(scaled(2.0), sum(scaled.stats.cache_hits.values()))
"""
CALLED = """
from asr.model.kernels.compiled import compiled
@compiled
def factor(value):
    return {} * value
"""


def test_what_is_kept_on_disk_is_not_used_when_a_file_it_calls_into_changed(tmp_path: Path):
    (tmp_path / "caller.py").write_text(CALLER)

    def found_by(sources: str, factor: int) -> list[str]:
        (tmp_path / "other.py").write_text(CALLED.format(factor))
        os.utime(tmp_path / "other.py", (factor, factor))
        done = subprocess.run(
            [sys.executable, "caller.py", sources], cwd=tmp_path, capture_output=True, text=True,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    assert found_by("these", 2) == ["4.0", "0"]
    assert found_by("these", 2) == ["4.0", "1"]
    assert found_by("others", 3) == ["6.0", "0"]


def test_the_fingerprint_is_that_of_all_sources(tmp_path: Path):
    (tmp_path / "a.py").write_text("one")
    first = fingerprint.__wrapped__(tmp_path)
    (tmp_path / "b.py").write_text("two")
    assert fingerprint.__wrapped__(tmp_path) != first


def test_not_a_number_is_seen_to_be_none():
    @compiled
    def spot(values):
        for j in range(len(values)):
            values[j] = 1 if values[j] != values[j] else 0

    values = np.array([np.nan, 0, np.inf, -np.inf], np.float32)
    spot(values)
    np.testing.assert_array_equal(values, [1, 0, 0, 0])
