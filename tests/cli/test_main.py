"""The program itself: commands, help, and how mistakes are told."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import asr
from asr.cli.main import COMMANDS, main, one_line


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    output = capsys.readouterr().out
    assert all(f"  {name} " in output for name in COMMANDS)


def test_no_arguments_print_the_help_and_fail(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage: asr" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"asr {asr.__version__}\n"


def test_unknown_command_names_the_known_ones(fails: Callable[..., str]) -> None:
    assert fails("transcribr", "a.wav").startswith("unknown command 'transcribr', expected one of ")


def test_help_needs_no_torch() -> None:
    check = "assert 'torch' not in sys.modules"
    code = f"import sys; from asr.cli.main import main; main(['--help']); {check}"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["transcribe", "--model", "missing.safetensors", "a.wav", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_an_operating_system_error_is_one_line_with_the_path() -> None:
    assert one_line(FileNotFoundError(2, "No such file", "x.wav")) == "x.wav: No such file"
    assert one_line(ValueError("first\n  second")) == "first second"
    name = "\x1b[2Jä\u202e\udcff.wav"  # clears the screen, turns the direction, is no UTF-8
    assert one_line(FileNotFoundError(2, "No such file", name)) == (
        r"\x1b[2Jä\u202e\udcff.wav: No such file"
    )


@pytest.mark.parametrize("command", ["prepare", "train", "evaluate"])
def test_tab_completion_offers_the_groups(command: str, tmp_path: Path) -> None:
    line = f"asr {command} paths="
    result = subprocess.run(
        [sys.executable, "-m", "asr", "-sc", "query=bash"],
        env={**os.environ, "COMP_LINE": line, "COMP_POINT": str(len(line))},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "paths=default" in result.stdout


def test_public_names() -> None:
    assert sorted(asr.__all__) == sorted(
        [
            "LSTM",
            "Aligner",
            "Alignment",
            "BiLstmCtc",
            "Transcriber",
            "Transcript",
            "Word",
            "load_audio",
            "load_model",
        ]
    )
    for name in asr.__all__:
        assert getattr(asr, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Lstm'"):
        asr.Lstm  # noqa: B018
