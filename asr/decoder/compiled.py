"""How the decoder's inner loops are compiled: by Numba, and kept on disk for the next process."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function of arrays and numbers; it runs without the interpreter's lock."""
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    dispatcher: Any
    try:
        dispatcher = numba.njit(function, cache=True, **options)
    except RuntimeError:  # neither the package's folder nor the user's cache can be written to
        dispatcher = numba.njit(function, **options)
    else:
        # Numba compiles anew what changed in the function's own file, not in those it calls into.
        stored = dispatcher._cache._cache_file
        stored._source_stamp = stored._source_stamp, fingerprint(Path(__file__).parent)
    result: Callable[..., Any] = dispatcher
    return result


@cache
def fingerprint(folder: Path) -> str:
    """Of the sources in a folder and below."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
