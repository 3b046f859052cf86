"""One thread that computes: live streams first, then pieces of all recordings in turn, together."""

from __future__ import annotations

import itertools
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from asr.audio_array import AudioArray
from asr.emission import End, Piece
from asr.serve.metrics import Metrics
from asr.transcriber import Transcriber
from asr.transcript import Segment, Transcript

BATCH_S = 30.0  # [s] of pieces that are computed before anybody else's turn
FORGETTING = 0.9  # of the measured speed, at each batch

logger = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(eq=False)
class _Job:
    """A recording at work.

    Attributes:
        transcriber: that it goes through.
        number: that its pieces bear.
        left: pieces that are not read yet, and its end.
        duration: of the recording [s].
        future: of its transcript.
        segments: that are done.
        is_read: whether all its pieces are.
    """

    transcriber: Transcriber
    number: int
    left: Iterator[Piece | End]
    duration: float
    future: Future[Transcript]
    segments: list[Segment] = field(default_factory=list)
    is_read: bool = False


class Engine:
    """Computes what requests and streams ask for, in one thread: the models are used by no other.

    Pieces of recordings, one of each in turn, go through the network in batches: a short recording
    waits for one batch, not for the long ones before it. What one says depends on no other.

    Args:
        metrics: told of what was computed.
        batch_s: [s] of a batch.
    """

    def __init__(self, metrics: Metrics, batch_s: float = BATCH_S) -> None:
        self._metrics, self._batch_s = metrics, batch_s
        self._numbers = itertools.count()
        self._urgent: deque[Callable[[], None]] = deque()
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._is_closed = False
        self._ratio = 0.05  # time to compute a second of audio, until it is measured
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    @property
    def waiting_s(self) -> float:
        """Audio of the recordings that are at work or wait [s]."""
        return math.fsum(job.duration for job in list(self._jobs))

    @property
    def wait_s(self) -> int:
        """When the recordings that are there will be done, about [s]."""
        return min(max(math.ceil(self.waiting_s * self._ratio), 1), 60)

    def transcribe(
        self, transcriber: Transcriber, samples: NDArray[np.float32], name: str
    ) -> Future[Transcript]:
        """Transcribe a recording.

        Args:
            transcriber: one of those that this engine is used for.
            samples: at its rate.
            name: of the recording, for messages.

        Returns:
            Its transcript. Cancelled, it is given up at the next batch.
        """
        array, number = AudioArray(samples, transcriber.sample_rate, name), next(self._numbers)
        left, duration = transcriber.pieces(array, number), len(samples) / transcriber.sample_rate
        job = _Job(transcriber, number, left, duration, Future())
        with self._changed:
            self._jobs.append(job)
            self._changed.notify()
        return job.future

    def run(self, work: Callable[[], T]) -> Future[T]:
        """Do the work of a live stream, before the recordings that wait."""
        future: Future[T] = Future()

        def do() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = work()
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)

        with self._changed:
            self._urgent.append(do)
            self._changed.notify()
        return future

    def close(self) -> None:
        """End the thread after the batch that it is at."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._urgent or self._jobs or self._is_closed)
            if self._is_closed:
                return
            self._run_urgent()
            if self._jobs:
                self._turn()

    def _run_urgent(self) -> None:
        """Do what streams ask for now; one of each, so that recordings have their turn, too."""
        for _ in range(len(self._urgent)):
            self._urgent.popleft()()

    def _turn(self) -> None:
        """Compute the next pieces of recordings of one model."""
        transcriber = self._jobs[0].transcriber
        pieces, taken = self._gather(transcriber)
        start, audio_s = time.perf_counter(), 0.0
        results = transcriber.segments(pieces)
        while True:
            try:
                done, result = next(results)
            except StopIteration:
                break
            except Exception as error:  # a mistake of ours: all that were to be computed fail
                logger.exception("a batch failed")
                for job in taken.values():
                    self._fail(job, error)
                break
            audio_s += sum(len(piece.samples) for piece in done) / transcriber.sample_rate
            if isinstance(result, ValueError):
                self._fail(taken[done[0].number], result)
            else:
                for piece, segment in zip(done, result, strict=True):
                    if segment.words:
                        taken[piece.number].segments.append(segment)
            self._metrics.batch_pieces.observe(len(done))
            self._run_urgent()
        seconds = time.perf_counter() - start
        if audio_s:
            self._ratio = FORGETTING * self._ratio + (1 - FORGETTING) * seconds / audio_s
            self._metrics.audio_seconds.inc(audio_s)
            self._metrics.compute_seconds.inc(seconds)
        for job in taken.values():
            if job.is_read and not job.future.done():
                in_order = tuple(sorted(job.segments, key=lambda segment: segment.start))
                self._leave(job)
                if job.future.set_running_or_notify_cancel():
                    job.future.set_result(Transcript(in_order, job.duration))

    def _gather(self, transcriber: Transcriber) -> tuple[list[Piece], dict[int, _Job]]:
        """Take the next piece of each recording in turn, until there is a batch."""
        pieces: list[Piece] = []
        taken: dict[int, _Job] = {}
        seconds = 0.0
        waiting = deque(job for job in list(self._jobs) if job.transcriber is transcriber)
        while waiting and seconds < self._batch_s:
            job = waiting.popleft()
            if job.future.cancelled():
                self._leave(job)
                continue
            taken[job.number] = job
            item = next(job.left)
            if isinstance(item, End):
                job.is_read = True
                if item.error is not None:
                    self._fail(job, item.error)
                continue
            pieces.append(item)
            seconds += len(item.samples) / transcriber.sample_rate
            waiting.append(job)
        with self._changed:  # who had a turn goes behind the others
            self._jobs = deque(
                [job for job in self._jobs if job.number not in taken]
                + [job for job in self._jobs if job.number in taken]
            )
        return pieces, taken

    def _fail(self, job: _Job, error: Exception) -> None:
        if job in self._jobs:
            self._leave(job)
            if job.future.set_running_or_notify_cancel():
                job.future.set_exception(error)

    def _leave(self, job: _Job) -> None:
        with self._changed:
            self._jobs.remove(job)
