"""What a file of somebody else's may hold: opened without waiting, bounded, checked by its types.

A model, a decoder file, a run folder, a corpus may come from anybody. Whatever is read from one is
data: its size is bounded before it is read, and its values are compared with the annotations of the
class they are meant for before anything is built of them.
"""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import enum
import inspect
import io
import json
import math
import os
import reprlib
import stat
import time
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, NoReturn, Protocol, TypeVar, Union

from asr.packed import DamagedError, unpacked

MAX_SHOWN_CHARACTERS = 60  # of a wrong value, in a message
MAX_SHOWN_ENTRIES = 12  # of a wrong list or of a header, in a message
MAX_NUMBER = 1 << 63  # what torch, NumPy and files hold
MAX_DEPTH = 32  # of values in values; none of our files has more than six
MAX_LINE_BYTES = 1 << 20  # 1 MiB: a transcript of an hour takes a twentieth of it
MAX_PASSED_BYTES = 1 << 28  # 256 MiB of a line that is too long; one without end has no next
MAX_BLANK_LINES = 10_000  # in a row
STREAM_BYTES = 1 << 20  # that are read at a time where nobody knows how many come
PIPE_WAIT_S = 3.0  # [s] for somebody who writes to a named pipe
PIPE_POLL_S = 0.02  # [s]

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = MAX_SHOWN_CHARACTERS
_SHORT.maxlist = _SHORT.maxdict = MAX_SHOWN_ENTRIES

T = TypeVar("T")


def shown(value: object) -> str:
    """Show a value in a message: unprintable characters escaped, the middle left out."""
    return _SHORT.repr(value)


class HasBytes(Protocol):
    """What gives its bytes in order."""

    def read(self, size: int, /) -> bytes:
        """Read so many of the next bytes, fewer at the end."""


class HasLines(Protocol):
    """What gives its bytes line by line."""

    def readline(self, size: int, /) -> bytes:
        """Read the next line with its end, or so many bytes of it; empty at the end of the file."""


# --- files -------------------------------------------------------------------------------------


def open_regular(path: Path | str, expected: str) -> io.BufferedReader:
    """Open a regular file for reading bytes; never wait for a FIFO or read a device.

    Args:
        path: the file.
        expected: what should be there, "a model file" for instance, for the message.

    Raises:
        ValueError: a folder, a FIFO, a socket or a device.
        OSError: missing or unreadable; it names the file.
    """
    # Opened first, asked afterwards, so that nothing can be put in its place in between; without
    # O_NONBLOCK a FIFO would wait for its writer here.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ValueError(f"{path}: not a regular file, expected {expected}")
    return open(descriptor, "rb")


@contextlib.contextmanager
def open_text(path: Path | str) -> Iterator[io.BufferedReader[Any]]:
    """Open a text that a user names, a pipe or a device too; unpacked as `unpacked` does.

    A pipe, as of `<(zcat ...)`, that nobody writes to is an error soon.

    Raises:
        ValueError: a pipe without a writer.
        OSError: missing, unreadable or a folder.
    """
    # Without O_NONBLOCK a FIFO would wait here, for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISDIR(mode):
        os.close(descriptor)
        raise IsADirectoryError(21, "Is a directory, expected a text", str(path))
    if not stat.S_ISFIFO(mode):
        os.set_blocking(descriptor, True)
    raw = _Pipe(descriptor, path) if stat.S_ISFIFO(mode) else io.FileIO(descriptor)
    with io.BufferedReader(raw) as file:
        yield unpacked(file, path)


class _Pipe(io.FileIO):
    """The reading end of a pipe that does not wait longer than PIPE_WAIT_S for a writer to come."""

    def __init__(self, descriptor: int, path: Path | str) -> None:
        super().__init__(descriptor)
        self._path = path
        self._is_met = False

    def readinto(self, target: Any) -> int | None:
        """Read some bytes; none are the end."""
        until = time.monotonic() + PIPE_WAIT_S
        while not self._is_met:
            size = super().readinto(target)
            if size:
                self._is_met = True
                os.set_blocking(self.fileno(), True)
                return size
            # None: a writer is there and has not written yet, as long as it likes. 0: there is
            # none, not yet or no more; one that leaves without a byte is like one that never came.
            if size is None:
                until = time.monotonic() + PIPE_WAIT_S
            elif time.monotonic() > until:
                raise ValueError(f"{self._path}: a pipe that nobody writes to, expected a text")
            time.sleep(PIPE_POLL_S)
        return super().readinto(target)


