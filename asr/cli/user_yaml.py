"""Read YAML that a user, or somebody else, wrote: plain keys and values, bounded, never code.

Only the files of conf/ may name classes and look things up. Decoder files, and the record in a
run's folder, come from anywhere: here they become plain data.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml  # type: ignore[import-untyped]

from asr.untrusted import MAX_DEPTH, read_text, shown

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

MAX_YAML_BYTES = 1 << 20  # ten thousand hotwords take a third
# Ten times as fast, where they were built.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
REFERENCE = re.compile(r"\$\{([\w.]+)\}")  # to another key of the same file
KEY = re.compile(r"\w+([./]\w+)*")
GROUP_OPTION = re.compile(r"[\w-]+(/[\w-]+)*")


def read_yaml(path: Path, expected: str) -> Any:
    """Read the mapping or list in a YAML file; `${...}` stays as it is written.

    Args:
        path: a regular file.
        expected: what should be there, for messages.

    Raises:
        ValueError: too large, not YAML, nested too deep, or with aliases or tags.
        OSError: missing or unreadable.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    text = read_text(path, expected, MAX_YAML_BYTES)
    try:
        fault = _fault_in_events(text)
        if fault is None:
            # OmegaConf's own loader, for which 1e-3 is a number, as it is on the command line.
            return OmegaConf.to_container(OmegaConf.create(_with_text_keys(text)), resolve=False)
    except (yaml.YAMLError, OmegaConfBaseException, ValueError) as error:
        message = " ".join(str(error).split())
        raise ValueError(f"{path}: not YAML: {message}, expected {expected}") from error
    raise ValueError(f"{path}:{fault}, expected {expected}")


def _with_text_keys(text: str) -> str:
    """Write the same YAML with texts for keys: hotwords are not False and 10.0 but no and 10."""
    root = yaml.compose(text, Loader=LOADER)
    nodes = [] if root is None else [root]
    while nodes:
        node = nodes.pop()
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if isinstance(key, yaml.ScalarNode):
                    key.tag, key.style = "tag:yaml.org,2002:str", "'"
                nodes.append(value)
        elif isinstance(node, yaml.SequenceNode):
            nodes += node.value
    return "" if root is None else str(yaml.serialize(root, Dumper=DUMPER, allow_unicode=True))


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


def plain_override(word: object, groups: Mapping[str, object], where: Path) -> str:
    """Check a setting of a training's command line as it stands in the record of its run.

    It may choose files of conf/ and give plain values to settings of the training; Hydra's own
    settings, classes and look-ups elsewhere are not taken from a file.

    Args:
        word: `key=value` in Hydra's grammar.
        groups: the config groups by name.
        where: the file of the record, for messages.

    Returns:
        The word.

    Raises:
        ValueError: anything else.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        override = OverridesParser.create().parse_override(str(word))
    except HydraException as error:
        raise ValueError(f"{where}: {shown(word)}, expected KEY=VALUE") from error
    fault = _fault(override, groups)
    if fault:
        raise ValueError(f"{where}: {shown(word)}, {fault}")
    return str(word)


def _fault(override: Override, groups: Mapping[str, object]) -> str | None:
    """Tell why a setting is not taken from a file; None where it is."""
    key = override.key_or_group
    if not KEY.fullmatch(key) or override.package is not None:
        return "expected the name of a setting of conf/train.yaml"
    if re.split("[./]", key)[0] == "hydra":
        return "expected no setting of Hydra's: give those on the command line"
    if override.is_sweep_override():
        return "expected one value"
    if override.is_delete():
        return None
    value = override.value()
    if key in groups:
        names = value if isinstance(value, list) else [value]
        if all(name is None or GROUP_OPTION.fullmatch(str(name)) for name in names):
            return None
        return f"expected the name of a file in conf/{key}"
    return _fault_of_value(value)


def _fault_of_value(value: Any) -> str | None:
    if isinstance(value, dict):
        if any(str(name).startswith("_") for name in value):
            return "expected plain values, no class"
        return next(filter(None, map(_fault_of_value, value.values())), None)
    if isinstance(value, list):
        return next(filter(None, map(_fault_of_value, value)), None)
    if "${" in REFERENCE.sub("", str(value)):
        return "expected a value, not a look-up"
    return None
