"""Compilation: kept on disk where that is possible, done in memory where it is not."""

from __future__ import annotations

import numpy as np
import pytest
from numba.core import caching

from asr.model.kernels.compiled import compiled


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


def test_not_a_number_is_seen_to_be_none():
    @compiled
    def spot(values):
        for j in range(len(values)):
            values[j] = 1 if values[j] != values[j] else 0

    values = np.array([np.nan, 0, np.inf, -np.inf], np.float32)
    spot(values)
    np.testing.assert_array_equal(values, [1, 0, 0, 0])
