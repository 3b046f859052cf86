"""Being asked to stop: a signal is noted, and the training leaves where nothing is lost."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from asr.data.workers import STOP_SIGNALS


class Stopped(Exception):  # noqa: N818 -- no error: it was asked to
    """A training left because it was asked to; its state is saved."""


class StopRequest:
    """Notes signals within a `with` block; the handler does nothing else.

    Schedulers send SIGTERM, or SIGUSR1 some time before it; a terminal that closes sends SIGHUP,
    unless nohup has it ignored; Ctrl-C is SIGINT, and the second one interrupts at once. Among
    several processes the launcher passes signals on, so that one may come twice: there the second
    changes nothing. A handler that somebody else had for the signal (submitit puts a job back into
    the queue there) is called when the block is left. Outside a process's main thread, where Python
    hears no signals, none is noted.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            heard = [each for each in STOP_SIGNALS if signal.getsignal(each) is not signal.SIG_IGN]
            self._before = {each: signal.signal(each, self._note) for each in heard}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for each, handler in self._before.items():
            signal.signal(each, handler)
        handler = self._before.get(self.signal) if self.signal else None
        if self.signal and callable(handler) and handler is not signal.default_int_handler:
            os.kill(os.getpid(), self.signal)

    @property
    def is_made(self) -> bool:
        """Whether a signal has come."""
        return self.signal is not None

    def _note(self, number: int, frame: FrameType | None) -> None:
        is_second = self.signal is signal.SIGINT and number == signal.SIGINT
        if is_second and "RANK" not in os.environ:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)
