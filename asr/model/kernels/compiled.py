"""How kernels are compiled: by Numba at their first call, and kept on disk for the next process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba

# None of these liberties in arithmetic lets a NaN pass for a number.
OPTIONS: dict[str, Any] = {
    "nogil": True, "error_model": "numpy", "fastmath": {"contract", "nsz", "arcp"},
}  # fmt: skip


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function of arrays and numbers; it runs without the interpreter's lock."""
    return _compile(function, OPTIONS)


def compiled_sum(function: Callable[..., Any]) -> Callable[..., Any]:
    """`compiled`, and sums may be taken in any order: only then do they become vectors."""
    return _compile(function, OPTIONS | {"fastmath": OPTIONS["fastmath"] | {"reassoc"}})


def _compile(function: Callable[..., Any], options: dict[str, Any]) -> Callable[..., Any]:
    try:
        return numba.njit(function, cache=True, **options)
    except RuntimeError:  # neither the package's folder nor the user's cache can be written to
        return numba.njit(function, **options)
