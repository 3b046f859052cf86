"""How kernels are compiled: by Numba at their first call, and kept on disk for the next process."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba import extending, types
from numba.core import cgutils

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
        dispatcher = numba.njit(function, cache=True, **options)
    except RuntimeError:  # neither the package's folder nor the user's cache can be written to
        return numba.njit(function, **options)
    # Numba compiles anew what changed in the function's own file, not in those it calls into.
    stored = dispatcher._cache._cache_file
    stored._source_stamp = stored._source_stamp, fingerprint(Path(__file__).parent)
    return dispatcher


@cache
def fingerprint(folder: Path) -> str:
    """Of the sources in a folder."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def intrinsic(function: Callable[..., Any]) -> Any:
    """A function for compiled code that writes LLVM's instructions, see `numba.extending`."""
    return extending.intrinsic(function)


@intrinsic
def borrowed(typing_context: Any, value: Any) -> Any:
    """The array, or the named tuple of arrays, without its owner, who must outlive it.

    References to an owner are counted with locked instructions, several a row of every array.
    """

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _without_owner(context, builder, value, arguments[0])

    return value(value), codegen


def _without_owner(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    if isinstance(kind, types.Array):
        array = context.make_array(kind)(context, builder, value)
        array.meminfo = cgutils.get_null_value(array.meminfo.type)
        array.parent = cgutils.get_null_value(array.parent.type)
        return array._getvalue()
    if isinstance(kind, types.NamedTuple | types.NamedUniTuple):
        for k, part in enumerate(kind.types):
            own = _without_owner(context, builder, part, builder.extract_value(value, k))
            value = builder.insert_value(value, own, k)
    return value
