"""Room for large arrays: what others left, before anything fresh, and that in huge pages.

Fresh memory is cleared and handed out page by page at first touch, which can take longer than all
that is then written to it; and what is given back to the system is fresh again at the next step.
"""

from __future__ import annotations

import math
import mmap
import threading
import weakref
from contextlib import suppress

import numpy as np
import torch
from torch import Tensor

# A process that is forked off must not write into our arrays.
PRIVATE = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
LARGE = 2**22  # bytes, two huge pages: smaller arrays are torch's own


class Pool:
    """Blocks of memory, given out again once the tensor that had them is gone.

    Attributes:
        used: what is given out [bytes].
        most: the most of it so far; no more than this is kept besides.
    """

    def __init__(self) -> None:
        self.used = self.most = 0
        self._free: list[mmap.mmap] = []  # the longest unused first
        self._lock = threading.RLock()  # the collector may call `_give` wherever it is held

    def array(self, count: int, dtype: np.dtype[np.generic]) -> np.ndarray:
        """So many numbers, their values not set."""
        size = count * dtype.itemsize
        with self._lock:
            block = self._take(size)
            self.used += len(block)
            self.most = max(self.most, self.used)
        array = np.frombuffer(block, dtype, count)
        weakref.finalize(array, self._give, block).atexit = False
        return array

    def _take(self, size: int) -> mmap.mmap:
        fitting = [block for block in self._free if size <= len(block) <= 2 * size]
        if fitting:
            block = min(fitting, key=len)
            self._free = [other for other in self._free if other is not block]
            return block
        step = 2 ** max(12, size.bit_length() - 3)  # so that sizes alike share blocks
        block = mmap.mmap(-1, -(-size // step) * step, **PRIVATE)
        with suppress(AttributeError, OSError):  # advice, which not every system takes
            block.madvise(mmap.MADV_HUGEPAGE)
        return block

    def _give(self, block: mmap.mmap) -> None:
        with self._lock:
            self.used -= len(block)
            self._free.append(block)
            while sum(map(len, self._free)) > self.most:
                self._free.pop(0)


POOL = Pool()


def empty(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """`like.new_empty(shape)` on a CPU, from the pool if it is large."""
    count = math.prod(shape)
    if count * like.itemsize < LARGE:
        return like.new_empty(shape)
    dtype = like.new_empty(0).numpy().dtype
    return torch.from_numpy(POOL.array(count, dtype)).view(shape)
