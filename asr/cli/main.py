"""The `asr` program: find the command, run it, turn a user's mistake into one line."""

from __future__ import annotations

import importlib
import io
import os
import sys
import traceback
from types import ModuleType

from asr import __version__
from asr.cli.terminal import one_line, tell
from asr.memory import is_out_of_memory
from asr.untrusted import nearest

# Each command is the module asr.cli.<command>, its hyphens underscores, with `main(arguments) ->
# exit status`. Modules are imported only when asked for: `asr --help` must not wait for torch.
COMMANDS = {
    "prepare": "make manifests from a corpus",
    "shar": "write a manifest as shards, for corpora beyond one disk",
    "doctor": "find what is wrong with manifests and their audio",
    "train": "train a model",
    "runs": "compare trainings: a table, a CSV file, a picture",
    "evaluate": "measure WER and CER on a manifest, write a report",
    "bench": "do again what a recipe publishes, and compare the figures",
    "compare": "tell whether one evaluation is better than another",
    "models": "list the trained models that come with asr",
    "transcribe": "turn recordings into text",
    "serve": "answer requests for transcripts, and live speech, and show a page for both",
    "review": "look through what a model heard, correct it, and learn from it",
    "lm": "train, query and convert n-gram language models",
    "lexicon": "write how the words of texts are said",
    "align": "find when the words of a known text are spoken",
    "tune-decoder": "search the weights of language model and words on dev",
    "average": "make one model of several, the mean of their weights",
    "shrink": "write a model in a quarter of its bytes, to hand it on",
    "export": "write a model as an ONNX file, which runs without torch",
    "completion": "let the shell complete commands, options and settings",
}
HYDRA_COMMANDS = ("prepare", "train", "evaluate")
USER_ERROR_STATUS = 2
OWN_FAULT_STATUS = 70  # EX_SOFTWARE of sysexits.h
HYDRAS_COMPLETION = {"-sc", "--shell-completion"}  # which completes nothing of ours
PARENT = "ASR_PARENT"  # environment of one of several processes: id of the one that started it


def usage() -> str:
    """Write the text of `asr --help`."""
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:<{width}}  {what}" for name, what in COMMANDS.items())
    return (
        "usage: asr COMMAND [ARGUMENTS]\n\n"
        f"{commands}\n\n"
        f"{', '.join(HYDRA_COMMANDS)} take Hydra's KEY=VALUE overrides; all take --help.\n"
        "--debug shows the traceback of an error; --version prints the version."
    )


def main(argv: list[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: arguments without the program's name; None means the process's own.

    Returns:
        The exit status: 0 done, 2 a user's mistake (one line on standard error tells it), 130 an
        interrupt, 70 a fault of this program (a traceback, and whom it is of).
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return 0 if arguments else USER_ERROR_STATUS
    if arguments[0] == "--version":
        print(f"asr {__version__}")
        return 0
    command, *rest = arguments
    debug = "--debug" in rest
    try:
        return _run(command, [word for word in rest if word != "--debug"])
    except KeyboardInterrupt:
        tell("interrupted")
        return 130
    except BrokenPipeError:
        # The reader (`| head`) left; Python would complain once more while flushing at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError, MemoryError) as error:
        if debug:
            traceback.print_exc()
        tell(f"error: {one_line(error)}")
        return USER_ERROR_STATUS
    except Exception as error:
        if is_out_of_memory(error):
            tell("error: not enough memory")
            return USER_ERROR_STATUS
        traceback.print_exc()
        tell(
            f"this is a fault of asr {__version__}, not of yours: please report it, with the "
            "command and the lines above"
        )
        return OWN_FAULT_STATUS


def _run(command: str, arguments: list[str]) -> int:
    completion = HYDRAS_COMPLETION & {command, *arguments}
    if completion and command in (*HYDRA_COMMANDS, *completion):
        word = completion.pop()
        raise ValueError(f'{word}: Hydra\'s completion, expected eval "$(asr completion bash)"')
    if command not in COMMANDS:
        raise ValueError(f"unknown command {command!r}: {nearest(command, COMMANDS)}")
    if command in HYDRA_COMMANDS:
        from asr.cli.overrides import check_overrides, explain

        if {"--help", "-h"} & set(arguments):
            print(explain(command, COMMANDS[command], arguments))
            return 0
        check_overrides(command, arguments)
    status: int = command_module(command).main(arguments)
    return status


def command_module(command: str) -> ModuleType:
    """Import what runs a command of COMMANDS."""
    return importlib.import_module(f"asr.cli.{command.replace('-', '_')}")


def entry_point() -> None:
    """Run the console script: a process of its own, unlike `main`."""
    # What this process starts imports nothing from the working folder, where a random.py may lie.
    os.environ.setdefault("PYTHONSAFEPATH", "1")
    if "TORCHELASTIC_RUN_ID" in os.environ:
        # One of several processes. Once their parent was killed, nobody would end them.
        from asr.data.workers import end_with_parent

        end_with_parent(int(os.environ.pop(PARENT, os.getppid())))
    _open_streams()
    sys.exit(main())


def _open_streams() -> None:
    """Open what is closed of the standard streams, and let them print every text.

    A standard stream that was closed leaves its number to the next file that is opened, which
    would then get what is printed.
    """
    for number, mode in ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, mode)  # the lowest free number, which is this one
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 -- to the end
    if sys.stdout is None:
        tell("error: standard output is closed, expected one: >/dev/null")
        sys.exit(USER_ERROR_STATUS)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal of Latin-1 has no Polish letters
            stream.reconfigure(errors="backslashreplace")
