"""Loading processes: they answer in order, are replaced when lost, and end with their parent."""

from __future__ import annotations

import atexit
import ctypes
import logging
import os
import pickle
import signal
import socket
import time
import traceback
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing import get_context
from multiprocessing.connection import wait
from multiprocessing.context import ForkProcess
from typing import Any, Generic, TypeVar

logger = logging.getLogger(__name__)

# A scheduler or a terminal tells all processes to stop; the training one decides when.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT, signal.SIGHUP)
AHEAD = 4  # batches asked for ahead, for each process
SILENCE_S = 60.0  # [s] waited without a sign of life until a process is taken for lost
SIGN_S = 1.0  # [s] between signs of life of a process that loads a large batch
POLL_S = 0.1  # [s] between looks at whether to stop
END_S = 5.0  # [s] in which the kernel ends a process that was killed, unless it hangs itself
SHOWN = 3  # keys of a batch that are named

PR_SET_PDEATHSIG = 1  # linux/prctl.h
_libc = ctypes.CDLL(None, use_errno=True)

Key = TypeVar("Key")
Result = TypeVar("Result")


def end_with_parent(parent: int) -> None:
    """Have the kernel kill this process once the one that started it has ended, however it did.

    That is the thread that started it, to be exact: see PR_SET_PDEATHSIG in prctl(2).

    Args:
        parent: id of that process. If it is not the parent any more, this one ends at once.

    Raises:
        OSError: the kernel refuses.
    """
    if _libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0):
        code = ctypes.get_errno()
        raise OSError(code, f"PR_SET_PDEATHSIG: {os.strerror(code)}")
    if os.getppid() != parent:  # it ended before the kernel knew
        os.kill(os.getpid(), signal.SIGKILL)


class Interrupted(Exception):  # noqa: N818 -- no error: it was asked to
    """The wait for a batch was given up, as something else is to be done."""


