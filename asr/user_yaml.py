"""Read YAML that a user, or somebody else, wrote: plain keys and values, bounded, never code.

Only the files of conf/ may name classes and look things up. Decoder files, and the record in a
run's folder, come from anywhere: here they become plain data.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from asr.untrusted import MAX_DEPTH, read_text, shown

MAX_YAML_BYTES = 1 << 20  # ten thousand hotwords take a third
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where it was built
REFERENCE = re.compile(r"\$\{([\w.]+)\}")  # to another key of the same file
EXPONENT = re.compile(r"[-+]?([0-9][0-9_]*\.?[0-9_]*|\.[0-9_]+)[eE][-+]?[0-9]+")


class _Loader(LOADER):  # type: ignore[misc]
    """Reads values as Hydra does on the command line: 1e-3 is a number, 2020-01-01 a text."""


_Loader.yaml_implicit_resolvers = {
    letter: [each for each in resolvers if not each[0].endswith(":timestamp")]
    for letter, resolvers in LOADER.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", EXPONENT, list("-+0123456789."))


def read_yaml(path: Path, expected: str) -> Any:
    """Read the mapping or list in a YAML file; `${...}` stays as it is written.

    Args:
        path: a regular file.
        expected: what should be there, for messages.

    Raises:
        ValueError: too large, not YAML, nested too deep, or with aliases, tags or a key twice.
        OSError: missing or unreadable.
    """
    text = read_text(path, expected, MAX_YAML_BYTES)
    try:
        fault = _fault_in_events(text)
        if fault is None:
            loader = _Loader(text)
            root = loader.get_single_node()
            if root is None:
                return {}
            _make_keys_texts(root)
            return loader.construct_document(root)
    except (yaml.YAMLError, ValueError) as error:
        message = " ".join(str(error).split())
        raise ValueError(f"{path}: not YAML: {message}, expected {expected}") from error
    raise ValueError(f"{path}:{fault}, expected {expected}")


def _make_keys_texts(root: yaml.Node) -> None:
    """Make texts of all keys, each there once: hotwords are not False and 10.0 but no and 10."""
    nodes = [root]
    while nodes:
        node = nodes.pop()
        if isinstance(node, yaml.MappingNode):
            names: set[str] = set()
            for key, value in node.value:
                if isinstance(key, yaml.ScalarNode):
                    key.tag = "tag:yaml.org,2002:str"
                    if key.value in names:
                        line = key.start_mark.line + 1
                        raise ValueError(f"{shown(key.value)} twice, again in line {line}")
                    names.add(key.value)
                nodes.append(value)
        elif isinstance(node, yaml.SequenceNode):
            nodes += node.value


def _fault_in_events(text: str) -> str | None:
    """Find what costs more than its length, or asks for more than data, before it is built."""
    depth = 0
    for event in yaml.parse(text, Loader=LOADER):
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            return f"{line}: an alias (*{event.anchor}) in the place of a value"
        if getattr(event, "tag", None) is not None:
            return f"{line}: a tag ({shown(event.tag)}) beside a value"
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.ScalarEvent) and not depth:
            return f"{line}: {shown(event.value)}"
        if depth > MAX_DEPTH:
            return f"{line}: nested deeper than {MAX_DEPTH}"
    return None


def read_settings(path: Path, expected: str) -> dict[str, Any]:
    """Read a file of settings: names and plain values.

    A value may be `${name}` for what another name of the same file has; nothing else is looked up.

    Raises:
        ValueError: as of `read_yaml`, no mapping, or a value that is looked up elsewhere.
        OSError: missing or unreadable.
    """
    content = read_yaml(path, expected)
    if not isinstance(content, dict):
        raise ValueError(f"{path}: not YAML of names and values, expected {expected}")
    for name, value in content.items():
        own = REFERENCE.fullmatch(value) if isinstance(value, str) else None
        if own and own[1] in content:
            content[name] = content[own[1]]
        if "${" in repr((name, content[name])):
            raise ValueError(f"{path}: {name} is {shown(value)}, expected a value, not a look-up")
    return content
