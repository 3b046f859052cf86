"""One of several inputs: what goes wrong with it is told in its line, and the others go on."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

from asr.memory import is_out_of_memory

T = TypeVar("T")


def attempt(work: Callable[[], T], name: str) -> T | Exception:
    """Do the work for one input.

    Args:
        work: what is to be done.
        name: of the input, for an error that does not tell.

    Returns:
        Its result; or what is wrong with the input, or with the file that is written for it, or
        that memory ran out.

    Raises:
        BrokenPipeError: nobody reads the standard output any more.
        RuntimeError: anything else, which is no fault of the input.
    """
    try:
        return work()
    except BrokenPipeError:
        raise
    except (ValueError, OSError) as error:
        return error.with_traceback(None)  # it would hold what the work has made
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    # Outside of `except`: the error holds every tensor of the pass that failed.
    gc.collect()
    torch.cuda.empty_cache()  # nothing, where no GPU is in use
    return ValueError(f"{name}: memory ran out, expected a shorter recording, or more memory")
