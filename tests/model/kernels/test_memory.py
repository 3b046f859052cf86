"""The pool of large arrays: what is given out, taken back and kept."""

from __future__ import annotations

import os
import warnings

import numpy as np
import pytest
import torch

from asr.model.kernels import memory
from asr.model.kernels.memory import LARGE, Pool, empty

FLOAT = np.dtype(np.float32)


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Pool:
    own = Pool()
    monkeypatch.setattr(memory, "POOL", own)
    return own


def test_a_tensor_of_the_asked_shape_and_type(pool: Pool) -> None:
    for dtype in (torch.float32, torch.float64):
        tensor = empty((3, 2**20), torch.zeros(1, dtype=dtype))
        assert tensor.shape == (3, 2**20)
        assert tensor.dtype == dtype
        assert tensor.fill_(2.0).sum() == 6 * 2**20
    assert pool.used >= tensor.nbytes


def test_small_ones_are_torchs_own(pool: Pool) -> None:
    empty((LARGE // 4 - 1,), torch.zeros(1))
    assert pool.most == 0


def test_what_a_tensor_leaves_the_next_one_gets(pool: Pool) -> None:
    first = empty((2**21,), torch.zeros(1))
    address = first.data_ptr()
    view = first[1:]
    del first
    assert pool.used > 0  # a view holds it
    other = empty((2**21,), torch.zeros(1))
    assert other.data_ptr() != address
    del view
    again = empty((2**21 - 1000,), torch.zeros(1))
    assert again.data_ptr() == address
    assert pool.most == pool.used


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_writes_into_its_own_copy(pool: Pool) -> None:
    array = pool.array(2**20, FLOAT)
    array[:] = 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking where threads run
        child = os.fork()
    if child == 0:
        array[:] = 2
        os._exit(0)
    os.waitpid(child, 0)
    assert (array == 1).all()


def test_much_smaller_ones_do_not_take_large_blocks(pool: Pool) -> None:
    large = pool.array(2**24, FLOAT)
    address = large.ctypes.data
    del large
    assert pool.array(2**20, FLOAT).ctypes.data != address


def test_no_more_is_kept_than_was_in_use_at_once(pool: Pool) -> None:
    for count in (2**20, 2**22, 2**24, 3 * 2**23):
        pool.array(count, FLOAT)
        assert pool.used == 0
        assert sum(map(len, pool._free)) <= pool.most == len(pool._free[-1])
