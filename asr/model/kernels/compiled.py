"""How the kernels of the LSTM are compiled, and what their code is made of beside Python."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba import extending, types
from numba.core import cgutils

import asr.compiled

# None of these liberties in arithmetic lets a NaN pass for a number.
FASTMATH = {"contract", "nsz", "arcp"}


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function of arrays and numbers; it runs without the interpreter's lock."""
    return asr.compiled.compiled(function, Path(__file__).parent, FASTMATH)


def compiled_sum(function: Callable[..., Any]) -> Callable[..., Any]:
    """`compiled`, and sums may be taken in any order: only then do they become vectors."""
    return asr.compiled.compiled(function, Path(__file__).parent, FASTMATH | {"reassoc"})


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
