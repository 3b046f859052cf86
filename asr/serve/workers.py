"""Several processes behind one port: forked, replaced when they die, told to end together."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable
from types import FrameType

ENDS = (signal.SIGTERM, signal.SIGINT)
RESTART_S = 1.0  # [s] before a process takes the place of one that died

logger = logging.getLogger(__name__)

Ready = Callable[[], None]


class Workers:
    """Processes that do the same work until they are told to end.

    The first has to be ready before the others are started: what is wrong with a model is told
    once.

    Args:
        work: of a process, which calls what it is given once it is ready, and gives its status.
        died: told the id of a process that is no more.
        ready: called once the first process is.
    """

    def __init__(
        self, work: Callable[[Ready], int], died: Callable[[int], None], ready: Ready
    ) -> None:
        self._work, self._died, self._ready = work, died, ready
        self._pids: set[int] = set()
        self._is_ending = False

    def run(self, count: int) -> int:
        """Run so many processes until a signal ends them.

        Returns:
            0, or the status of a first process that was never ready.
        """
        for number in ENDS:
            signal.signal(number, self._end)
        if not self._start_first():
            if not self._pids:  # told to end before
                return 0
            status = os.waitstatus_to_exitcode(self._wait()[1])
            return 0 if self._is_ending else abs(status)
        self._ready()
        for _ in range(count - 1):
            self._start()
        while self._pids:
            pid, status = self._wait()
            if not self._is_ending:
                logger.error(
                    "process %d ended with status %d, another one takes its place", pid,
                    os.waitstatus_to_exitcode(status),
                )  # fmt: skip
                time.sleep(RESTART_S)
                self._start()
        return 0

    def _wait(self) -> tuple[int, int]:
        pid, status = os.wait()
        self._pids.discard(pid)
        self._died(pid)
        return pid, status

    def _start_first(self) -> bool:
        """Start a process, and tell whether it got ready."""
        read, write = os.pipe()

        def tell() -> None:
            os.write(write, b"r")
            os.close(write)

        self._start(tell, read)
        os.close(write)
        is_ready = os.read(read, 1) == b"r"
        os.close(read)
        return is_ready

    def _start(self, ready: Ready = lambda: None, *not_its: int) -> None:
        """Start a process, unless all are to end."""
        # A signal that came to the child before it has handlers of its own would run the parent's,
        # and be lost; one that came to the parent before it knows the child would miss it.
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)
        pid = None if self._is_ending else os.fork()
        if pid != 0:
            if pid is not None:
                self._pids.add(pid)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDS)
            return
        status = 1
        try:
            for number in ENDS:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDS)
            for descriptor in not_its:
                os.close(descriptor)
            os.setpgid(0, 0)  # Ctrl-C is for the parent, which tells the others
            status = self._work(ready)
        finally:
            os._exit(status)

    def _end(self, number: int, frame: FrameType | None) -> None:
        for pid in self._pids:
            os.kill(pid, signal.SIGKILL if self._is_ending else signal.SIGTERM)
        self._is_ending = True
