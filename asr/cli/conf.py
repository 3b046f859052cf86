"""Read the settings in conf/ without Hydra: to explain, complete and check them at once.

Hydra takes half a second to compose a config. What a user types is first held against the files
themselves, and what is asked for with `--help` or the tab key comes from them alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal

import yaml  # type: ignore[import-untyped]

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where it was built
PACKAGE = "# @package "  # first line of a file whose settings stand elsewhere
OVERRIDE = "override "  # before a group in the defaults of a file
MISSING = "???"  # the value of what a user has to say
# Types of the settings that nothing is built of, by command.
KINDS: dict[str, dict[str, Any]] = {
    "prepare": {"paths.data_dir": str, "paths.run_dir": str},
    "train": {
        "name": str | int | float,
        "seed": int,
        "init_from": str | None,
        "resume": str | None,
        "overwrite": bool,
        "paths.data_dir": str,
        "paths.run_dir": str,
    },
    "evaluate": {
        "model_file": str,
        "manifest": str,
        "name": str | int | float,
        "title": str | int | float,
        "batch_duration_s": float,
        "device": str,
        "unit": Literal["word", "character"] | None,
        "slice_by": Sequence[str],
        "calibration": str | None,
        "fit_calibration": str | None,
        "worst": int,
        "report.listen": int,
        "report.audio": Literal["opus", "wav"],
        "report.max_mb": float,
        "paths.data_dir": str,
        "paths.run_dir": str,
    },
}


def conf_dir() -> Path:
    """Find the folder of configs: inside the installed package, else beside it in a checkout.

    Raises:
        FileNotFoundError: where neither exists, that is, the installation is damaged.
    """
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "train.yaml").is_file():
            return folder
    raise FileNotFoundError(2, "the configs that ship with asr are missing", str(package / "conf"))


@cache
def config_groups() -> dict[str, tuple[str, ...]]:
    """List the options of every group of conf/ (`model`, `augment/noise`), by its name.

    A file whose name begins with `_` is no option: others build on it.
    """
    root = conf_dir()
    return {
        folder.relative_to(root).as_posix(): tuple(
            sorted(f.stem for f in folder.glob("[!_]*.yaml"))
        )
        for folder in sorted(root.glob("**/"))
        if folder != root
    }


@dataclass
class Node:
    """A node of the tree of a config: a value, or a section with more of them.

    Attributes:
        value: as it stands in the file; None for a section.
        comment: beside it, or in the lines above it.
        parts: the settings of a section, by name.
    """

    value: str | None = None
    comment: str = ""
    parts: dict[str, Node] = field(default_factory=dict)

    def merge(self, later: Node) -> None:
        """Take over what a later file says of the same thing."""
        self.comment = self.comment or later.comment
        if later.value is not None:
            self.value, self.parts = later.value, {}
            return
        self.value = None
        for name, part in later.parts.items():
            self.parts.setdefault(name, Node()).merge(part)

    def find(self, key: str) -> Node | None:
        """Find what a dotted key leads to."""
        found: Node | None = self
        for name in key.split("."):
            found = found and found.parts.get(name)
        return found

    def leaves(self, prefix: str = "") -> Iterator[tuple[str, Node]]:
        """Give every value below, with its dotted key."""
        for name, part in self.parts.items():
            if part.value is None:
                yield from part.leaves(f"{prefix}{name}.")
            else:
                yield f"{prefix}{name}", part


@dataclass(frozen=True)
class ConfigFile:
    """A file of conf/.

    Attributes:
        name: below conf/, without the suffix: `train`, `model/bilstm_ctc_small`.
        about: what it is, in a line.
        package: where its settings stand in the whole config, dotted; empty for the top.
        defaults: what it builds on: pairs of a group, empty for that of the file, and an option.
        settings: its own.
    """

    name: str
    about: str
    package: str
    defaults: list[tuple[str, str | None]]
    settings: Node


@cache
def read_config(name: str) -> ConfigFile:
    """Read a file of conf/ by its name."""
    text = (conf_dir() / f"{name}.yaml").read_text(encoding="utf-8")
    lines = text.splitlines()
    head = list(takewhile(lambda line: line.startswith("#"), lines))
    package = name.rpartition("/")[0].replace("/", ".")
    if head and head[0].startswith(PACKAGE):
        package = head.pop(0).removeprefix(PACKAGE).replace("_global_", "")
    # What a file says of itself, its own command and what comes before it left aside.
    texts = (re.sub(r"^asr \w+ [^:]*:?", "", line.strip("# ")).strip() for line in head)
    about = next((text for text in texts if text and not text.startswith("after:")), "")
    settings, defaults = Node(), []
    root = yaml.compose(text, Loader=LOADER)
    for key, node in root.value if root else ():
        if key.value != "defaults":
            settings.parts[key.value] = _read_node(key, node, text, lines)
            continue
        for entry in node.value:
            if isinstance(entry, yaml.ScalarNode):
                defaults.append(("", entry.value))
            else:
                ((group, option),) = entry.value
                defaults.append((group.value, None if option.value == "null" else option.value))
    return ConfigFile(name, about, package, defaults, settings)


def _read_node(key: Any, node: Any, text: str, lines: list[str]) -> Node:
    """Read what stands behind a key, with the comment beside it or in the lines above it."""
    is_block = isinstance(node, yaml.CollectionNode) and not node.flow_style
    end = key.end_mark if is_block else node.end_mark
    beside = re.fullmatch(r":?\s*#\s*(.*)", lines[end.line][end.column :])
    before = lines[: key.start_mark.line]
    above = list(takewhile(lambda line: line.lstrip().startswith("#"), reversed(before)))
    if len(above) == len(before):
        above = []  # it is what the file begins with
    comment = beside[1] if beside else " ".join(line.strip(" #") for line in reversed(above))
    if isinstance(node, yaml.MappingNode) and node.value:
        parts = {name.value: _read_node(name, each, text, lines) for name, each in node.value}
        return Node(None, comment, parts)
    items = node.value if is_block else [node]
    values = [text[each.start_mark.index : each.end_mark.index] for each in items]
    return Node(f"[{', '.join(values)}]" if is_block else values[0] or "null", comment)


@dataclass(frozen=True)
class Composed:
    """The settings of a command.

    Attributes:
        settings: all of them.
        choices: by group, the option that was taken; None for none.
    """

    settings: Node
    choices: dict[str, str | None]


def compose(command: str, chosen: Mapping[str, str | None]) -> Composed:
    """Compose the settings of a command as Hydra does, its own (`hydra.`) left aside.

    Args:
        command: with a file in conf/, "train" for instance.
        chosen: options by group, in the place of those of the files.

    Raises:
        OSError: an option that there is not.
    """
    return _compose(command, tuple(chosen.items()))


@cache
def _compose(command: str, chosen: tuple[tuple[str, str | None], ...]) -> Composed:
    overridden, choices = dict(chosen), dict[str, str | None]()
    settings = Node()
    for file in _files(command, overridden, choices):
        place = settings
        for name in filter(None, file.package.split(".")):
            place = place.parts.setdefault(name, Node())
        place.merge(file.settings)
    settings.parts.pop("hydra", None)
    return Composed(settings, dict(reversed(choices.items())))


def _files(
    name: str, overridden: dict[str, str | None], choices: dict[str, str | None]
) -> list[ConfigFile]:
    """Read a file and those that it builds on, in the order in which they are merged.

    What a file overrides holds for all that is listed before it, so the last ones are read first;
    and the first choice holds, for the command line comes before any file.
    """
    file = read_config(name)
    folder = name.rpartition("/")[0]

    def full(group: str) -> str:
        return group[1:] if group.startswith("/") else f"{folder}/{group}".strip("/")

    entries = [each for each in file.defaults if not each[0].startswith(OVERRIDE)]
    for group, option in file.defaults:
        if group.startswith(OVERRIDE):
            overridden.setdefault(full(group.removeprefix(OVERRIDE)), option)
    if ("", "_self_") not in entries:
        entries.insert(0, ("", "_self_"))
    files: list[ConfigFile] = []
    for entry, default in reversed(entries):
        if default == "_self_":
            files.insert(0, file)
            continue
        group, option = full(entry), default
        if group.startswith("hydra"):
            continue
        if entry:
            option = choices[group] = overridden.get(group, default)
        if option is not None:
            files[:0] = _files(f"{group}/{option}".strip("/"), overridden, choices)
    return files