class Workers(Generic[Key, Result]):
    """Processes that load, and give their results in the order of the requests.

    A request is some keys, of which the process makes a list of what `load` makes of each. Nothing
    waits without end: neither for a process that was killed, which another one replaces, nor for
    one that was stopped or hangs, which is killed. As `load` is a function of the key alone, the
    results are the same whichever process they come from, and so is an error, which is raised where
    the result would be returned. Where processes cannot be started, the others load, or the calling
    process itself.

    Args:
        load: what a process does with a key.
        finish: what a thread of the calling process makes of a list of loaded things.
        name: of a key, for people.
        count: processes, forked when they are needed first; 0 loads in the calling process.
        is_stop: asked while nothing comes; True gives up waiting.
        silence_s: time that a process may take for a key [s], of the time that is waited for it.
    """

    def __init__(
        self,
        load: Callable[[Key], Any],
        finish: Callable[[list[Any]], Result],
        name: Callable[[Key], str],
        count: int,
        is_stop: Callable[[], bool] = lambda: False,
        silence_s: float = SILENCE_S,
    ) -> None:
        self._load = load
        self._finish = finish
        self._name = name
        self._count = count
        self._is_stop = is_stop
        self._silence_s = silence_s
        self._workers: list[_Worker] = []
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batch")
        self._owner = os.getpid()
        _pools.add(self)

    @property
    def pids(self) -> list[int]:
        """Ids of the processes that run."""
        return [worker.process.pid or 0 for worker in self._workers]

    def start(self) -> None:
        """Start the processes that are missing; where that fails, do with fewer from now on."""
        while len(self._workers) < self._count:
            try:
                self._workers.append(self._started())
            except OSError as error:
                logger.warning(
                    "only %d of %d loading processes could be started (%s): %s all batches",
                    len(self._workers), self._count, error.strerror or error,
                    "they load" if self._workers else "this process loads",
                )  # fmt: skip
                self._count = len(self._workers)

    def load(self, requests: Iterable[Sequence[Key]]) -> Iterator[Result]:
        """The results of the requests, of which only the next few are taken.

        Raises:
            Interrupted: nothing came, and `is_stop` was true.
            ValueError: two processes were lost at the same request, or `load` failed in one.
            OSError: as `load` raised it.
        """
        rest, coming = iter(requests), deque[_Pending]()
        try:
            while True:
                self.start()
                self._ask(rest, coming)
                if not coming:
                    return
                result = self._result(coming[0])
                coming.popleft()
                if self._workers:  # they are to be busy while the caller is away
                    self._ask(rest, coming)
                yield result
        finally:
            for task in coming:
                task.is_wanted = False

    def close(self) -> None:
        """End the processes, also those that are stopped; the next request starts new ones."""
        if os.getpid() != self._owner:
            return  # in a copy that somebody has forked
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.end()
        self._workers.clear()

    def __del__(self) -> None:
        self.close()

    def _started(self) -> _Worker:
        own, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        own.setblocking(False)
        with other:
            try:
                process = get_context("fork").Process(
                    target=_serve, args=(other, self._load, self._name, os.getpid()), daemon=True
                )
                process.start()
            except OSError:
                own.close()
                raise
        return _Worker(process, own)

    def _ask(self, rest: Iterator[Sequence[Key]], coming: deque[_Pending]) -> None:
        """Take as many requests as may be under way, and hand them to the processes."""
        most = AHEAD * len(self._workers) or 1
        for keys in islice(rest, max(most - len(coming), 0)):
            coming.append(_Pending(keys))
            self._give(coming[-1])

    def _give(self, task: _Pending) -> None:
        """Hand a request to the process that has the fewest; to none where none runs."""
        if self._workers:
            worker = min(self._workers, key=lambda worker: len(worker.tasks))
            worker.tasks.append(task)
            with suppress(BrokenPipeError, ConnectionResetError):  # it has ended, and is found so
                _send(worker.channel, task.keys)

    def _result(self, task: _Pending) -> Result:
        wait_s = 0.0
        while True:
            if not any(task in worker.tasks for worker in self._workers) and task.answer is None:
                return self._finish([self._load(key) for key in task.keys])
            self._receive(wait_s)  # also where the answer is there: the next ones are read ahead
            if task.answer is not None:
                result: Result = task.answer.result()
                return result
            if self._is_stop():
                raise Interrupted
            wait_s = POLL_S

    def _receive(self, wait_s: float) -> None:
        """Take the answers that are there or come in some time, and look after the processes."""
        start = time.monotonic()
        sources = [s for each in self._workers for s in (each.channel, each.process.sentinel)]
        ready = wait(sources, wait_s)
        # Time spent stopped, or at work elsewhere, is no time in which it could have answered.
        waited_s = min(time.monotonic() - start, wait_s)
        for worker in list(self._workers):
            has_ended = worker.process.sentinel in ready
            if self._take_answers(worker) or not worker.tasks:
                worker.silent_s = 0.0
            else:
                worker.silent_s += waited_s
            if has_ended:
                worker.end()
                self._replace(worker, worker.ending)
            elif worker.silent_s > self._silence_s:
                worker.process.kill()
                worker.end()
                self._replace(worker, f"did not answer for {self._silence_s:g} s")

    def _take_answers(self, worker: _Worker) -> bool:
        """Take a process's answers and signs of life; returns whether there were any."""
        is_alive = False
        while True:
            try:
                sign, files, _, _ = socket.recv_fds(worker.channel, 1, 1)
            except BlockingIOError:
                return is_alive
            except ConnectionResetError:
                continue  # told once, where it ended with requests unread: its answers are there
            if not sign:
                return is_alive
            is_alive = True
            for file in files:
                worker.tasks.popleft().answer = self._thread.submit(self._read, file)

    def _read(self, file: int) -> Result:
        loaded = _content(file)
        if isinstance(loaded, Exception):
            raise loaded
        return self._finish(loaded)

    def _replace(self, worker: _Worker, how: str) -> None:
        """Give the requests of a process that was lost to others.

        Raises:
            ValueError: it is the second one lost at its request.
        """
        self._workers.remove(worker)
        tasks = [task for task in worker.tasks if task.is_wanted]
        if tasks and tasks[0] is worker.tasks[0]:  # at which it was
            tasks[0].losses += 1
            if tasks[0].losses > 1:
                names = [self._name(key) for key in tasks[0].keys]
                more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
                raise ValueError(
                    f"the batch of {', '.join(names[:SHOWN])}{more} cannot be loaded: the second "
                    f"loading process {how} at it, expected its utterances"
                )
        logger.warning(
            "loading process %d %s: another one takes its place", worker.process.pid, how
        )
        self.start()
        for task in tasks:
            self._give(task)


