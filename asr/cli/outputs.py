"""What a command writes is never what it reads: one guard for all commands, before any work."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from asr.cli.standard_input import STDIN

Name = str | Path | None


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


def listed(setting: object) -> list[str]:
    """The files that a setting names: one, several in a list, or none."""
    if isinstance(setting, Sequence) and not isinstance(setting, str):
        return [str(each) for each in setting]
    return [] if setting is None else [str(setting)]


def _identity(path: Name) -> object:
    """Device and number of a file that is there, else where its name leads."""
    assert path is not None
    try:
        status = os.stat(path)
    except OSError:
        return os.path.realpath(path)
    except ValueError:  # a name that no file can have: with a zero byte
        return str(path)
    return status.st_dev, status.st_ino
