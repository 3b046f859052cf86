"""asr completion: what a real bash offers, and what is offered of every command."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from asr.cli.completion import candidates
from asr.cli.conf import compose, config_groups
from asr.cli.main import COMMANDS, HYDRA_COMMANDS, command_module, main

SOURCES = Path(__file__).parents[2]
BASH = shutil.which("bash")
needs_bash = pytest.mark.skipif(BASH is None, reason="no bash here")
SETUP = f'asr() {{ {sys.executable} -m asr "$@"; }}; eval "$(asr completion bash)"'


def offered(*words: str) -> list[str]:
    *before, current = words
    return sorted({each for each in candidates(before, current) if each.startswith(current)})


@needs_bash
@pytest.mark.parametrize(
    ("line", "word", "expected"),
    [
        ("asr trai", "trai", ["train"]),
        ("asr ", "", [*sorted(COMMANDS)]),
        ("asr train model=bilstm_ctc_", "bilstm_ctc_", ["bilstm_ctc_medium", "bilstm_ctc_small"]),
        ("asr train model=bilstm_ctc_s", "model=bilstm_ctc_s", ["model=bilstm_ctc_small"]),
        ("asr transcribe --format s", "s", ["srt"]),
        ("asr transcribe --format=s", "s", ["srt"]),
        ("asr lm tr", "tr", ["train"]),
        ("asr train data.train=/et", "/et", []),
        ("asr transcribe a", "a", []),
        ("asr unknown a", "a", []),
    ],
)
def test_what_bash_gets(line: str, word: str, expected: list[str]) -> None:
    """As bash asks, with the words parted at = or, where a user has set it so, not."""
    code = (
        f'{SETUP}; COMP_LINE="$1"; COMP_POINT=${{#1}}; compopt() {{ :; }}; _asr asr "$2"; '
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    assert BASH is not None
    done = subprocess.run(
        [BASH, "--norc", "-c", code, "bash", line, word],
        env=os.environ | {"PYTHONPATH": str(SOURCES)}, check=True, capture_output=True, text=True,
    )  # fmt: skip
    found = [each for each in done.stdout.splitlines() if each and not each.startswith("--")]
    assert found == expected
    assert done.stderr == ""


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[int]:
    """The master of a terminal in which a bash that completes waits."""
    assert BASH is not None
    (tmp_path / "recording one.wav").touch()
    child, master = pty.fork()
    if child == 0:
        os.chdir(tmp_path)
        environment = os.environ | {"PYTHONPATH": str(SOURCES), "PS1": "ready> ", "TERM": "dumb"}
        os.execve(BASH, [BASH, "--norc", "--noprofile", "-i"], environment)
    os.write(master, f"bind 'set bell-style none'; {SETUP}; echo set''up\n".encode())
    read_until(master, "setup\r\n")
    yield master
    os.close(master)
    os.waitpid(child, 0)


def read_until(master: int, wanted: str) -> str:
    text, end = "", time.monotonic() + 60
    while wanted not in text:
        assert time.monotonic() < end, text
        if select.select([master], [], [], 1)[0]:
            text += os.read(master, 4096).decode(errors="replace")
    return text


@needs_bash
def test_the_tab_key(terminal: int) -> None:
    for typed, becomes in (
        ("asr trai\t", "asr train "),
        ("schedule=cos\t", "schedule=cosine "),
        ("optim.weight\t", "optim.weight_decay="),
        ("0.1 seed\t", "0.1 seed="),
        ("1 \x15asr transcribe --form\t", "asr transcribe --format "),
        ("vt\t", "vtt "),
        ("recor\t", "recording\\ one.wav "),
    ):
        os.write(terminal, typed.encode())
        read_until(terminal, becomes.rsplit(" ", 2)[-2 if becomes.endswith(" ") else -1][-8:])


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in HYDRA_COMMANDS])
def test_every_option_is_offered(command: str) -> None:
    shown = {name for each in command_module(command).make_parser().arguments
             for name in each.option_strings if each.help != "==SUPPRESS=="}  # fmt: skip
    assert {"--help", "--debug"} <= shown
    assert set(offered(command, "-")) == shown


@pytest.mark.parametrize("command", HYDRA_COMMANDS)
def test_every_group_option_and_setting_is_offered(command: str) -> None:
    composed = compose(command, {})
    for group in composed.choices:
        assert f"{group}=" in offered(command, "")
        expected = sorted(f"{group}={option}" for option in config_groups()[group])
        assert offered(command, f"{group}=") == expected
    for key, _ in composed.settings.leaves():
        if "._" not in key:
            assert f"{key}=" in offered(command, key[:-1])
    assert "--multirun" in offered(command, "--")


def test_settings_are_those_of_what_is_chosen() -> None:
    assert "schedule.floor=" in offered("train", "schedule.")
    assert "schedule.floor=" not in offered("train", "schedule=constant", "schedule.")
    assert offered("train", "model.bidirectional=") == [
        "model.bidirectional=false", "model.bidirectional=true",
    ]  # fmt: skip
    assert offered("evaluate", "report.audio=") == ["report.audio=opus", "report.audio=wav"]
    assert offered("train", "++trainer.max_ep") == ["++trainer.max_epochs="]
    assert offered("lm", "train", "text", "--unicode-form", "NFK") == ["NFKC", "NFKD"]


def test_no_command_line_ends_it(capsys: pytest.CaptureFixture[str]) -> None:
    for line in ("asr", "asr train = == .= model=x,y= ", "asr lm lm train --order", "asr --x "):
        assert main(["completion", "bash", f"--line={line}"]) == 0
    assert "Traceback" not in capsys.readouterr().err
