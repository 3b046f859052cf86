"""asr completion: let the shell complete commands, options, groups and settings."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Literal, get_args, get_origin

from asr.cli.conf import compose, config_groups
from asr.cli.main import COMMANDS, HYDRA_COMMANDS, command_module
from asr.cli.options import Parser
from asr.cli.overrides import FLAGS, WITH_VALUE, chosen_options, kind_of

# Bash asks with the line up to the cursor, and the word as it parts it: at = and :, mostly. What
# is to be continued gets no space behind it; where nothing comes back, bash offers files.
BASH = """\
_asr() {
    local IFS=$'\\n'
    COMPREPLY=($(asr completion bash --line="${COMP_LINE:0:COMP_POINT}" --word="$2" 2>/dev/null))
    [[ ${COMPREPLY[0]-} == *[=.] ]] && compopt -o nospace
    return 0
}
complete -o default -F _asr asr
"""


def main(arguments: list[str]) -> int:
    """Print the shell's part, or what it asks for."""
    options = make_parser().parse_args(arguments)
    if options.line is None:
        print(BASH, end="")
        return 0
    words = options.line.split()[1:] + ([""] if options.line.endswith(" ") else [])
    *before, current = words or [""]
    for found in sorted({each for each in candidates(before, current) if each.startswith(current)}):
        print(found[len(current) - len(options.word) :])
    return 0


def make_parser() -> Parser:
    """Define the arguments of the command."""
    parser = Parser(
        prog="asr completion",
        description="Print what lets a shell complete commands, options, groups of settings, "
        'settings and files. For the bash at hand: eval "$(asr completion bash)"; for all that '
        "come: asr completion bash > ~/.local/share/bash-completion/completions/asr",
    )
    parser.add_argument("shell", choices=("bash",), help="the shell")
    parser.add_argument("--line", help=argparse.SUPPRESS)
    parser.add_argument("--word", default="", help=argparse.SUPPRESS)
    return parser


def candidates(before: Sequence[str], current: str) -> Iterator[str]:
    """Find what a word may become; nothing where it is a file or anything.

    Args:
        before: the words between the program's name and the word, the command first.
        current: the word as far as it is written.
    """
    if not before:
        yield from (*COMMANDS, "--help", "--version")
    elif before[0] in HYDRA_COMMANDS:
        yield from _of_settings(before[0], before[1:], current)
    elif before[0] in COMMANDS:
        yield from _of_arguments(command_module(before[0]).make_parser(), before[1:], current)


def _of_settings(command: str, before: Sequence[str], current: str) -> Iterator[str]:
    if current.startswith("-"):
        yield from (name for name in ("--debug", *WITH_VALUE, *FLAGS) if name.startswith("--"))
        return
    try:
        composed = compose(command, chosen_options(before)[0])
    except ValueError:  # an option that there is not, which is told once the line is run
        composed = compose(command, {})
    prefix = current[: len(current) - len(current.lstrip("+~"))]
    key, equals, _ = current.removeprefix(prefix).partition("=")
    if equals:
        kind = kind_of(command, key, composed.settings)
        values = config_groups().get(key, get_args(kind) if get_origin(kind) is Literal else ())
        for value in ("true", "false") if kind is bool else values:
            yield f"{prefix}{key}={value}"
        return
    yield from (f"{prefix}{group}=" for group in composed.choices)
    for leaf, _ in composed.settings.leaves():
        name, dot, _ = leaf[len(key) :].partition(".")
        if leaf.startswith(key) and not leaf.rpartition(".")[2].startswith("_"):
            yield f"{prefix}{key}{name}{dot or '='}"


def _of_arguments(parser: Parser, before: Sequence[str], current: str) -> Iterator[str]:
    commands = next((each for each in parser.arguments if isinstance(each.choices, dict)), None)
    if commands is not None and isinstance(commands.choices, dict):
        for place, word in enumerate(before):
            if word in commands.choices:
                yield from _of_arguments(commands.choices[word], before[place + 1 :], current)
                return
    name, equals, _ = current.partition("=")
    asked = name if equals else before[-1] if before else ""
    for argument in parser.arguments:
        if asked in argument.option_strings and argument.nargs != 0:
            start = f"{name}=" if equals else ""
            yield from (f"{start}{choice}" for choice in argument.choices or ())
            return
    if current.startswith("-"):
        for argument in parser.arguments:
            if argument.help != argparse.SUPPRESS:
                yield from argument.option_strings
    elif commands is not None:
        yield from commands.choices or ()
