"""asr bench: do again what a recipe publishes, and say whether the figures agree.

Each command runs in a process of its own, as it does where somebody types it: Hydra, logging, the
random state and memory begin afresh, and Ctrl-C reaches the training, which saves its state.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from asr.atomic_file import replace_text
from asr.cli.main import USER_ERROR_STATUS
from asr.cli.options import Parser
from asr.cli.published import (
    FILE,
    HYDRA_COMMANDS,
    Figure,
    Published,
    check_words,
    describe,
    find_recipe,
    read_published,
    recipe_names,
    recipes_dir,
)
from asr.cli.terminal import print_table, say, tell
from asr.lock import locked
from asr.text import printable
from asr.untrusted import read_json, record

if TYPE_CHECKING:
    from asr.report.evaluation import Evaluation

STATE_FILE, LOCK_FILE = "bench.json", ".lock"  # in the folder of a bench
MAX_STATE_BYTES = 1 << 20
WORSE_STATUS = 1
STOPPED_STATUSES = (75, 130)  # of a command that was asked to stop: saved, interrupted


@dataclass(frozen=True)
class State:
    """How far a bench is, as its folder has it.

    Attributes:
        commands: all of them, as they are run.
        overrides: of the trainings, that the recipe does not have.
        data: folder of the corpus; None where none was named.
        seconds: what each command took that is done, in their order.
        spent: on the next one before it was stopped [s].
        results: what came out, by test; none before the end.
    """

    commands: tuple[tuple[str, ...], ...]
    overrides: tuple[str, ...]
    data: str | None
    seconds: tuple[float, ...] = ()
    spent: float = 0.0
    results: tuple[Result, ...] = ()

    def write(self, folder: Path) -> None:
        """Save it."""
        replace_text(folder / STATE_FILE, json.dumps(asdict(self), indent=1) + "\n")


@dataclass(frozen=True)
class Result:
    """A figure beside the one that was obtained.

    Attributes:
        test: what it was measured on.
        published_percent: word error rate [%].
        wer_percent: the one that was obtained [%].
        interval_percent: its bootstrap interval; empty where there is none [%].
        verdict: "agrees", "better", "worse", or why that cannot be said.
    """

    test: str
    published_percent: float
    wer_percent: float
    interval_percent: tuple[float, ...]
    verdict: str


def main(arguments: list[str]) -> int:
    """Bench a recipe, or list those there are.

    Returns:
        0; 1 where a figure is worse than published; 2 where a command failed; 75 or 130 where it
        was stopped, and goes on when it is started again.
    """
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    options, overrides = make_parser().parse_args(arguments[:cut]), arguments[cut + 1 :]
    if options.list:
        return _list()
    if options.recipe is None:
        raise ValueError("no recipe, expected its name, or --list (asr bench --help)")
    source = find_recipe(options.recipe)
    published = read_published(source)
    check_words(published, source / FILE)
    folder = options.output or Path("runs") / "bench" / source.name
    state, is_begun = _begin(published, folder, options.data, overrides, options.overwrite)
    with locked(folder / LOCK_FILE, "benches in this folder now", unlockable=tell):
        state.write(folder)
        status = _run_all(state, folder, is_begun)
        if status:
            return status
        return _compare(published, folder)


def _begin(
    published: Published,
    folder: Path,
    data: Path | None,
    overrides: Sequence[str],
    overwrite: bool,
) -> tuple[State, bool]:
    """Make the state of a new bench, or read that of one that was stopped.

    Returns:
        The state, and whether it was there.
    """
    path = folder / STATE_FILE
    earlier = None
    if path.is_file():
        earlier = record(State, read_json(path, "the state of a bench", MAX_STATE_BYTES), path)
    elif folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder}: holds other things than a bench, expected another --output")
    if earlier is not None and not overwrite and data is None and earlier.data is not None:
        data = Path(earlier.data)
    if data is not None and published.data == "none":
        raise ValueError("--data has no effect with this recipe, which brings its corpus along")
    if data is None and published.data == "needed":
        raise ValueError(f"--data is missing, expected {published.data_folder}")
    if data is not None and not data.exists():
        raise FileNotFoundError(2, f"no such file, expected {published.data_folder}", str(data))
    data = data and data.resolve()
    commands = tuple(
        (*words, *overrides) if words[0] == "train" else tuple(words)
        for words in published.with_data(data)
    )
    for command, *words in commands:
        _check(command, words)
    state = State(commands, tuple(overrides), None if data is None else str(data))
    if earlier is None:
        folder.mkdir(parents=True, exist_ok=True)
        return state, False
    if overwrite:
        shutil.rmtree(folder / "runs", ignore_errors=True)
        return state, False
    if earlier.results:
        raise ValueError(
            f"{folder} holds a finished bench, expected --overwrite to begin anew, or another "
            "--output"
        )
    if (earlier.commands, earlier.overrides) != (state.commands, state.overrides):
        raise ValueError(
            f"{folder} holds a bench of other commands, expected the same ones to go on, "
            "--overwrite to begin anew, or another --output"
        )
    return earlier, True


def _check(command: str, words: list[str]) -> None:
    """Tell a misspelt setting before hours of work."""
    if command in HYDRA_COMMANDS:
        from asr.cli.overrides import check_overrides

        check_overrides(command, words)
    else:
        from asr.cli import lexicon, lm

        {"lexicon": lexicon, "lm": lm}[command].make_parser().parse_args(words)


# --- running -------------------------------------------------------------------------------------


def _run_all(state: State, folder: Path, is_begun: bool) -> int:
    """Run what is not done yet; 0, or the status with which to end."""
    total = len(state.commands)
    if is_begun:
        tell(f"going on with the bench in {folder}: {len(state.seconds)} of {total} commands done")
    for number in range(len(state.seconds), total):
        words = list(state.commands[number])
        if is_begun and words[0] == "train":
            words.append("resume=auto")
        is_begun = False  # what follows begins
        tell(f"{number + 1} of {total}: {describe(words)}")
        begin = time.monotonic()
        try:
            status = _run(words, folder)
        finally:
            spent = state.spent + time.monotonic() - begin
            state = replace(state, spent=spent)
            state.write(folder)
        if status in STOPPED_STATUSES:
            tell("stopped: the same command goes on from here")
            return status
        if status:
            tell(f"error: asr {words[0]} ended with status {status}, see above; {folder} is kept")
            return USER_ERROR_STATUS
        state = replace(state, seconds=(*state.seconds, round(spent, 1)), spent=0.0)
        state.write(folder)
    return 0


def _run(words: Sequence[str], folder: Path) -> int:
    """Run `asr WORDS` in a folder, and pass on what asks this process to stop."""
    from asr.cli.processes import SAME_PROGRAM

    sys.stdout.flush()
    with subprocess.Popen([sys.executable, *SAME_PROGRAM, *words], cwd=folder) as child:

        def pass_on(number: int, frame: FrameType | None) -> None:
            # A terminal's Ctrl-C has reached the child, too: it would take a second one for haste.
            if number != signal.SIGINT:
                child.send_signal(number)

        before = {
            each: signal.signal(each, pass_on)
            for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
            if signal.getsignal(each) is not signal.SIG_IGN
        }
        try:
            status = child.wait()
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)
    return status if status >= 0 else 128 - status  # as a shell tells a signal


# --- what came out -------------------------------------------------------------------------------


def _compare(published: Published, folder: Path) -> int:
    """Print the published figures beside those that were obtained."""
    from asr.report.evaluation_file import read_evaluation

    state = record(
        State, read_json(folder / STATE_FILE, "a bench", MAX_STATE_BYTES), folder / STATE_FILE
    )
    results = tuple(
        judge(
            figure,
            read_evaluation(folder / "runs" / "evaluate" / figure.evaluation / "evaluation.json"),
            state.overrides,
        )
        for figure in published.figures
    )
    replace(state, results=results).write(folder)
    from rich.table import Table

    table = Table("test", "published WER", "obtained WER", "95 % interval", "")
    for each in results:
        ends = ", ".join(f"{end:.2f}" for end in each.interval_percent)
        table.add_row(
            printable(each.test),
            f"{each.published_percent:g} %",
            f"{each.wer_percent:.2f} %",
            f"[{ends}]" if ends else "none",
            each.verdict,
        )
    print_table(table)
    seconds = sum(
        took
        for words, took in zip(state.commands, state.seconds, strict=True)
        if words[0] == "train"
    )
    say(
        f"training: {seconds / 60:.1f} min here; {published.training_minutes:g} min as published, "
        f"{published.date}, on {published.machine}"
    )
    say(f"whole: {sum(state.seconds) / 60:.1f} min; reports: {folder / 'runs' / 'evaluate'}")
    return WORSE_STATUS if any(each.verdict == "worse" for each in results) else 0


def judge(figure: Figure, evaluation: Evaluation, overrides: Sequence[str] = ()) -> Result:
    """Hold an evaluation against the figure that was published.

    It agrees where the published rate lies within the interval of the one obtained, which tells how
    much the choice of the test's utterances matters; another training's luck comes on top of it.

    Args:
        figure: as published.
        evaluation: of what was trained anew.
        overrides: with which the training was another than the published one.
    """
    counts, interval = evaluation.words, evaluation.intervals.words
    ends = () if interval is None else (100 * interval.low, 100 * interval.high)
    wer = 100 * counts.rate
    if overrides:
        verdict = f"not comparable: {describe(overrides).removeprefix('asr ')}"
    elif counts.reference_length != figure.words:
        verdict = (
            f"not comparable: {counts.reference_length:,} words, published of {figure.words:,}"
        )
    elif not ends:
        verdict = "no interval to judge by"
    elif ends[0] <= figure.wer_percent <= ends[1]:
        verdict = "agrees"
    else:
        verdict = "better" if ends[1] < figure.wer_percent else "worse"
    rounded = tuple(round(end, 3) for end in ends)
    return Result(figure.test, figure.wer_percent, round(wer, 3), rounded, verdict)


def _list() -> int:
    """Print what the recipes publish."""
    names = recipe_names()
    if not names:
        raise ValueError(f"{recipes_dir()}: no recipes, as they come with a checkout of asr")
    for name in names:
        published = read_published(recipes_dir() / name)
        data = {"none": "", "optional": ", --data can be ", "needed": ", --data has to be "}
        say(f"{name}: {published.about}{data[published.data]}{published.data_folder}")
        for each in published.figures:
            say(f"  WER {each.wer_percent:g} %, {each.test}")
        say(f"  training {published.training_minutes:g} min, {published.date}, {published.machine}")
    return 0


def make_parser() -> Parser:
    """Define the arguments of the command."""
    parser = Parser(
        prog="asr bench",
        usage="asr bench RECIPE [--data FOLDER] [--output FOLDER] [-- KEY=VALUE ...]\n"
        "       asr bench --list",
        description="Do again what a recipe publishes: prepare, train, evaluate, with its own "
        "commands, and hold the error rates against the published ones. What was stopped goes on "
        "when the same command is given again.",
        epilog="KEY=VALUE behind -- are settings of the training, trainer.max_epochs=1 for a "
        "trial: then the figures are not comparable. Exit status: 0 done, 1 a figure is worse than "
        "published, 2 a command failed, 75 or 130 stopped.",
    )
    parser.add_argument("recipe", nargs="?", help="its name in recipes/, or its folder")
    parser.add_argument("--list", action="store_true", help="show the recipes and what they take")
    parser.add_argument(
        "--data", type=Path, metavar="FOLDER", help="where the corpus lies, as --list says"
    )
    parser.add_argument(
        "--output", type=Path, metavar="FOLDER",
        help="where all that is made goes; default: runs/bench/RECIPE",
    )  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="begin anew, though one is there")
    return parser
