"""What a recipe publishes, for programs: its commands, its figures, and what they took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import asr
from asr.untrusted import record, shown

FILE = "bench.yaml"  # in a recipe's folder
DATA = "{data}"  # in a word of a command, for the folder of the corpus
HYDRA_COMMANDS = ("prepare", "train", "evaluate")
COMMANDS = (*HYDRA_COMMANDS, "lexicon", "lm")  # no others are run


@dataclass(frozen=True)
class Figure:
    """A published error rate.

    Attributes:
        test: what it was measured on.
        evaluation: `name=` of the asr evaluate that measures it.
        wer_percent: the word error rate [%].
        words: of the test's references: another count is another test.
    """

    test: str
    evaluation: str
    wer_percent: float
    words: int


@dataclass(frozen=True)
class Published:
    """What stands in a recipe's bench.yaml.

    Attributes:
        about: what the recipe is, in a line.
        commands: words behind `asr` of each, in their order.
        figures: at least one.
        date: of the measurement.
        machine: that it was made on.
        training_minutes: that its trainings took there.
        data: whether the folder of the corpus has to be named: "needed", "optional", or "none"
            where no command takes one.
        data_folder: what that folder is.
    """

    about: str
    commands: tuple[tuple[str, ...], ...]
    figures: tuple[Figure, ...]
    date: str
    machine: str
    training_minutes: float
    data: Literal["none", "optional", "needed"] = "none"
    data_folder: str = ""

    def __post_init__(self) -> None:
        names = [words[0] if words else "" for words in self.commands]
        if unknown := [name for name in names if name not in COMMANDS]:
            raise ValueError(
                f"a command is {shown(unknown[0])}, expected one of {', '.join(COMMANDS)}"
            )
        if "train" not in names:
            raise ValueError("commands have no train, expected one")
        made = {word for words in self.commands if words[0] == "evaluate" for word in words}
        for each in self.figures:
            if f"name={each.evaluation}" not in made:
                raise ValueError(f"no evaluate has name={each.evaluation}, expected one")
        if not self.figures:
            raise ValueError("no figures, expected at least one")
        takes_data = any(DATA in word for words in self.commands for word in words)
        if takes_data != (self.data != "none"):
            raise ValueError(f"data is {self.data}, expected none where no word has {DATA}")

    def with_data(self, folder: Path | None) -> list[list[str]]:
        """Write the commands with the folder of the corpus.

        Without one, words that would name it are left out.
        """
        # Hydra is slow to import, and asr bench --list needs none of it.
        from asr.cli.hydra_app import override

        def fill(command: str, word: str) -> str:
            plain = word.replace(DATA, str(folder))
            if plain == word or command not in HYDRA_COMMANDS:
                return plain
            key, _, value = plain.partition("=")
            return override(key, value)

        return [
            [fill(words[0], word) for word in words if folder is not None or DATA not in word]
            for words in self.commands
        ]


def recipes_dir() -> Path:
    """Name the folder of the checkout's recipes, which an installed asr does not have."""
    return Path(asr.__file__).resolve().parents[1] / "recipes"


def recipe_names() -> list[str]:
    """List the recipes that publish figures."""
    return sorted(file.parent.name for file in recipes_dir().glob(f"*/{FILE}"))


def find_recipe(name: str) -> Path:
    """Find the folder of a recipe by its name or path.

    Raises:
        ValueError: there is none.
    """
    for folder in (Path(name), recipes_dir() / name):
        if (folder / FILE).is_file():
            return folder.resolve()
    names = recipe_names()
    known = f"one of {', '.join(names)}, or" if names else "as recipes come with a checkout of asr"
    raise ValueError(f"{name}: no recipe with a {FILE}, expected {known} a folder that has it")


def read_published(folder: Path) -> Published:
    """Read a recipe's bench.yaml: plain values, and words that may set what a user may set.

    Raises:
        ValueError: other content, another command, or a setting that is not taken from a file.
        OSError: missing or unreadable.
    """
    from asr.user_yaml import read_settings

    path = folder / FILE
    settings: Any = read_settings(path, "what a recipe publishes")
    return record(Published, settings, path)


def check_words(published: Published, path: Path) -> None:
    """Refuse commands with more than plain settings, for a file may come from anywhere.

    Raises:
        ValueError: a word that chooses Hydra's own settings, a class or a look-up, or that names a
            file outside the folders of the bench and of the corpus.
    """
    from asr.cli.conf import config_groups
    from asr.cli.overrides import plain_override

    for command, *words in published.commands:
        for word in words:
            plain = word.replace(DATA, "data")
            if command in HYDRA_COMMANDS:
                plain_override(plain, config_groups(), path)
                continue
            file = Path(plain.partition("=")[2] or plain)
            if file.is_absolute() or ".." in file.parts:
                raise ValueError(
                    f"{path}: asr {command} {shown(word)}, expected a file in the folder of the "
                    f"bench or {DATA}"
                )


def describe(words: Sequence[str]) -> str:
    """Write a command as it is typed."""
    import shlex

    return shlex.join(["asr", *words])
