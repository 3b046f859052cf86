"""Recordings, read piece by piece, to the log-probabilities of their segments.

    read_pieces -> run: read_ahead -> like_length -> emissions

Audio is decoded and its speech found in threads, ahead of the network. Segments of whatever
recordings go through it in batches of like length. Memory holds READ_S of segments and those of
POOL_S, however long or many the recordings are.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain
from typing import TypeVar

import numpy as np

from asr.audio import count_channels, header_duration, load_audio, stream_audio
from asr.audio_file import Source, source_name
from asr.memory import is_out_of_memory, release_memory
from asr.segment import PAUSE_S, SegmentFinder, Span
from asr.speech_model import Lengths, LogProbs, SpeechModel, Waveform

BATCH_S = 60.0  # [s] of segments, padded, that go through the network together
CHUNK_S = 30.0  # [s] that the network sees at once of a segment without a pause
POOL_S = 480.0  # [s] of segments out of which batches of like length are made
READ_S = 240.0  # [s] of segments that are read ahead
MAX_READERS = 4  # threads
EACH = -1  # for a channel: each of them by itself

Detector = Callable[[Waveform, int], Sequence[Span]]  # waveform and sample rate to its segments
# What is told how much audio is done, and of how much [s]; None where nobody knows.
AudioProgress = Callable[[float, float | None], object]
R = TypeVar("R")


def silent(done: float, total: float | None) -> None:
    """Tell no progress."""


def total_duration(sources: Iterable[Source], channel: int | None = None) -> float | None:
    """Add up how much audio headers promise [s]; None where one does not tell.

    Args:
        sources: of which those that cannot be read count nothing.
        channel: EACH for the audio of all channels.
    """
    total = 0.0
    for source in sources:
        with suppress(ValueError, OSError):  # told when it is read
            duration = header_duration(source)
            if duration is None:
                return None
            total += duration * (count_channels(source) if channel == EACH else 1)
    return total


@dataclass(frozen=True, eq=False)
class Piece:
    """A segment of a recording, with its samples.

    Attributes:
        number: of the recording among those that are read.
        name: of the recording, for messages.
        channel: that it is of; None of the mean of all.
        speaker: name of who speaks on it; None where nobody is named.
        start: its first sample in the recording.
        samples: `(n,)` float32.
        behind: samples of the recording between the piece before and the end of this one.
    """

    number: int
    name: str
    channel: int | None
    speaker: str | None
    start: int
    samples: Waveform
    behind: int


@dataclass(frozen=True)
class End:
    """A recording was read to its end, or to where it broke off.

    Attributes:
        number: of the recording.
        num_samples: of the waveform.
        behind: samples behind the last piece, in all channels.
        error: what is wrong with it; None where nothing is.
    """

    number: int
    num_samples: int
    behind: int = 0
    error: Exception | None = None


def read_pieces(
    number: int,
    source: Source,
    sample_rate: int,
    channel: int | None = None,
    speakers: Sequence[str] = (),
    detector: Detector | None = None,
    pause_s: float = PAUSE_S,
) -> Iterator[Piece | End]:
    """Read a recording's segments, and then its end.

    Args:
        number: of the recording.
        source: a path, the bytes of a file, or an array.
        sample_rate: of the waveforms [Hz].
        channel: which is read; None for the mean of all, EACH for one after the other.
        speakers: names of those who speak on each channel, for EACH; none for "channel 0" ...
        detector: finds the segments of the whole waveform, which is then held as a whole; None
            finds them while it is read.
        pause_s: that a pause has at least which is cut in [s]; a detector has its own.
    """
    name = source_name(source)
    num_samples = 0
    try:
        channels: Sequence[tuple[int | None, str | None]] = [(channel, None)]
        if channel == EACH:
            count = count_channels(source)
            if speakers and len(speakers) != count:
                raise ValueError(
                    f"{name}: {count} channels, expected {len(speakers)}, a speaker each"
                )
            channels = list(enumerate(speakers or [f"channel {each}" for each in range(count)]))
        behind = 0  # samples, up to the piece that is read
        for each, speaker in channels:
            num_samples = done = 0
            for start, samples in _segments(source, sample_rate, each, detector, pause_s):
                if samples is None:
                    num_samples = start
                else:
                    end = start + len(samples)
                    behind += end - done
                    yield Piece(number, name, each, speaker, start, samples, behind)
                    behind, done = 0, end
            behind += num_samples - done
    except (ValueError, OSError, MemoryError) as error:
        yield End(number, num_samples, error=error.with_traceback(None))
    else:
        yield End(number, num_samples, behind)


def _segments(
    source: Source, sample_rate: int, channel: int | None, detector: Detector | None, pause_s: float
) -> Iterator[tuple[int, Waveform | None]]:
    """Segments with their first sample; at the end the number of samples, and None."""
    if detector is not None:
        whole = load_audio(source, sample_rate, channel=channel)
        yield from (
            (span.start, whole[span.start : span.end]) for span in detector(whole, sample_rate)
        )
        yield len(whole), None
        return
    finder = SegmentFinder(sample_rate, pause_s)
    kept, first = np.zeros(0, np.float32), 0  # what a segment to come may need, from there on

    def cut(spans: list[Span]) -> Iterator[tuple[int, Waveform]]:
        for span in spans:  # a copy: a view would keep all that was kept
            yield span.start, kept[span.start - first : span.end - first].copy()

    for block in stream_audio(source, sample_rate, channel=channel):
        kept = np.concatenate([kept, block])
        yield from cut(finder.feed(block))
        kept, first = kept[max(finder.earliest - first, 0) :], max(finder.earliest, first)
    yield from cut(finder.finish())
    yield finder.num_samples, None


class _Ahead:
    """What threads have read and nobody has taken yet, bounded by its samples.

    Args:
        max_samples: that wait, unless a piece alone has more.
    """

    def __init__(self, max_samples: int) -> None:
        self.max_samples = max_samples
        self.is_stopped = False
        self._num_samples = 0
        self._waiting: deque[Piece | End | BaseException | None] = deque()
        self._changed = threading.Condition()

    def put(self, item: Piece | End | BaseException | None) -> bool:
        """Add an item, when there is room; return whether somebody will want the next one."""
        size = len(item.samples) if isinstance(item, Piece) else 0
        with self._changed:
            while (
                size
                and self._num_samples
                and self._num_samples + size > self.max_samples
                and not self.is_stopped
            ):
                self._changed.wait()
            self._waiting.append(item)
            self._num_samples += size
            self._changed.notify_all()
            return not self.is_stopped

    def get(self) -> Piece | End | BaseException | None:
        """Take the oldest item, when there is one."""
        with self._changed:
            while not self._waiting:
                self._changed.wait()
            item = self._waiting.popleft()
            self._num_samples -= len(item.samples) if isinstance(item, Piece) else 0
            self._changed.notify_all()
            return item

    def stop(self) -> None:
        """Let no one wait any more."""
        with self._changed:
            self.is_stopped = True
            self._changed.notify_all()


def read_ahead(
    recordings: Iterable[Iterator[Piece | End]], sample_rate: int
) -> Iterator[Piece | End]:
    """Read recordings in threads, some at a time, while what they gave is worked on.

    Args:
        recordings: of `read_pieces`; each is read in one thread.
        sample_rate: of the waveforms [Hz].

    Yields:
        Pieces and ends; those of a recording in its order, those of several mixed.
    """
    ahead = _Ahead(round(READ_S * sample_rate))
    waiting, lock = iter(recordings), threading.Lock()

    def read() -> None:
        try:
            while True:
                with lock:
                    recording = next(waiting, None)
                if recording is None or not all(ahead.put(item) for item in recording):
                    break
        except BaseException as error:  # a mistake of ours: told where the results are awaited
            ahead.put(error)
        ahead.put(None)

    threads = [
        threading.Thread(target=read, name=f"reader {number}", daemon=True)
        for number in range(min(MAX_READERS, os.cpu_count() or 1))
    ]
    for thread in threads:
        thread.start()
    try:
        for _ in threads:
            while (item := ahead.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
    finally:
        ahead.stop()
        for thread in threads:
            thread.join()


def like_length(
    items: Iterable[Piece | End], sample_rate: int, pool_s: float = POOL_S
) -> Iterator[list[Piece] | End]:
    """Gather pieces to batches of like length, at most BATCH_S each with their padding.

    Args:
        items: pieces and ends.
        sample_rate: of the waveforms [Hz].
        pool_s: of pieces that are gathered before batches are made of them [s].

    Yields:
        Batches, longest pieces first, one that is longer than CHUNK_S alone; an end behind all
        pieces of its recording.
    """
    pool: list[Piece] = []
    ends: list[End] = []
    num_samples = 0
    for item in items:
        if isinstance(item, End):
            ends.append(item)
            if pool:
                continue
        else:
            pool.append(item)
            num_samples += len(item.samples)
        if num_samples >= pool_s * sample_rate or not pool:
            yield from _batches(pool, sample_rate)
            yield from ends
            pool, ends, num_samples = [], [], 0
    yield from _batches(pool, sample_rate)
    yield from ends


def _batches(pool: Sequence[Piece], sample_rate: int) -> Iterator[list[Piece]]:
    budget, alone = BATCH_S * sample_rate, CHUNK_S * sample_rate
    batch: list[Piece] = []
    for piece in sorted(pool, key=lambda piece: len(piece.samples), reverse=True):
        longest = len(batch[0].samples) if batch else 0
        if batch and (longest > alone or (len(batch) + 1) * longest > budget):
            yield batch
            batch = []
        batch.append(piece)
    if batch:
        yield batch


def emissions(
    recognizer: SpeechModel,
    batch: Sequence[Piece],
    work: Callable[[Sequence[Piece], LogProbs, Lengths], R],
) -> Iterator[tuple[Sequence[Piece], R | ValueError]]:
    """Run the network on a batch, and work on what it says; in halves where memory runs out.

    Args:
        recognizer: the model.
        batch: of `like_length`.
        work: given pieces, log_probs `(B, T, V)` and lengths `(B,)` [output frames].

    Yields:
        Pieces and what the work on them gave, or what is wrong with the only one.

    Raises:
        RuntimeError: of the network or the work, where it is no lack of memory.
    """
    if not batch:
        return
    # A segment that is longer than a chunk is alone in its batch.
    chunk_s = CHUNK_S if len(batch[0].samples) > CHUNK_S * recognizer.sample_rate else None
    try:
        emission = recognizer.log_probs([piece.samples for piece in batch], chunk_s=chunk_s)
        result = work(batch, *emission)
    except (ValueError, RuntimeError, MemoryError) as error:
        if not isinstance(error, ValueError) and not is_out_of_memory(error):
            raise
        fault = (
            str(error)
            if isinstance(error, ValueError)
            else ("memory ran out, expected a shorter recording, or more memory")
        )
    else:
        yield batch, result
        return
    # Outside of `except`: the error holds all that the pass that failed has made.
    release_memory()
    if len(batch) == 1:
        yield batch, ValueError(f"{batch[0].name}: {fault}")
        return
    half = len(batch) // 2
    for part in (batch[:half], batch[half:]):
        yield from emissions(recognizer, part, work)


def run(
    recognizer: SpeechModel,
    recordings: Iterable[Iterator[Piece | End]],
    work: Callable[[Sequence[Piece], LogProbs, Lengths], R],
    *,
    total: float | None,
    progress: AudioProgress = silent,
    is_ahead: bool = True,
) -> Iterator[tuple[Sequence[Piece], R] | End]:
    """Take recordings through the network, their pieces in batches of like length.

    Args:
        recognizer: the model.
        recordings: of `read_pieces`, at the model's sample rate.
        work: as of `emissions`.
        total: of all audio, for `progress` [s]; None where nobody knows.
        progress: told how much audio is done.
        is_ahead: read in threads; not worth it for what is in memory.

    Yields:
        Pieces and what the work on them gave. Behind those of a recording its end, with what is
        wrong with it; then the pieces that were left are not run.
    """
    rate = recognizer.sample_rate
    items = read_ahead(recordings, rate) if is_ahead else chain.from_iterable(recordings)
    failed: dict[int, ValueError] = {}
    done = 0  # samples
    for batch in like_length(items, rate):
        if isinstance(batch, End):
            done += batch.behind
            progress(done / rate, total)
            yield replace(batch, error=failed.pop(batch.number, batch.error))
            continue
        wanted = [piece for piece in batch if piece.number not in failed]
        for pieces, result in emissions(recognizer, wanted, work):
            if isinstance(result, ValueError):
                failed[pieces[0].number] = result
            else:
                yield pieces, result
        done += sum(piece.behind for piece in batch)
        progress(done / rate, total)
