"""Standard input in the place of a file: closed, a terminal, without end."""

from __future__ import annotations

import io
import os

import pytest

from asr.cli.options import read_standard_input, standard_input


def given(monkeypatch: pytest.MonkeyPatch, file: io.BufferedReader | None) -> None:
    monkeypatch.setattr("sys.stdin", file and io.TextIOWrapper(file))


def test_all_of_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, io.BufferedReader(io.BytesIO(b"abc")))
    assert read_standard_input("audio", 3) == b"abc"


def test_no_more_than_a_bound_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/zero", "rb") as zeros:
        given(monkeypatch, zeros)
        with pytest.raises(
            ValueError, match=r"^standard input: more than 5000000 bytes, expected "
        ):
            read_standard_input("audio", 5_000_000)


def test_a_terminal_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    master, terminal = os.openpty()
    with os.fdopen(master, "rb"), os.fdopen(terminal, "rb") as file:
        given(monkeypatch, file)
        with pytest.raises(ValueError, match=r"^standard input is a terminal, expected audio$"):
            read_standard_input("audio", 3)


def test_a_closed_one_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, None)
    for read in (standard_input, lambda expected: read_standard_input(expected, 3)):
        with pytest.raises(ValueError, match=r"^standard input is closed, expected audio$"):
            read("audio")