@dataclass(eq=False)
class _Pending:
    """A request that is under way.

    Attributes:
        keys: asked for.
        answer: as soon as it has come.
        is_wanted: somebody waits for it.
        losses: processes that were lost at it.
    """

    keys: Sequence[Any]
    answer: Future[Any] | None = None
    is_wanted: bool = True
    losses: int = 0


@dataclass(eq=False)
class _Worker:
    """A loading process.

    Attributes:
        process: its own.
        channel: to it and from it.
        tasks: asked of it and not answered, in the order in which it answers.
        silent_s: waited for it since it gave a sign of life [s].
    """

    process: ForkProcess
    channel: socket.socket
    tasks: deque[_Pending] = field(default_factory=deque)
    silent_s: float = 0.0

    def end(self) -> None:
        """Part from the process, which was killed or has ended."""
        self.process.join(END_S)
        self.channel.close()

    @property
    def ending(self) -> str:
        """How it ended, for people."""
        code = self.process.exitcode
        if code is None or code >= 0:
            return f"ended with status {code}"
        names = {each.value: each.name for each in signal.Signals}
        hint = " (lack of memory?)" if code == -signal.SIGKILL else ""
        return f"was killed by {names.get(-code, f'signal {-code}')}{hint}"


def _serve(
    channel: socket.socket, load: Callable[[Any], Any], name: Callable[[Any], str], parent: int
) -> None:
    """What a loading process does: answer one request after another, until it is killed."""
    end_with_parent(parent)
    for each in STOP_SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    told = time.monotonic()
    while files := socket.recv_fds(channel, 1, 1)[1]:
        loaded: list[Any] = []
        failure: Exception | None = None
        for key in _content(files[0]):
            try:
                loaded.append(load(key))
            except MemoryError:
                raise  # the process that takes this one's place may have more
            except (ValueError, OSError) as error:
                failure = error
                break
            except Exception as error:
                traceback.print_exc()  # a fault of the program: told here, once
                what = f"{type(error).__name__}: {error}"
                failure = ValueError(f"{name(key)} cannot be loaded: {what}")
                break
            if time.monotonic() - told > SIGN_S:
                told = time.monotonic()
                with suppress(BlockingIOError):  # so many that nobody has looked at
                    channel.send(b"+", socket.MSG_DONTWAIT)
        _send(channel, failure or loaded)


def _send(channel: socket.socket, content: Any) -> None:
    """Pass something on in memory of its own, whose handle is the message.

    The message is there or not, whenever a process is stopped or killed, and few bytes: nobody can
    be left waiting for the rest of it, or for room to write it. The memory is bounded by the
    machine's alone; /dev/shm, where torch would put a tensor, is often small.
    """
    with open(os.memfd_create("asr"), "wb") as file:
        pickle.dump(content, file, protocol=5)
        file.flush()
        socket.send_fds(channel, [b"="], [file.fileno()])


def _content(handle: int) -> Any:
    with open(handle, "rb") as file:
        file.seek(0)  # both ends share the position
        return pickle.load(file)


_pools: weakref.WeakSet[Workers[Any, Any]] = weakref.WeakSet()


# Python waits at its exit for the processes it has started, without end where they are stopped.
# What is registered last is called first: before its own waiting, registered by the imports above.
@atexit.register
def _end_all() -> None:
    for pool in list(_pools):
        pool.close()
