"""Work on as many threads as torch uses, on torch's own where they can be had.

The threads of torch's OpenMP library wait for their next work by spinning, for milliseconds. Just
after any product of torch's, threads of our own would share the cores with them. Compiled code
enters that library through `GOMP_parallel`, and so does this.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import torch

Share = TypeVar("Share")
_Region = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def run_on_threads(work: Callable[[Share], object], shares: Iterable[Share]) -> None:
    """Call `work` with each share, at once on `torch.get_num_threads()` threads.

    Raises:
        BaseException: what a call raised first, once all threads have ended.
    """
    threads, left, failures = torch.get_num_threads(), iter(list(shares)), list[BaseException]()

    def take(_: object = None) -> None:
        try:
            for share in left:
                work(share)
        except BaseException as error:
            failures.append(error)

    if threads == 1:
        take()
    elif (enter := _openmp()) is not None:
        enter(_Region(take), None, threads, 0)
    else:
        list(_pool(threads).map(take, range(threads)))
    if failures:
        raise failures[0]


@cache
def _openmp() -> Any:
    """`GOMP_parallel(region, data, threads, flags)` of the library that torch brings along."""
    for path in (Path(torch.__file__).parent / "lib").glob("libgomp*"):
        try:
            enter = ctypes.CDLL(str(path)).GOMP_parallel
        except (OSError, AttributeError):
            continue
        enter.argtypes, enter.restype = (
            [_Region, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint],
            None,
        )
        return enter
    return None


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="lstm")
