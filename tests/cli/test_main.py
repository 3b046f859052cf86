"""The program itself: commands, help, and how mistakes are told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import asr
from asr.cli.main import COMMANDS, main
from asr.cli.terminal import one_line, say, tell


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
    assert fails("transcribr", "a.wav") == "unknown command 'transcribr': did you mean transcribe?"
    assert fails("x").startswith("unknown command 'x': expected one of prepare, shar, doctor, ")


def test_hydras_completion_is_refused_with_a_hint(fails: Callable[..., str]) -> None:
    hint = """Hydra's completion, expected eval "$(asr completion bash)\""""
    for command in ([], ["train"], ["evaluate", "model_file=x"]):
        assert fails(*command, "-sc", "install=bash") == f"-sc: {hint}"
    line = fails("prepare", "--shell-completion", "query=bash")
    assert line == f"--shell-completion: {hint}"


MISTAKES = (
    ["trian"], ["train"], ["train", "optim.lrr=1"], ["train", "model=bilstm_ctc_smal"],
    ["evaluate", "--multirn"], ["prepare", "corpus"], ["shar"], ["doctor", "--jobs", "x", "a"],
    ["runs", "--limit", "x", "."], ["compare"], ["transcribe", "--modle", "x", "a.wav"],
    ["lm", "trian"], ["align", "a.wav"], ["tune-decoder", "--trials", "x"], ["average"],
)  # fmt: skip
HELP = [["--help"], *([command, "--help"] for command in COMMANDS), ["lm", "train", "--help"]]


def test_help_and_mistakes_wait_for_nothing_slow() -> None:
    """What takes a second to import and is not needed to say what is wrong with the call."""
    code = (
        "import sys; from asr.cli.main import main\n"
        "for words in ARGUMENTS:\n"
        "    try: status = main(words)\n"
        "    except SystemExit as left: status = left.code\n"
        "    assert status == (0 if '--help' in words else 2), (words, status)\n"
        "    slow = {'torch', 'hydra', 'omegaconf', 'numba', 'rich', 'numpy'} & set(sys.modules)\n"
        "    assert not slow, (words, slow)\n"
    )
    words = [*MISTAKES, *HELP]
    done = subprocess.run(
        [sys.executable, "-c", code.replace("ARGUMENTS", repr(words))],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == len([each for each in words if "--help" not in each])


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


@pytest.mark.parametrize(("parent", "status"), [("own", 0), ("gone", -signal.SIGKILL)])
def test_one_of_several_processes_does_not_outlive_the_first(parent: str, status: int) -> None:
    pid = {"own": os.getpid(), "gone": 1 << 30}[parent]
    variables = {"TORCHELASTIC_RUN_ID": "asr", "ASR_PARENT": str(pid)}
    done = subprocess.run(
        [sys.executable, "-m", "asr", "--version"], env=os.environ | variables, check=False
    )
    assert done.returncode == status


def test_what_the_program_starts_imports_nothing_from_the_working_folder(tmp_path: Path) -> None:
    (tmp_path / "random.py").write_text("raise ValueError('hostile')")
    child = "[sys.executable, '-c', 'import random']"
    code = (
        "import subprocess, sys; import asr.cli.main as program; "
        f"program.main = lambda: subprocess.run({child}).returncode; program.entry_point()"
    )
    command = [sys.executable, "-P", "-c", code]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)


def test_public_names() -> None:
    assert sorted(asr.__all__) == sorted(
        [
            "LSTM",
            "Aligner",
            "Alignment",
            "BiLstmCtc",
            "Segment",
            "Transcriber",
            "Transcript",
            "Word",
            "load_audio",
            "load_model",
        ]
    )
    assert set(asr.__all__) <= set(dir(asr))
    for name in asr.__all__:
        assert getattr(asr, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Lstm'"):
        asr.Lstm  # noqa: B018


def test_a_fault_of_ours_is_a_traceback_that_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(command: str, arguments: list[str]) -> int:
        raise KeyError("no such thing")

    monkeypatch.setattr("asr.cli.main._run", broken)
    assert main(["runs", "x"]) == 70
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1].startswith(f"asr: this is a fault of asr {asr.__version__}, not of yours")


def test_too_little_memory_is_one_line(
    monkeypatch: pytest.MonkeyPatch, fails: Callable[..., str]
) -> None:
    def hungry(command: str, arguments: list[str]) -> int:
        raise MemoryError

    monkeypatch.setattr("asr.cli.main._run", hungry)
    assert fails("runs", "x") == "not enough memory"


def test_torch_without_memory_is_one_line(
    monkeypatch: pytest.MonkeyPatch, fails: Callable[..., str]
) -> None:
    def hungry(command: str, arguments: list[str]) -> int:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate ...")

    monkeypatch.setattr("asr.cli.main._run", hungry)
    assert fails("runs", "x") == "not enough memory"


def run_with(streams: str, code: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Python code in a process whose standard streams a shell has changed."""
    return subprocess.run(
        ["sh", "-c", f'exec "$0" -c "$1" {streams}', sys.executable, code],
        capture_output=True, check=False,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])} | environment,
    )  # fmt: skip


def test_a_closed_standard_output_is_one_line() -> None:
    code = (
        "import sys; sys.argv[1:] = ['--version']; from asr.cli.main import entry_point as e; e()"
    )
    done = run_with(">&-", code)
    assert done.returncode == 2
    assert done.stderr == b"asr: error: standard output is closed, expected one: >/dev/null\n"
    assert run_with("2>&-", code).stdout == f"asr {asr.__version__}\n".encode()
    assert run_with("<&-", code).returncode == 0


def test_the_next_file_does_not_take_the_place_of_a_closed_stream(tmp_path: Path) -> None:
    code = (
        "import sys, os; from asr.cli.main import _open_streams; _open_streams(); "
        f"file = open({str(tmp_path / 'model')!r}, 'w'); print('told', file=sys.stderr); "
        "os.write(2, b'by a library')"
    )
    assert run_with("2>&- <&-", code).returncode == 0
    assert (tmp_path / "model").read_text() == ""


def test_letters_that_a_locale_lacks_are_escaped() -> None:
    code = (
        "from asr.cli.main import _open_streams; from asr.cli.terminal import say; "
        "_open_streams(); say('\u015dipo\tk\u00e4se')"
    )
    done = run_with("", code, PYTHONIOENCODING="latin-1")
    assert done.stdout == b"\\u015dipo\tk\xe4se\n"


def test_what_is_printed_cannot_act(capsys: pytest.CaptureFixture[str]) -> None:
    say("name \x1b[2J\x9b\u202e\r\tmi\u200ckhaham\nnext")
    tell("\x1b[2J\n")
    captured = capsys.readouterr()
    assert captured.out == "name \\x1b[2J\\x9b\\u202e\\r\tmi\u200ckhaham\nnext\n"
    assert captured.err == "asr: \\x1b[2J\\n\n"
