"""How many threads the work is shared by."""

from __future__ import annotations

import os
import sys

import pytest
import torch

from asr.threads import num_threads


def test_as_torch_does_with_and_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    assert num_threads() == 7
    monkeypatch.delitem(sys.modules, "torch")
    cores = len(os.sched_getaffinity(0))
    for said, expected in (("1", 1), ("1,2", 1), ("9999", cores), ("", cores), ("x", cores)):
        monkeypatch.setenv("OMP_NUM_THREADS", said)
        assert num_threads() == expected
