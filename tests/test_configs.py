"""Every file of conf/ by glob: it composes, and what it says to build takes what it is given."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from asr.cli import conf

CONF = Path(__file__).parents[1] / "conf"
COMMANDS = sorted(file.stem for file in CONF.glob("*.yaml"))
OPTIONS = sorted(file.relative_to(CONF).with_suffix("") for file in CONF.glob("*/**/*.yaml"))
EXPERIMENTS = [option.name for option in OPTIONS if option.parts[0] == "experiment"]

# Keys that Hydra itself reads beside _target_.
HYDRA_KEYS = {"_target_", "_partial_", "_convert_", "_recursive_", "_args_"}


@cache
def groups_of(command: str) -> frozenset[str]:
    """The config groups that a command's defaults list names."""
    defaults = OmegaConf.load(CONF / f"{command}.yaml").defaults
    names = (name for entry in defaults if isinstance(entry, DictConfig) for name in entry)
    return frozenset(re.sub(r"^(override |optional )*/?|@.*$", "", str(name)) for name in names)


def owners(group: Path) -> list[list[str]]:
    """The overrides that each bring a group into a config: none, but for a group inside a group."""
    if len(group.parts) == 1:
        return [[]]
    outer = group.parent
    options = [option for option in OPTIONS if option.parent == outer]
    configs = {option: OmegaConf.load(CONF / f"{option}.yaml") for option in options}
    return [
        [f"{outer}={option.name}"]
        for option, config in configs.items()
        for entry in config.get("defaults", ())
        if isinstance(entry, DictConfig) and group.name in entry
    ]


def composed(command: str, *overrides: str) -> DictConfig:
    """The config of a command as its program composes it, and as it is read without Hydra."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose(command, overrides=list(overrides))
    plain = OmegaConf.to_container(config, resolve=False)
    assert isinstance(plain, dict)
    expected = dict(leaves(plain))
    chosen = dict(word.split("=") for word in overrides)
    found = {key: str(each.value) for key, each in conf.compose(command, chosen).settings.leaves()}
    assert list(found) == list(expected)
    for key, value in found.items():
        if "${" not in value or not isinstance(expected[key], list):
            read = OmegaConf.to_container(OmegaConf.create(f"a: {value}"), resolve=False)
            assert read == {"a": expected[key]}, key
    return config


def leaves(settings: dict[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of a plain config with its dotted key."""
    for name, value in settings.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def targets(node: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every mapping with a `_target_` in a plain config, with the path that leads to it."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield path, node
        for key, value in node.items():
            yield from targets(value, f"{path}.{key}".lstrip("."))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from targets(value, f"{path}[{index}]")


def unknown_keys(node: dict[str, Any]) -> set[str]:
    """The keys of a mapping that are no parameter of its `_target_`.

    Raises:
        TypeError: where the target takes **kwargs, for it would swallow a misspelt key.
    """
    parameters = inspect.signature(get_object(node["_target_"])).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        raise TypeError(f"{node['_target_']} takes any keyword, expected named ones only")
    return set(node) - HYDRA_KEYS - set(parameters)


def assert_builds(config: DictConfig) -> None:
    """Fails where a `_target_` of a config does not exist or does not take the keys beside it."""
    plain = OmegaConf.to_container(config, resolve=False)
    faults = {path: unknown_keys(node) for path, node in targets(plain)}
    assert {path: keys for path, keys in faults.items() if keys} == {}


def test_the_commands_have_a_config_each() -> None:
    assert COMMANDS == ["evaluate", "prepare", "train"]


@pytest.mark.parametrize("command", COMMANDS)
def test_command_composes(command: str) -> None:
    assert_builds(composed(command))


@pytest.mark.parametrize("option", [o for o in OPTIONS if o.parts[0] != "experiment"], ids=str)
def test_option_composes_with_every_command_that_has_its_group(option: Path) -> None:
    group = option.parent
    commands = [command for command in COMMANDS if group.parts[0] in groups_of(command)]
    choices = [(command, owner) for command in commands for owner in owners(group)]
    assert choices, f"no command has the group {group}, so conf/{option}.yaml is dead"
    for command, owner in choices:
        assert_builds(composed(command, *owner, f"{group}={option.name}"))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiment_opens_with_its_command_and_composes_with_it(name: str) -> None:
    lines = (CONF / "experiment" / f"{name}.yaml").read_text().splitlines()
    opening = takewhile(lambda line: line.startswith("#"), lines)
    comments = [line for line in opening if not line.startswith("# @package")]
    said = re.match(rf"# asr (\w+) experiment={name}\b", comments[0] if comments else "")
    assert said, f"opens with {comments[:1]}, expected '# asr <command> experiment={name}'"
    assert re.search(r"WER.*\d", " ".join(comments)), "expected the measured WER at the top"
    assert_builds(composed(said[1], f"experiment={name}"))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_what_is_said_first_holds(name: str) -> None:
    """The command line before a file, and the last file of the defaults before the others."""
    composed("train", f"experiment={name}", "model=lstm_ctc_small", "debug=overfit")
    composed("train", f"experiment={name}", "augment=none", "debug=one_batch", "sweep=grid")


@pytest.mark.parametrize("group", ["features", "model", "optim"])
def test_a_misspelt_key_fails_on_the_command_line(group: str) -> None:
    with pytest.raises(ConfigCompositionException, match="no_such_key"):
        composed("train", f"{group}.no_such_key=1")


def test_a_misspelt_key_in_a_file_is_found_in_every_target() -> None:
    plain = OmegaConf.to_container(composed("train"), resolve=False)
    found = list(targets(plain))
    assert found, "expected groups with a _target_"
    for path, node in found:
        assert "no_such_key" in unknown_keys({**node, "no_such_key": 1}), path