def read_bytes(path: Path | str, expected: str, max_bytes: int) -> bytes:
    """Read a regular file that is not larger than it may be.

    Args:
        path: the file.
        expected: what should be there, for the message.
        max_bytes: a larger file is refused before it is read.

    Raises:
        ValueError: not a regular file, or too large.
        OSError: missing or unreadable.
    """
    with open_regular(path, expected) as file:
        size = os.fstat(file.fileno()).st_size
        if size > max_bytes:
            raise ValueError(f"{path}: {size} bytes, expected {expected} of at most {max_bytes}")
        return read_stream(file, path, expected, max_bytes)


def read_stream(file: HasBytes, name: object, expected: str, max_bytes: int) -> bytes:
    """Read all that is left in an open file, a pipe or a connection.

    Args:
        file: read from where it is; more than `max_bytes` of it is not.
        name: of it in messages.
        expected: what should be there, for the message.
        max_bytes: of all.

    Raises:
        ValueError: there is more.
    """
    # Piece by piece: Python takes the memory for so many bytes before it reads the first.
    content = io.BytesIO()
    while block := file.read(min(STREAM_BYTES, max_bytes + 1 - content.tell())):
        content.write(block)
    if content.tell() > max_bytes:
        raise ValueError(f"{name}: more than {max_bytes} bytes, expected {expected}")
    return content.getvalue()


def read_text(path: Path | str, expected: str, max_bytes: int) -> str:
    """Read a file of UTF-8 text, under the same bounds as `read_bytes`.

    Raises:
        ValueError: not a regular file, too large, or not UTF-8.
        OSError: missing or unreadable.
    """
    try:
        return read_bytes(path, expected, max_bytes).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 at byte {error.start}, expected {expected}") from error


def read_json(path: Path | str, expected: str, max_bytes: int) -> Any:
    """Read the value in a JSON file, under the same bounds as `read_bytes`.

    Raises:
        ValueError: not a regular file, too large, not JSON, or with NaN or infinities.
        OSError: missing or unreadable.
    """
    return parse_json(read_text(path, expected, max_bytes), path, expected)


def parse_json(text: str, where: object, expected: str) -> Any:
    """Parse a JSON text.

    Raises:
        ValueError: not JSON, or with NaN or infinities; it names `where`.
    """

    def refuse(name: str) -> NoReturn:
        raise ValueError(f"{name} is no JSON number")

    try:
        return json.loads(text, parse_constant=refuse)
    except RecursionError:
        raise ValueError(f"{where}: values nested too deep, expected {expected}") from None
    except ValueError as error:
        raise ValueError(f"{where}: not JSON ({error}), expected {expected}") from error


# --- texts, line by line -----------------------------------------------------------------------


def lines(
    file: HasLines, name: object, max_bytes: int | None = None
) -> Iterator[tuple[int, bytes]]:
    """Read each line of an open file with its end, and count them from 1.

    Of a line longer than MAX_LINE_BYTES come MAX_LINE_BYTES + 1 bytes, by which the caller knows
    it; the others are passed over when the next line is asked for.

    Args:
        file: read once, from where it is.
        name: of the file in messages.
        max_bytes: of all lines together; None for any number.

    Raises:
        ValueError: a damaged packed file, more than MAX_BLANK_LINES empty lines in a row, a line
            beyond MAX_PASSED_BYTES, or too many bytes.
    """
    number = num_blank = num_bytes = 0
    try:
        while raw := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            num_blank = num_blank + 1 if raw.isspace() else 0
            num_bytes += len(raw)
            if num_blank > MAX_BLANK_LINES:
                raise ValueError(
                    f"{name}:{number}: {num_blank} empty lines in a row, "
                    f"expected at most {MAX_BLANK_LINES}"
                )
            if max_bytes is not None and num_bytes > max_bytes:
                raise ValueError(f"{name}:{number}: expected a file of at most {max_bytes} bytes")
            yield number, raw
            is_cut, num_passed = len(raw) > MAX_LINE_BYTES, 0
            while is_cut and raw and not raw.endswith(b"\n"):
                raw = file.readline(MAX_LINE_BYTES)
                num_passed += len(raw)
                if num_passed > MAX_PASSED_BYTES:
                    raise ValueError(
                        f"{name}:{number}: more than {MAX_PASSED_BYTES} bytes, expected lines"
                    )
    except DamagedError as error:
        raise ValueError(f"{name}:{number + 1}: {error}") from error


