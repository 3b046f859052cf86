"""Compiled code works where nothing can be kept on disk."""

from __future__ import annotations

import numba
import pytest

from asr.decoder.compiled import compiled


def twice(number: int) -> int:
    return 2 * number


def test_a_cache_that_cannot_be_written_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    njit = numba.njit

    def without_cache(function: object, *, cache: bool = False, **options: object) -> object:
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return njit(function, **options)

    monkeypatch.setattr(numba, "njit", without_cache)
    assert compiled(twice)(3) == 6
