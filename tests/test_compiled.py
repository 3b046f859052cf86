"""Compilation: kept on disk where that is possible, done in memory where it is not."""

from __future__ import annotations

import logging
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numba.core import caching

import asr.compiled
from asr.compiled import compiled, fingerprint
from asr.model.kernels.cpu_tile import compiled as compiled_kernel

CALLER = """
import sys
from pathlib import Path
import asr.compiled
if len(sys.argv) > 1:
    asr.compiled.fingerprint = lambda folder: sys.argv[1]  # what the sources come to
from other import factor
def scaled(value):
    return factor(value)
scaled = asr.compiled.compiled(scaled, Path(__file__).parent)
print(scaled(2.0), sum(scaled.stats.cache_hits.values()))
"""
CALLED = """
from pathlib import Path
from asr.compiled import compiled
def factor(value):
    return {} * value
factor = compiled(factor, Path(__file__).parent)
"""


def twice(number: int) -> int:
    return 2 * number


def double(values: np.ndarray) -> None:
    for j in range(len(values)):
        values[j] *= 2


@pytest.fixture(autouse=True)
def nothing_told() -> Iterator[None]:
    """What is told once a process is told anew in each test."""
    asr.compiled._tell_once.cache_clear()
    yield
    asr.compiled._tell_once.cache_clear()


def run_in(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A process that compiles, in a folder where its files are kept."""
    done = subprocess.run(
        [sys.executable, "caller.py", *arguments], cwd=folder, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done


def test_where_nothing_can_be_written_it_compiles_in_memory_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(caching.CompileResultCacheImpl, "_locator_classes", [])
    with pytest.raises(RuntimeError, match="no locator"):
        caching.FunctionCache(twice)
    assert compiled(twice)(3) == 6
    values = np.ones(3, np.float32)
    compiled_kernel(double)(values)
    np.testing.assert_array_equal(values, [2, 2, 2])
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "NUMBA_CACHE_DIR" in record.message


def test_what_is_kept_is_not_used_when_a_file_it_calls_into_changed(tmp_path: Path) -> None:
    (tmp_path / "caller.py").write_text(CALLER)

    def found_by(sources: str, factor: int) -> list[str]:
        (tmp_path / "other.py").write_text(CALLED.format(factor))
        os.utime(tmp_path / "other.py", (factor, factor))
        return run_in(tmp_path, sources).stdout.split()

    assert found_by("these", 2) == ["4.0", "0"]
    assert found_by("these", 2) == ["4.0", "1"]
    assert found_by("others", 3) == ["6.0", "0"]


def test_what_is_damaged_on_disk_is_compiled_anew(tmp_path: Path) -> None:
    (tmp_path / "caller.py").write_text(CALLER)
    (tmp_path / "other.py").write_text(CALLED.format(2))
    run_in(tmp_path)
    assert run_in(tmp_path).stdout.split() == ["4.0", "1"]
    kept = {
        path: path.read_bytes() for path in (tmp_path / "__pycache__").glob("caller.*scaled*.nb?")
    }
    assert len(kept) == 2, "an index and the machine code of one signature"
    draw = random.Random(0)
    for path, content in kept.items():
        flipped = bytearray(content)
        # Beyond what pickle itself would find: in the machine code, or in a name of the index.
        flipped[len(flipped) * 2 // 3] ^= 1
        for damaged in (b"", content[: len(content) // 2], draw.randbytes(500), bytes(flipped)):
            for each, whole in kept.items():
                each.write_bytes(damaged if each == path else whole)
            done = run_in(tmp_path)
            assert done.stdout.split() == ["4.0", "0"], (path.name, len(damaged))
            assert "Traceback" not in done.stderr
    assert run_in(tmp_path).stdout.split() == ["4.0", "1"], "and kept again"


def test_a_full_disk_keeps_nothing_and_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device", "kept.nbc")

    monkeypatch.setattr(caching.IndexDataCacheFile, "save", full)
    monkeypatch.setattr(caching.IndexDataCacheFile, "load", lambda self, key: None)
    assert compiled(twice, tmp_path)(3) == 6
    assert "kept.nbc" in caplog.text


def test_the_fingerprint_is_that_of_all_sources(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    first = fingerprint.__wrapped__(tmp_path)
    (tmp_path / "below" / "b.py").write_text("two")
    second = fingerprint.__wrapped__(tmp_path)
    (tmp_path / "a.py").write_text("one")
    assert len({first, second, fingerprint.__wrapped__(tmp_path)}) == 3


def test_not_a_number_is_seen_to_be_none() -> None:
    @compiled_kernel
    def spot(values: np.ndarray) -> None:
        for j in range(len(values)):
            values[j] = 1 if values[j] != values[j] else 0

    values = np.array([np.nan, 0, np.inf, -np.inf], np.float32)
    spot(values)
    np.testing.assert_array_equal(values, [1, 0, 0, 0])
