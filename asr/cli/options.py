"""What all command lines have in common: no abbreviations, and a mistake is one line."""

from __future__ import annotations

import argparse
import re
from typing import Any, NoReturn

from asr.untrusted import nearest

QUOTE = "'"
KINDS = {"int": "a whole number", "float": "a number"}


class Parser(argparse.ArgumentParser):
    """The arguments of a command, with `--debug` and `--help`.

    A mistake is a ValueError in one line; a misspelt option or choice is told with the nearest one.

    Args:
        settings: as of argparse.ArgumentParser.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, **settings)
        if self.add_help:
            self.add_argument("--debug", action="store_true", help="show the traceback of an error")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As of argparse, after a look for options that there are not.

        Raises:
            ValueError: there is such an option, of which argparse would say nothing as long as a
                required one is missing.
        """
        # argparse has no public way to list options and choices (python/cpython#125363).
        actions = self._actions
        known = [name for action in actions for name in action.option_strings]
        has_commands = any(isinstance(action.choices, dict) for action in actions)
        for word in args:
            name = word.partition("=")[0]
            if word == "--" or (has_commands and not word.startswith("-")):
                break
            if re.match(r"--?[A-Za-z]", name) and name not in known:
                self.error(f"unknown option {name}: {nearest(name, known)}")
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Tell of a mistake.

        Raises:
            ValueError: always, with argparse's message in this program's words.
        """
        if found := re.fullmatch(
            r"argument (.+): invalid choice: (.+) \(choose from (.+)\)", message
        ):
            name, value, choices = found.groups()
            known = [choice.strip(QUOTE) for choice in choices.split(", ")]
            message = f"{name} is {value}: {nearest(value.strip(QUOTE), known)}"
        elif found := re.fullmatch(r"the following arguments are required: (.+)", message):
            message = f"missing: {found[1]}"
        elif found := re.fullmatch(r"argument (.+): invalid (int|float) value: (.+)", message):
            message = f"{found[1]} is {found[3]}, expected {KINDS[found[2]]}"
        raise ValueError(f"{message} ({self.prog} --help)")