def whole_lines(file: HasLines, name: object) -> Iterator[tuple[int, bytes]]:
    """Read each line as `lines` does, and refuse one that it would cut.

    Raises:
        ValueError: as `lines`, or a line longer than MAX_LINE_BYTES.
    """
    for number, raw in lines(file, name):
        if len(raw) > MAX_LINE_BYTES:
            raise ValueError(
                f"{name}:{number}: more than {MAX_LINE_BYTES} bytes, expected a shorter line"
            )
        yield number, raw


# --- values ------------------------------------------------------------------------------------


def checked(value: Any, kind: Any, name: str) -> Any:
    """Check a value that was read, and make it what its type annotation wants.

    Numbers stay as they are written (an integer may stand for a float), lists become tuples where
    the annotation says so, texts become paths or members of an Enum, and mappings become
    dataclasses, whose fields are checked in turn.

    Args:
        value: plain data: None, bool, numbers, text, lists and mappings; or an object that was
            built before.
        kind: a type annotation, resolved.
        name: of the value in messages; empty for the whole content of a file.

    Raises:
        ValueError: it is of another type, or a mapping with a key too many or too few.
    """
    return _check(value, kind, name, 0)


def record(cls: type[T], data: Any, where: object) -> T:
    """Make a dataclass of a mapping that was read from a file.

    Args:
        cls: the dataclass.
        data: what should be a mapping from the names of its fields to their values.
        where: names the source of the data in messages.

    Raises:
        ValueError: it is no such mapping, or the dataclass itself refuses the values.
    """
    try:
        made: T = checked(data, cls, "")
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    return made


def check_arguments(
    constructor: Callable[..., Any],
    arguments: Mapping[str, Any],
    section: str,
    *,
    partial: bool = False,
) -> dict[str, Any]:
    """Check arguments that were read, for a class or function of this package or of torch.

    Args:
        constructor: what will be called; its annotations are what is expected.
        arguments: by name; those that are left out keep their defaults.
        section: names the group of settings in messages: `section.name`.
        partial: others come later, so that none is missing yet.

    Returns:
        The arguments as `checked` gives them.

    Raises:
        ValueError: an argument that the constructor does not have, one that it needs and does not
            get, or a value of another type.
    """
    prefix = f"{section}." if section else ""
    parameters = inspect.signature(constructor).parameters
    for name in arguments:
        if name not in parameters:
            raise ValueError(f"unknown setting {prefix}{name}: {nearest(name, parameters)}")
    for name, parameter in parameters.items():
        is_needed = parameter.default is inspect.Parameter.empty and not partial
        if is_needed and name not in arguments:
            raise ValueError(f"{prefix}{name} is missing, expected a value")
    hints = annotations_of(constructor)
    return {
        name: checked(value, hints.get(name, Any), f"{prefix}{name}")
        for name, value in arguments.items()
    }


def annotations_of(constructor: Callable[..., Any]) -> dict[str, Any]:
    """Resolve the annotations of a class's constructor, or of a function."""
    return typing.get_type_hints(
        constructor.__init__ if isinstance(constructor, type) else constructor  # type: ignore[misc]
    )


def nearest(name: object, known: Iterable[str], prefix: str = "") -> str:
    """Tell what an unknown name was meant to be, or all that are known, for a message."""
    near = get_close_matches(str(name), known := list(known), n=1)
    if near:
        return f"did you mean {prefix}{near[0]}?"
    return f"expected one of {', '.join(prefix + each for each in known)}"


def _check(value: Any, kind: Any, name: str, depth: int) -> Any:
    """Do as `checked`, at a depth of values in values."""
    if depth > MAX_DEPTH:
        raise ValueError(f"{name}: values nested deeper than {MAX_DEPTH}")
    if kind is Any or kind is object or isinstance(kind, TypeVar):
        return value
    origin = typing.get_origin(kind)
    if origin in (Union, types.UnionType):
        return _check_union(value, kind, name, depth)
    if origin is Literal:
        if any(value == each and type(value) is type(each) for each in typing.get_args(kind)):
            return value
        raise _wrong(value, kind, name)
    if origin is not None and issubclass(origin, collections.abc.Mapping):
        return _check_mapping(value, kind, name, depth)
    if origin is not None and issubclass(origin, tuple | collections.abc.Sequence):
        return _check_sequence(value, kind, name, depth)
    if dataclasses.is_dataclass(kind) and isinstance(value, Mapping):
        return _check_fields(value, kind, name, depth)
    if _is_instance(value, origin or kind):
        return value
    if isinstance(value, str) and _is_made_of_text(kind):
        with contextlib.suppress(ValueError):  # of an Enum, which has no such member
            return kind(value)
    raise _wrong(value, kind, name)


