"""Explain and check what a command of Hydra's takes, KEY=VALUE, before Hydra starts.

Also what stands in a record or a recipe in the place of a command line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asr.cli.build import BUILDABLE
from asr.cli.conf import KINDS, MISSING, Composed, Node, compose, config_groups, read_config
from asr.cli.decoder import own_decoder
from asr.decoder_file import settings_of
from asr.signatures import Parameter
from asr.untrusted import checked, nearest, shown
from asr.user_yaml import REFERENCE

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

# Hydra's options; those with a value, and those without.
WITH_VALUE = (
    "--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn",
    "--config-dir", "-cd", "--experimental-rerun", "--info", "-i",
)  # fmt: skip
FLAGS = (
    "--help", "-h", "--hydra-help", "--version", "--resolve", "--run", "-r", "--multirun", "-m",
    "--shell-completion", "-sc",
)  # fmt: skip
# With these nothing runs, or what runs is not in conf/.
UNCHECKED = {
    "--hydra-help", "--version", "--cfg", "-c", "--info", "-i", "--experimental-rerun",
    "--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd", "--shell-completion",
    "-sc",
}  # fmt: skip
EXAMPLES = {
    "prepare": ("corpus=digits_synthetic", "corpus=manifest corpus.name=mine corpus.source=FOLDER"),
    "train": (
        "experiment=digits_demo",
        "data.train=train.jsonl data.dev=dev.jsonl name=first",
        "experiment=digits_demo model=bilstm_ctc_medium optim.lr=0.001 name=larger",
        "experiment=digits_demo seed=0,1,2 name=seeds --multirun",
        "resume=runs/train/first",
    ),
    "evaluate": (
        "model_file=runs/train/first/best.safetensors manifest=test.jsonl",
        "model_file=MODEL manifest=test.jsonl decoder=beam_ngram decoder.language_model=LM",
    ),
}
PREFIXED = re.compile(r"(?P<prefix>~|\+\+|\+)?(?P<key>[\w./-]+)(?:=(?P<value>.*))?", re.DOTALL)
# Values that Hydra reads as these types, whatever surrounds them.
SCALARS: tuple[tuple[str, Any], ...] = (
    (r"(?i:null)", lambda text: None),
    (r"(?i:true|false)", lambda text: text.lower() == "true"),
    (r"[+-]?(0|[1-9]\d*)", int),
    (r"[+-]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][+-]?\d+)?", float),
    (r"(?!(?i:inf|nan)$)[A-Za-z_]+", str),
)
NAME = re.compile(r"[\w-]+(/[\w-]+)*")  # of an option
KEY = re.compile(r"\w+([./]\w+)*")


def explain(command: str, what: str, words: Sequence[str]) -> str:
    """Write the text of `asr COMMAND --help`: its groups, settings with comments, and examples.

    Args:
        command: one of Hydra's.
        what: it does.
        words: of the command line; options that they choose are those whose settings are shown.

    Raises:
        ValueError: an option that there is not.
    """
    # What another folder of configs has cannot be told from here.
    chosen = {} if UNCHECKED & set(words) else chosen_options(words)[0]
    composed = compose(command, chosen)
    lines = [
        f"usage: asr {command} [GROUP=OPTION | KEY=VALUE ...]", "", f"{what.capitalize()}.", "",
        *(f"  asr {command} {example}" for example in EXAMPLES[command]), "",
        "groups: choose a file conf/GROUP/OPTION.yaml; * is taken where you choose none",
    ]  # fmt: skip
    for group, taken in composed.choices.items():
        for option in config_groups()[group]:
            mark = "*" if option == taken else " "
            about = read_config(f"{group}/{option}").about
            lines.append(_line(f"{mark} {group}={option}", about))
    lines += ["", f"settings, and the values that they have; you have to give those of {MISSING}"]
    for key, setting in composed.settings.leaves():
        if not key.rpartition(".")[2].startswith("_"):
            lines.append(_line(f"  {key}={setting.value}", setting.comment))
    lines += [
        "", "options",
        _line("  --multirun", "run every combination of KEY=VALUE,VALUE,..."),
        _line("  --cfg job", "print the settings instead of running"),
        _line("  --debug", "show the traceback of an error"),
        _line("  --hydra-help", "what else Hydra takes"),
    ]  # fmt: skip
    return "\n".join(lines)


def _line(left: str, comment: str) -> str:
    return f"{left:<38}  {comment}".rstrip()


def chosen_options(words: Sequence[str]) -> tuple[dict[str, str | None], bool]:
    """Find the options that words choose, by group; and whether each is one file of conf/.

    Raises:
        ValueError: an option that there is not.
    """
    chosen: dict[str, str | None] = {}
    are_files = True
    for word in words:
        found = PREFIXED.fullmatch(word)
        group = found["key"] if found else ""
        options = config_groups().get(group, ())
        if not found or not options or found["value"] is None or found["prefix"] == "~":
            continue
        names = found["value"].split(",")
        are_files = are_files and len(names) == 1  # else each job of a multirun has its own
        for name in names:
            if not NAME.fullmatch(name):
                are_files = False  # a decoder file, or several in a list
            elif name in (*options, "null"):
                chosen[group] = None if name == "null" else name
            else:
                raise ValueError(
                    f"{group}={name}: no conf/{group}/{name}.yaml, {nearest(name, options)}"
                )
    return chosen, are_files


def parted(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Part the words of a command line into Hydra's options, with their values, and the settings.

    Raises:
        ValueError: an option that Hydra does not have.
    """
    options: list[str] = []
    settings: list[str] = []
    takes_value = False
    for word in words:
        name = word.partition("=")[0]
        if takes_value or word.startswith("-"):
            if not takes_value and name.startswith("--") and name not in WITH_VALUE + FLAGS:
                known = [each for each in WITH_VALUE + FLAGS if each.startswith("--")]
                raise ValueError(f"unknown option {name}: {nearest(name, known)}")
            options.append(word)
            takes_value = not takes_value and word in WITH_VALUE
        else:
            settings.append(word)
    return options, settings


