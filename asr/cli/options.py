"""What command lines have in common: their manners, what they read, and what they write."""

from __future__ import annotations

import argparse
import io
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast

from asr.memory import is_out_of_memory, release_memory
from asr.starter_model import model_path
from asr.untrusted import nearest, read_stream

STDIN = "-"
MAX_STDIN_BYTES = 1 << 30  # 1 GiB of a recording: 9 hours of 16-bit samples at 16 kHz

MODEL_HELP = (
    "a model file of asr train or asr export, a run's folder, whose best model is taken, or a name "
    "of asr models"
)

Name = str | Path | None
T = TypeVar("T")


class Parser(argparse.ArgumentParser):
    """The arguments of a command, with `--debug` and `--help`.

    A mistake is a ValueError in one line; a misspelt option or choice is told with the nearest one.

    Args:
        settings: as of argparse.ArgumentParser.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, **settings)
        if self.add_help:
            self.add_argument("--debug", action="store_true", help="show the traceback of an error")

    @property
    def arguments(self) -> list[argparse.Action]:
        """List all arguments, those of its groups too."""
        return list(self._actions)  # there is no public way to list them (python/cpython#125363)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as argparse does, after a look for options that there are not.

        Raises:
            ValueError: there is such an option, of which argparse would say nothing as long as a
                required one is missing.
        """
        known = [name for argument in self.arguments for name in argument.option_strings]
        has_commands = any(isinstance(argument.choices, dict) for argument in self.arguments)
        for word in args:
            name = word.partition("=")[0]
            if word == "--" or (has_commands and not word.startswith("-")):
                break
            if re.match(r"--?[A-Za-z]", name) and name not in known:
                self.error(f"unknown option {name}: {nearest(name, known)}")
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Tell of a mistake.

        Raises:
            ValueError: always, with argparse's message in this program's words.
        """
        if found := re.fullmatch(
            r"argument (.+): invalid choice: (.+) \(choose from (.+)\)", message
        ):
            name, value, choices = found.groups()
            known = [choice.strip("'") for choice in choices.split(", ")]
            hint = nearest(value.strip("'"), known)
            message = f"{name} is {value}: {hint}"
        elif found := re.fullmatch(r"the following arguments are required: (.+)", message):
            message = f"missing: {found[1]}"
        elif found := re.fullmatch(r"argument (.+): invalid (int|float) value: (.+)", message):
            expected = "a whole number" if found[2] == "int" else "a number"
            message = f"{found[1]} is {found[3]}, expected {expected}"
        raise ValueError(f"{message} ({self.prog} --help)")


# --- what a user names to be read: standard input, and each of several inputs by itself ----------


def standard_input(expected: str) -> io.BufferedReader:
    """Give standard input, for reading bytes.

    Args:
        expected: what should come from there, for the message.

    Raises:
        ValueError: it is closed.
    """
    # Python has no sys.stdin where the process was started without one.
    if sys.stdin is None:
        raise ValueError(f"standard input is closed, expected {expected}")
    return cast(io.BufferedReader, sys.stdin.buffer)


def read_standard_input(expected: str, max_bytes: int) -> bytes:
    """Read all of standard input.

    Args:
        expected: what should come from there, for the message.
        max_bytes: no more than that is read.

    Raises:
        ValueError: it is closed, a terminal, or has more.
    """
    file = standard_input(expected)
    if file.isatty():
        raise ValueError(f"standard input is a terminal, expected {expected}")
    return read_stream(file, "standard input", expected, max_bytes)


def attempt(work: Callable[[], T], name: str) -> T | Exception:
    """Do the work for one of several inputs, so that what is wrong with it stops no other.

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
    # Outside of `except`: the error holds all that the pass that failed has made.
    release_memory()
    return ValueError(f"{name}: memory ran out, expected a shorter recording, or more memory")


def add_model_option(parser: argparse.ArgumentParser) -> None:
    """Give a command the model that it works with."""
    parser.add_argument("--model", required=True, type=model_path, help=MODEL_HELP)


# --- what a command writes is never what it reads -----------------------------------------------


def check_outputs(outputs: Iterable[Name], inputs: Iterable[Name]) -> None:
    """Refuse outputs that would take the place of an input, or of each other.

    A file is known by what it is, not by its name: another spelling, a link, a hard link lead to
    the same one.

    Args:
        outputs: files that will be written; None for one that was not asked for.
        inputs: files that are read: recordings, manifests, models and settings; None and `-` are
            passed over.

    Raises:
        ValueError: naming the output.
    """
    written: dict[object, Name] = {}
    for path in outputs:
        if path is None:
            continue
        identity = _identity(path)
        if identity in written:
            raise ValueError(
                f"{path}: two outputs would be written to it, expected a file for each"
            )
        written[identity] = path
    if not written:
        return
    for path in inputs:
        if path is not None and str(path) != STDIN and (output := written.get(_identity(path))):
            also = "" if str(output) == str(path) else f" as {path}"
            raise ValueError(
                f"{output}: would be overwritten and is read{also}, expected another file to "
                "write to"
            )


def files_of(setting: object) -> list[str]:
    """List the files that a setting names: one, several in a list, or none."""
    if isinstance(setting, Sequence) and not isinstance(setting, str):
        return [str(each) for each in setting]
    return [] if setting is None else [str(setting)]


def _identity(path: Name) -> object:
    """Give device and number of a file that is there, else where its name leads."""
    assert path is not None
    try:
        status = os.stat(path)
    except OSError:
        return os.path.realpath(path)
    except ValueError:  # a name that no file can have: with a zero byte
        return str(path)
    return status.st_dev, status.st_ino
