"""Room for large arrays, in huge pages where the system has them."""

from __future__ import annotations

import ctypes
import mmap
from functools import cache
from typing import Any

from torch import Tensor

LARGE = 2**22  # bytes, two huge pages: in anything smaller there may be none


def empty(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """`like.new_empty(shape)`, after asking Linux for huge pages if it is large.

    Fresh memory is handed out page by page at first touch, which takes several times longer than to
    write to it when the pages are ordinary ones.
    """
    room = like.new_empty(shape)
    first = -(-room.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
    length = room.data_ptr() + room.nbytes - first
    if room.nbytes >= LARGE and (advise := _madvise()) is not None:
        advise(first, length, mmap.MADV_HUGEPAGE)  # advice; what comes of it is the system's affair
    return room


@cache
def _madvise() -> Any:
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return None
    advise = ctypes.CDLL(None).madvise
    advise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return advise
