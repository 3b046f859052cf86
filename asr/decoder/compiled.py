"""How the decoder's inner loops are compiled."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import asr.compiled


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function of arrays and numbers, of any file of the decoder."""
    return asr.compiled.compiled(function, Path(__file__).parent)
