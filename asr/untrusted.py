"""What a file of somebody else's may hold: opened without waiting, bounded, checked by its types.

A model, a decoder file, a run folder, a corpus may come from anybody. Whatever is read from one is
data: its size is bounded before it is read, and its values are compared with the annotations of the
class they are meant for before anything is built of them.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import inspect
import json
import math
import os
import reprlib
import stat
import types
import typing
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, BinaryIO, Literal, NoReturn, TypeVar, Union

MAX_SHOWN_CHARACTERS = 60  # of a wrong value, in a message
MAX_SHOWN_ENTRIES = 12  # of a wrong list or of a header, in a message
MAX_DEPTH = 32  # of values in values; none of our files has more than six

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = MAX_SHOWN_CHARACTERS
_SHORT.maxlist = _SHORT.maxdict = MAX_SHOWN_ENTRIES

T = TypeVar("T")


def shown(value: object) -> str:
    """A value as a message shows it: unprintable characters escaped, the middle left out."""
    return _SHORT.repr(value)


# --- files -------------------------------------------------------------------------------------


def open_regular(path: Path | str, expected: str) -> BinaryIO:
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


def read_bytes(path: Path | str, expected: str, max_bytes: int) -> bytes:
    """The content of a regular file that is not larger than it may be.

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
        # Python makes room for all that it is asked to read: not for a bound of gigabytes.
        content = file.read(size + 1)
        if len(content) > size:
            raise ValueError(f"{path}: grew while it was read, expected {expected}")
        return content


def read_text(path: Path | str, expected: str, max_bytes: int) -> str:
    """The content of a file of UTF-8 text, under the same bounds as `read_bytes`.

    Raises:
        ValueError: not a regular file, too large, or not UTF-8.
        OSError: missing or unreadable.
    """
    try:
        return read_bytes(path, expected, max_bytes).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 at byte {error.start}, expected {expected}") from error


def read_json(path: Path | str, expected: str, max_bytes: int) -> Any:
    """The value in a JSON file, under the same bounds as `read_bytes`.

    Raises:
        ValueError: not a regular file, too large, not JSON, or with NaN or infinities.
        OSError: missing or unreadable.
    """
    return parse_json(read_text(path, expected, max_bytes), path, expected)


def parse_json(text: str, where: object, expected: str) -> Any:
    """The value of a JSON text.

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


# --- values ------------------------------------------------------------------------------------


def checked(value: Any, kind: Any, name: str) -> Any:
    """A value that was read, as its type annotation wants it.

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
    """A dataclass made of a mapping that was read from a file.

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
    constructor: Callable[..., Any], arguments: Mapping[str, Any], section: str
) -> dict[str, Any]:
    """Arguments that were read, for a class or function of this package or of torch.

    Args:
        constructor: what will be called; its annotations are what is expected.
        arguments: by name; those that are left out keep their defaults.
        section: names the group of settings in messages: `section.name`.

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
            raise ValueError(f"unknown setting {prefix}{name}: {_nearest(name, parameters)}")
    for name, parameter in parameters.items():
        if parameter.default is inspect.Parameter.empty and name not in arguments:
            raise ValueError(f"{prefix}{name} is missing, expected a value")
    hints = annotations_of(constructor)
    return {
        name: checked(value, hints.get(name, Any), f"{prefix}{name}")
        for name, value in arguments.items()
    }


def annotations_of(constructor: Callable[..., Any]) -> dict[str, Any]:
    """The resolved annotations of a class's constructor, or of a function."""
    return typing.get_type_hints(
        constructor.__init__ if isinstance(constructor, type) else constructor  # type: ignore[misc]
    )


def _nearest(name: object, known: Mapping[str, object]) -> str:
    near = get_close_matches(str(name), list(known), n=1)
    return f"did you mean {near[0]}?" if near else f"expected one of {', '.join(known)}"


def _check(value: Any, kind: Any, name: str, depth: int) -> Any:
    """`checked`, at a depth of values in values."""
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
    if isinstance(kind, type) and isinstance(value, str):
        if issubclass(kind, Path):
            return kind(value)
        if issubclass(kind, enum.Enum) and value in {member.value for member in kind}:
            return kind(value)
    raise _wrong(value, kind, name)


def _check_union(value: Any, kind: Any, name: str, depth: int) -> Any:
    inner: list[ValueError] = []
    for choice in typing.get_args(kind):
        try:
            return _check(value, choice, name, depth)
        except ValueError as error:
            inner.append(error)
    # What is wrong inside a list or a mapping says more than that it fits none of the choices.
    deeper = [error for error in inner if not str(error).startswith(f"{name or 'content'} is ")]
    raise deeper[0] if deeper else _wrong(value, kind, name)


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
            raise ValueError(f"{name or 'content'} has {shown(key)}: {_nearest(key, fields)}")
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
    return ValueError(f"{name or 'content'} is {shown(value)}, expected {described(kind)}")


def _is_instance(value: Any, kind: Any) -> bool:
    """Whether a value that holds no others is of a type; True and False are no numbers."""
    if kind is None or kind is types.NoneType:
        return value is None
    if isinstance(value, bool):
        return kind is bool
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
    """A type annotation in words, for people who do not read Python."""
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