def check_overrides(command: str, words: Sequence[str]) -> None:
    """Refuse what can be seen to be wrong without composing: names, and values of a wrong type.

    What is left over is for Hydra to judge: what Hydra would take is never refused.

    Args:
        command: one of Hydra's.
        words: of its command line.

    Raises:
        ValueError: a word that is no option and no KEY=VALUE, a group, an option of a group or a
            setting that there is not, a value that cannot be, or none where one has to be given.
    """
    options, settings = parted(words)
    for word in settings:
        if "=" not in word and not word.startswith("~"):
            raise ValueError(f"{word}: no KEY=VALUE, expected one (asr {command} --help)")
    is_checked = not UNCHECKED & {word.partition("=")[0] for word in options}
    if not is_checked or any(re.match(r"resume=(?!null$|auto$|$)", word) for word in settings):
        return  # the settings of another training come first
    chosen, are_files = chosen_options(settings)
    # The settings of a decoder file, or of a model's own, are not those of conf/.
    if not are_files or (command == "evaluate" and own_decoder(settings)):
        return
    composed = compose(command, chosen)
    given: set[str] = set()
    for word in settings:
        found = PREFIXED.fullmatch(word)
        if not found or found["key"].startswith("hydra"):
            return  # of which only Hydra knows the meaning
        if found["key"] not in config_groups():
            given.add(found["key"])
        if not found["prefix"]:
            _check_key(command, found["key"], composed)
            text = found["value"] or ""
            read = next((read for pattern, read in SCALARS if re.fullmatch(pattern, text)), None)
            if read is not None:
                kind = kind_of(command, found["key"], composed.settings)
                checked(read(text), kind, found["key"])
    for key, setting in composed.settings.leaves():
        parents = [key.rsplit(".", count)[0] for count in range(key.count(".") + 1)]
        if setting.value == MISSING and not given & {key, *parents}:
            raise ValueError(f"{key} is missing, expected {key}=VALUE")


def _check_key(command: str, key: str, composed: Composed) -> None:
    """Refuse a group or a setting that there is not among those that were composed."""
    if key in composed.choices:
        return
    if key in config_groups():
        outer = key.rpartition("/")[0]
        takers = [
            f"{outer}={option}"
            for option in config_groups().get(outer, ())
            if outer in composed.choices and key in compose(command, {outer: option}).choices
        ]
        hint = " or ".join(takers) if takers else f"one of {', '.join(composed.choices)}"
        raise ValueError(f"{key}: no group of asr {command} as it is set, expected {hint}")
    parent, _, name = key.rpartition(".")
    section = composed.settings.find(parent) if parent else composed.settings
    if composed.settings.find(key) or section is None or section.value is not None:
        return  # there, or inside of something that holds any names
    leaves = [leaf for leaf, _ in composed.settings.leaves()]
    elsewhere = [leaf for leaf in leaves if leaf.endswith(f".{name}")]
    prefix = f"{parent}." if parent else ""
    known = [each for each in section.parts if not each.startswith("_")]
    if not parent:
        known = list(dict.fromkeys([*known, *composed.choices]))
    if name in _parameters(section):
        hint = f"did you mean +{key}?"  # which conf/ leaves to the constructor
    elif elsewhere:
        hint = f"did you mean {elsewhere[0]}?"
    elif with_it := _options_with(key, parent, command):
        hint = f"{parent}={composed.choices[parent]} has none, expected it beside {with_it}"
    elif known:
        hint = nearest(name, known, prefix)
    else:
        chosen = composed.choices.get(parent)
        hint = f"{parent}={chosen} has no settings" if chosen else f"{parent} has no settings"
    raise ValueError(f"unknown setting {key}: {hint}")


def _parameters(section: Node | None) -> dict[str, Parameter]:
    """Read what the class of a section takes; nothing where it has none."""
    name = section.parts.get("_target_", Node()).value if section else None
    return settings_of(name) if name in BUILDABLE and name else {}


def kind_of(command: str, key: str, settings: Node) -> Any:
    """Find the type of a setting; Any where it has none."""
    parent, _, name = key.rpartition(".")
    parameter = _parameters(settings.find(parent)).get(name)
    return KINDS[command].get(key, parameter.kind if parameter else Any)


def _options_with(key: str, group: str, command: str) -> str:
    """Name the options of a group that have a setting, as `decoder=beam or decoder=lexicon`."""
    return " or ".join(
        f"{group}={option}"
        for option in config_groups().get(group, ())
        if compose(command, {group: option}).settings.find(key) is not None
    )


# --- words that stand in a file ------------------------------------------------------------------


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
        if all(name is None or NAME.fullmatch(str(name)) for name in names):
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
