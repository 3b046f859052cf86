"""Processes of one attempt agree on a name, whatever earlier attempts left in the store."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from torch.distributed import HashStore

from asr.trainer.distributed import agree_on_attempt


def attempt(store: HashStore, world_size: int, late: int | None = None) -> set[str]:
    """The names that the ranks of an attempt agree on; one of them may come late."""

    def agree(rank: int) -> str:
        if rank == late:
            threading.Event().wait(0.2)
        return agree_on_attempt(store, rank, world_size, timeout_s=30)

    with ThreadPoolExecutor(world_size) as pool:
        return set(pool.map(agree, range(world_size)))


@pytest.mark.parametrize("late", [None, 0, 1, 3])
def test_the_ranks_of_an_attempt_agree_and_no_two_attempts_do(late: int | None) -> None:
    store = HashStore()
    names = [attempt(store, 4, late) for _ in range(5)]
    assert all(len(each) == 1 for each in names)
    assert len(set.union(*names)) == 5


def test_what_a_dead_attempt_asked_is_not_taken_for_one_that_lives() -> None:
    store = HashStore()
    store.set("ask/1", "word of a process that died before it was answered")
    (name,) = attempt(store, 2, late=1)
    assert store.check([f"{name}/here/1"])


def test_a_process_that_does_not_come_is_named() -> None:
    store = HashStore()
    store.set_timeout(timedelta(seconds=5))
    with pytest.raises(TimeoutError, match=r"processes \[1, 2\] of 3 did not come"):
        agree_on_attempt(store, 0, 3, timeout_s=0.1)
