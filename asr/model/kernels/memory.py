"""Room for large arrays, in huge pages where the system has them."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

ALIGNMENT = 64  # bytes, a line of the cache


def empty(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """A tensor of the dtype of `like` on the CPU, its values not set.

    NumPy asks the system for huge pages where torch does not. Fresh memory is handed out page by
    page at first touch, which for ordinary pages takes longer than to write to it three times.
    """
    count, size = math.prod(shape), like.element_size()
    room = np.empty(count * size + ALIGNMENT, np.uint8)
    first = -room.ctypes.data % ALIGNMENT
    return torch.from_numpy(room[first : first + count * size]).view(like.dtype).view(shape)
