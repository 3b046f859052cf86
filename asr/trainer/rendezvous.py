"""Processes find each other anew after a restart, where torchrun keeps its store from before.

torchrun hands the same key-value store to every attempt of a job, so that a process may read the
address of one that is dead (github.com/pytorch/pytorch/issues/135712). Its count of restarts is
each machine's own and keeps nothing apart. Here rank 0 draws a name for the attempt and tells it to
those who ask now.
"""

from __future__ import annotations

import os
import secrets
import time
from datetime import timedelta
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

TIMEOUT_S = 600.0  # [s] for the slowest process to start
POLL_S = 0.02  # [s] between looks at the store


def join_elastic(device_type: str) -> None:
    """Join the process group under torchrun; elsewhere nothing, and Fabric joins by itself.

    Args:
        device_type: "cpu" or "cuda".

    Raises:
        TimeoutError: a process did not come.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ or dist.is_initialized():
        return
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if world_size == 1:
        return
    store, _, _ = next(rendezvous("env://", rank, world_size))
    name = agree_on_attempt(store, rank, world_size)
    is_cuda = device_type == "cuda"
    dist.init_process_group(
        "nccl" if is_cuda else "gloo",
        store=PrefixStore(name, store),
        rank=rank,
        world_size=world_size,
        device_id=torch.device("cuda", int(os.environ["LOCAL_RANK"])) if is_cuda else None,
    )


def agree_on_attempt(store: Store, rank: int, world_size: int, timeout_s: float = TIMEOUT_S) -> str:
    """A name that this attempt's processes share and no other attempt's do.

    Each process asks under a word of its own, and only a rank 0 that is alive answers that word;
    what earlier attempts left in the store is answered too, and heard by nobody.

    Args:
        store: that all processes see, with whatever is in it.
        rank: of this process.
        world_size: number of processes.
        timeout_s: for the slowest of them [s].

    Raises:
        TimeoutError: a process did not come.
    """
    end = time.monotonic() + timeout_s
    if rank:
        word = secrets.token_hex(8)
        store.set(f"ask/{rank}", word)
        store.wait([f"answer/{word}"], timedelta(seconds=timeout_s))
        told: str = store.get(f"answer/{word}").decode()
        store.set(f"{told}/here/{rank}", "")
        return told
    name = secrets.token_hex(8)
    missing = set(range(1, world_size))
    while missing:
        for other in sorted(missing):
            if store.check([f"ask/{other}"]):
                store.set(f"answer/{store.get(f'ask/{other}').decode()}", name)
            if store.check([f"{name}/here/{other}"]):
                missing.remove(other)
        if time.monotonic() > end:
            raise TimeoutError(f"processes {sorted(missing)} of {world_size} did not come")
        time.sleep(POLL_S)
    return name
