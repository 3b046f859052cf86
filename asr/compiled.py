"""How inner loops are compiled: by Numba at their first call, and kept for the next process.

Numba keeps a function's machine code in files beside its source, or in the user's cache. Here they
carry a checksum: what is damaged is dropped and compiled anew, and so is what was made of other
sources.
"""

from __future__ import annotations

import hashlib
import inspect
import logging
import pickle
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.core.serialize import dumps

logger = logging.getLogger(__name__)


def compiled(
    function: Callable[..., Any],
    folder: Path | None = None,
    fastmath: set[str] | bool = False,
    *,
    inline: bool = False,
) -> Callable[..., Any]:
    """Compile a function of arrays and numbers; it runs without the interpreter's lock.

    Args:
        function: to be compiled.
        folder: of its source and those that it calls into, None for that of its own file: what is
            kept is dropped when any file in it or below changes. Numba itself looks at the
            function's own file alone.
        fastmath: liberties in arithmetic, as of Numba.
        inline: written into the compiled functions that call it.
    """
    folder = Path(inspect.getfile(function)).parent if folder is None else folder
    dispatcher: Any = numba.njit(
        function,
        nogil=True,
        error_model="numpy",
        fastmath=fastmath,
        inline="always" if inline else "never",
    )
    try:
        # Where Numba's own decorator puts its FunctionCache; there is no public way to hand it one.
        dispatcher._cache = _Store(function, fingerprint(folder))
    except RuntimeError:  # neither the package's folder nor the user's cache can be written to
        _tell_once(
            logging.WARNING,
            "asr: no folder for compiled code can be written to, so that every start compiles for "
            "10 to 25 s: NUMBA_CACHE_DIR=<folder> names one",
        )
    result: Callable[..., Any] = dispatcher
    return result


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """`compiled`, and written into its callers: for what is given named tuples of many arrays.

    To hand these over takes longer than little work does: each array's references are counted.
    """
    return compiled(function, inline=True)


@cache
def fingerprint(folder: Path) -> str:
    """Digest the sources in a folder and below."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


@cache
def _tell_once(level: int, message: str) -> None:
    logger.log(level, message)


class _Store(FunctionCache):
    """The files of one function."""

    def __init__(self, function: Callable[..., Any], sources: str) -> None:
        super().__init__(function)
        stamp = self._impl.locator.get_source_stamp()
        self._cache_file = _CheckedFile(
            self._cache_path, self._impl.filename_base, (stamp, sources)
        )

    def load_overload(self, signature: Any, target: Any) -> Any:
        """Load what was kept for a signature; None where there is nothing, or nothing whole."""
        found = super().load_overload(signature, target)
        if found is None:
            # On a terminal somebody waits; elsewhere the line is for who asks for details.
            level = logging.WARNING if sys.stderr and sys.stderr.isatty() else logging.INFO
            _tell_once(level, "asr: compiling for this machine, 10 to 25 s, once")
        return found

    def save_overload(self, signature: Any, result: Any) -> None:
        """Keep what was compiled; where that cannot be done, the next process compiles anew."""
        try:
            super().save_overload(signature, result)
        except OSError as error:
            _tell_once(logging.WARNING, f"asr: compiled code cannot be kept: {error}")


class _CheckedFile(IndexDataCacheFile):
    """An index and the machine code that it lists, with a checksum of each piece."""

    def save(self, key: Any, data: Any) -> None:
        content = dumps(data)
        super().save(key, (hashlib.sha256(content).hexdigest(), content))

    def load(self, key: Any) -> Any:
        try:
            stored = super().load(key)
            if stored is None:
                return None
            digest, content = stored
            if hashlib.sha256(content).hexdigest() != digest:
                raise ValueError("its checksum differs")
            # Whoever can write here can write the sources beside it too.
            return pickle.loads(content)
        except Exception as error:  # what unpickling makes of any bytes
            _tell_once(
                logging.WARNING,
                f"asr: {self._index_path}: damaged, or of another version "
                f"({type(error).__name__}), compiled anew",
            )
            self.flush()
            return None
