"""What is kept on disk of compiled code belongs to the sources of today."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numba.core import caching

from asr.decoder.compiled import compiled, fingerprint


def double(values):
    for j in range(len(values)):
        values[j] *= 2


def test_where_nothing_can_be_written_it_compiles_in_memory(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(caching.CompileResultCacheImpl, "_locator_classes", [])
    values = np.ones(3)
    compiled(double)(values)
    np.testing.assert_array_equal(values, [2, 2, 2])


def test_a_change_in_any_file_makes_another_stamp(tmp_path: Path):
    stamp = compiled(double)._cache._cache_file._source_stamp
    assert stamp[1] == fingerprint(Path(compiled.__code__.co_filename).parent)
    (tmp_path / "deep").mkdir()
    (tmp_path / "a.py").write_text("one")
    first = fingerprint.__wrapped__(tmp_path)
    (tmp_path / "deep" / "b.py").write_text("two")
    assert fingerprint.__wrapped__(tmp_path) != first
