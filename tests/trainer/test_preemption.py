"""Signals are noted and nothing else, and handlers are as before afterwards."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from asr.data.workers import STOP_SIGNALS
from asr.trainer.distributed import StopRequest


@pytest.fixture(autouse=True)
def _usual_handlers() -> Iterator[None]:
    """A shell starts what is to run in the background with SIGINT ignored."""
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    for number in STOP_SIGNALS:
        usual = signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL
        signal.signal(number, usual)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP])
def test_a_signal_is_noted(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with StopRequest() as stop:
        assert not stop.is_made
        os.kill(os.getpid(), number)
        assert stop.is_made
        assert stop.signal is number
    assert signal.getsignal(number) is before


def test_a_second_ctrl_c_interrupts() -> None:
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        assert stop.is_made


def test_among_several_processes_a_second_one_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RANK", "0")
    with StopRequest() as stop:
        for _ in range(2):  # the terminal's, and the launcher's
            os.kill(os.getpid(), signal.SIGINT)
        assert stop.signal is signal.SIGINT


def test_another_handler_hears_of_it_afterwards() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGUSR2, lambda number, frame: heard.append(number))
    try:
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGUSR2)
            assert stop.is_made
            assert not heard
        assert heard == [signal.SIGUSR2]
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_a_signal_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.is_made
    finally:
        signal.signal(signal.SIGHUP, before)


def test_outside_the_main_thread_nothing_is_noted() -> None:
    seen: list[bool] = []

    def ask() -> None:
        with StopRequest() as stop:
            seen.append(stop.is_made)

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert seen == [False]
