"""How kernels are compiled: by Numba at their first call, and kept on disk for the next process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba

# None of these liberties in arithmetic lets a NaN pass for a number.
OPTIONS: dict[str, Any] = {
    "nogil": True, "error_model": "numpy", "fastmath": {"contract", "nsz", "arcp"},
}  # fmt: skip


def compiled(function: Callable[..., None]) -> Callable[..., None]:
    """Compile a function of arrays and numbers; it runs without the interpreter's lock."""
    try:
        return numba.njit(function, cache=True, **OPTIONS)
    except RuntimeError:  # neither the package's folder nor the user's cache can be written to
        return numba.njit(function, **OPTIONS)
