"""Loading processes: what they make of signals, and that they end with the process they serve."""

from __future__ import annotations

import atexit
import signal
import weakref
from typing import Any

# A scheduler or a terminal tells all processes to stop; the training one decides when.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT, signal.SIGHUP)

_running: weakref.WeakSet[Any] = weakref.WeakSet()  # iterators of DataLoaders


def ignore_signals(worker: int) -> None:
    """Called in a loading process before it loads anything."""
    for each in STOP_SIGNALS:
        signal.signal(each, signal.SIG_IGN)


def end_at_exit(batches: Any) -> None:
    """See to it that loading processes end where nobody ends them before.

    At its exit Python sends SIGTERM to the processes it has started and waits for them, without
    end where they ignore it.

    Args:
        batches: iterator of a DataLoader, which has just started its processes.
    """
    _running.add(batches)
    # What is registered last is called first: before Python's own waiting, and before torch's.
    atexit.unregister(_end_all)
    atexit.register(_end_all)


def end_workers(batches: Any) -> None:
    """End loading processes, also one that hangs.

    Args:
        batches: iterator of a DataLoader.
    """
    _running.discard(batches)
    batches._shutdown_workers()
    for process in batches._workers:
        process.kill()


def _end_all() -> None:
    for batches in list(_running):
        end_workers(batches)
