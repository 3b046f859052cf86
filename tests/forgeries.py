"""Files that somebody changed by hand: every value of a JSON value replaced, every key left out."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

VALUES: tuple[Any, ...] = (None, True, -1, 1e308, "x", [], {}, "\x1b[31mred")
LEFT_OUT = object()


def forgeries(content: Any, values: tuple[Any, ...] = VALUES) -> Iterator[tuple[str, Any]]:
    """Copies of a JSON value with one place changed, and what was changed.

    Args:
        content: of lists, mappings and scalars; it is not changed.
        values: what is put in the place of each value at any depth, but for the one that is there.
    """
    for path in _paths(content):
        for value in (*values, LEFT_OUT):
            copied = deepcopy(content)
            holder = copied
            for key in path[:-1]:
                holder = holder[key]
            if value is not LEFT_OUT:
                holder[path[-1]] = value
            else:
                del holder[path[-1]]
            shown = "left out" if value is LEFT_OUT else repr(value)
            yield f"{'.'.join(map(str, path))} {shown}", copied


def _paths(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    if isinstance(content, dict | list):
        keys = content if isinstance(content, dict) else range(min(len(content), 2))
        for key in keys:
            yield from _paths(content[key], (*path, key))
