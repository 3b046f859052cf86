"""How far long work is: a bar on a terminal, a line now and then in a log, nothing in between."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
from rich.console import Console

from asr.cli import terminal
from asr.cli.terminal import ProgressBar, progress_bar, track


def advanced(is_terminal: bool) -> str:
    told = io.StringIO()
    console = Console(file=told, force_terminal=is_terminal, width=80, highlight=False)
    with ProgressBar(console) as bar:
        for done in range(1, 4):
            bar.advance("listening", "utterances", done, 3)
        bar.say("a line with [red]markup[/red] and \x1b")
    return told.getvalue()


def test_a_terminal_has_a_bar_and_no_lines_but_what_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(terminal, "BAR_INTERVAL_S", -1.0)
    told = advanced(is_terminal=True)
    assert "listening" in told
    assert "a line with [red]markup[/red] and \\x1b\n" in told
    assert "listening: " not in told


def test_a_log_has_a_line_for_every_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    said = "a line with [red]markup[/red] and \\x1b\n"
    assert advanced(is_terminal=False) == said
    monkeypatch.setattr(terminal, "PLAIN_INTERVAL_S", -1.0)
    lines = "".join(f"listening: {done} of 3 utterances\n" for done in range(1, 4))
    assert advanced(is_terminal=False) == lines + said


def test_items_are_given_on_and_counted_on_standard_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with progress_bar("what is soon done", "letters") as advance:  # needs no bar
        advance(1, 1)
    monkeypatch.setattr(terminal, "PLAIN_INTERVAL_S", -1.0)
    monkeypatch.setattr(terminal, "SHOWN_AFTER_S", -1.0)
    letters: Iterator[str] = iter("ab")
    assert list(track("ab", "reading", "letters")) == ["a", "b"]
    assert list(track(letters, "reading", "letters")) == ["a", "b"]
    with progress_bar("listening", "utterances") as advance:
        advance(1234, 5678)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "reading: 0 of 2 letters",
        "reading: 1 of 2 letters",
        "reading: 2 of 2 letters",
        "reading: 0 letters",
        "reading: 1 letters",
        "reading: 2 letters",
        "listening: 1,234 of 5,678 utterances",
    ]
