"""What commands tell: nothing that a file's name or text could make a terminal do."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from typing import TypeVar

from asr.memory import is_out_of_memory
from asr.text import printable

KEPT = "\n\t"  # between the lines and columns of what we print ourselves

T = TypeVar("T")


def say(text: str) -> None:
    """Print lines of a result to standard output."""
    sys.stdout.write(f"{printable(text, KEPT)}\n")
    sys.stdout.flush()


def tell(text: str) -> None:
    """Print a line about a result to standard error."""
    print(f"asr: {printable(text)}", file=sys.stderr)


def one_line(error: BaseException) -> str:
    """An error's message on one line, with its kind where the message alone says little.

    Characters that would act on a terminal (a file name may hold any) are shown as escapes.
    """
    if isinstance(error, MemoryError):
        message = f"not enough memory ({error})" if str(error) else "not enough memory"
    elif isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        message = f"{where}{error.strerror}"
    else:
        message = " ".join(str(error).split()) or type(error).__name__
    return printable(message)


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
    import torch

    # Outside of `except`: the error holds every tensor of the pass that failed.
    gc.collect()
    torch.cuda.empty_cache()  # nothing, where no GPU is in use
    return ValueError(f"{name}: memory ran out, expected a shorter recording, or more memory")