def _check_union(value: Any, kind: Any, name: str, depth: int) -> Any:
    inner: list[ValueError] = []
    # A text stays a text where that is one of the choices.
    for choice in sorted(typing.get_args(kind), key=_is_made_of_text):
        try:
            return _check(value, choice, name, depth)
        except ValueError as error:
            inner.append(error)
    # What is wrong inside a list or a mapping says more than that it fits none of the choices.
    deeper = [error for error in inner if not str(error).startswith(f"{name or 'content'} is ")]
    raise deeper[0] if deeper else _wrong(value, kind, name)


def _is_made_of_text(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Path | enum.Enum)


def _check_mapping(value: Any, kind: Any, name: str, depth: int) -> dict[Any, Any]:
    if not isinstance(value, Mapping):
        raise _wrong(value, kind, name)
    of_key, of_value = typing.get_args(kind)
    return {
        _check(key, of_key, f"a key of {name or 'content'}", depth + 1): _check(
            each, of_value, f"{name}[{shown(key)}]", depth + 1
        )
        for key, each in value.items()
    }


def _check_sequence(value: Any, kind: Any, name: str, depth: int) -> Any:
    if not isinstance(value, list | tuple):
        raise _wrong(value, kind, name)
    origin, of_items = typing.get_origin(kind), list(typing.get_args(kind))
    if origin is tuple and of_items[-1:] != [Ellipsis]:
        if len(of_items) != len(value):
            raise _wrong(value, kind, name)
    else:
        of_items = of_items[:1] * len(value)
    items = [
        _check(each, of_item, f"{name}[{number}]", depth + 1)
        for number, (each, of_item) in enumerate(zip(value, of_items, strict=True))
    ]
    return items if origin is list else tuple(items)


def _check_fields(value: Mapping[Any, Any], kind: Any, name: str, depth: int) -> Any:
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}
    for key in value:
        if key not in fields:
            raise ValueError(f"{name or 'content'} has {shown(key)}: {nearest(key, fields)}")
    for key, field in fields.items():
        required = field.default is field.default_factory is dataclasses.MISSING
        if required and key not in value:
            raise ValueError(f"{name or 'content'} has no {key}, expected one")
    prefix = f"{name}." if name else ""
    return kind(
        **{
            key: _check(each, hints[key], f"{prefix}{key}", depth + 1)
            for key, each in value.items()
        }
    )


def _wrong(value: Any, kind: Any, name: str) -> ValueError:
    is_huge = isinstance(value, int) and not -MAX_NUMBER <= value < MAX_NUMBER
    expected = "a number of 64 bits" if is_huge else described(kind)
    return ValueError(f"{name or 'content'} is {shown(value)}, expected {expected}")


def _is_instance(value: Any, kind: Any) -> bool:
    """Tell whether a value that holds no others is of a type; True and False are no numbers."""
    if kind is None or kind is types.NoneType:
        return value is None
    if isinstance(value, bool):
        return kind is bool
    if isinstance(value, int) and not -MAX_NUMBER <= value < MAX_NUMBER:
        return False
    if kind is float:
        return isinstance(value, int | float) and not math.isnan(value)
    if kind is collections.abc.Callable:
        return callable(value)
    try:
        return isinstance(value, kind)
    except TypeError:  # a Protocol: what it must have is asked for where it is used
        return not isinstance(value, str | int | float | list | tuple | Mapping | None)


_WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    Path: "a path",
    types.NoneType: "null",
    Any: "any value",
}


def described(kind: Any) -> str:
    """Say a type annotation in words, for people who do not read Python."""
    if kind in _WORDS:
        return _WORDS[kind]
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(described(each) for each in arguments))
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin is not None and issubclass(origin, collections.abc.Mapping):
        return f"names and values ({described(arguments[1])})"
    if origin is tuple and arguments[-1:] != (Ellipsis,):
        return f"a list of {len(arguments)}: {', '.join(map(described, arguments))}"
    if origin is not None and issubclass(origin, tuple | collections.abc.Sequence):
        return f"a list, each {described(arguments[0])}"
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return f"one of {', '.join(str(member.value) for member in kind)}"
    if dataclasses.is_dataclass(kind):
        return f"names and values ({', '.join(field.name for field in dataclasses.fields(kind))})"
    return f"a {getattr(kind, '__name__', kind)}"
