"""How the decoder's inner loops are compiled: by Numba, and kept on disk for the next process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function of arrays and numbers; it runs without the interpreter's lock."""
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    result: Callable[..., Any]
    try:
        result = numba.njit(function, cache=True, **options)
    except RuntimeError:  # neither the package's folder nor the user's cache can be written to
        result = numba.njit(function, **options)
    return result
