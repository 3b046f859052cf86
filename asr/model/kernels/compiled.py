"""How kernels are compiled: by Numba at their first call, and kept on disk for the next process."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numba

# None of these liberties in arithmetic lets a NaN pass for a number.
_options = {
    "nogil": True, "error_model": "numpy", "fastmath": {"contract", "nsz", "arcp"},
}  # fmt: skip


def compiled(function: Callable[..., None]) -> Callable[..., None]:
    """Compile a function of arrays and numbers; it runs without the interpreter's lock."""
    compile_function: Any = partial(numba.njit, **_options)
    try:
        return compile_function(cache=True)(function)
    except RuntimeError:  # neither the package's folder nor the user's cache can be written to
        return compile_function()(function)
