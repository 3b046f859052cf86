"""Audio of a corpus: measured, and written anew so that training has nothing slow to decode."""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import soundfile
from numpy.typing import NDArray

from asr.atomic_file import replacing
from asr.audio import load_audio, probe
from asr.data.corpora.audio_journal import AUDIO_DIR, Written, audio_name, open_journal
from asr.data.corpora.prepared import Progress
from asr.data.corpora.settings import Settings
from asr.data.manifest import Utterance
from asr.finding import Finding, Kind, describe_error

CONVERSION = 1  # raised when the same source and settings give other samples than before
IN_FLIGHT_PER_WORKER = 4
INT16_SCALE = 1 << 15

_In = TypeVar("_In")
_Out = TypeVar("_Out")


@dataclass(frozen=True)
class _Job:
    """One utterance's audio.

    Attributes:
        split: which the utterance is of.
        utterance: the utterance.
        segment: whether it is a part of its file.
        name: of the new file in the corpus folder; None leaves the audio where it is.
    """

    split: str
    utterance: Utterance
    segment: bool
    name: str | None


@dataclass(frozen=True)
class _Outcome:
    """What became of a job: audio of this duration [s], or the reason why it cannot be used."""

    duration: float = 0.0
    reason: str | None = None
    written: Written | None = None
    fresh: bool = False


@dataclass(frozen=True)
class AudioResult:
    """A corpus with its audio in place.

    Attributes:
        splits: items whose utterances point to the audio to train on, durations measured.
        rejected: those whose audio cannot be used.
        notes: what the user should know, one sentence each.
    """

    splits: Mapping[str, Sequence[Utterance]]
    rejected: tuple[Finding, ...]
    notes: tuple[str, ...]


def place_audio(
    folder: Path, splits: Mapping[str, Sequence[Utterance]], settings: Settings, progress: Progress
) -> AudioResult:
    """Measure every utterance's audio and, unless it is kept, write it below `<folder>/audio`.

    An utterance with an offset, or one of several of the same file, is a part of its file and is
    cut out; any other is a whole file, whose length must be the manifest's. A written file counts
    as done when it was made from the same source (path, size, time of change) with the same
    settings and has its full size, so that a preparation that was killed goes on where it was.

    Args:
        folder: of the corpus.
        splits: utterances by the name of their split.
        settings: format, rate, tolerance and number of threads.
        progress: told how many are done.

    Returns:
        The utterances with their new audio, and those that have none.

    Raises:
        ValueError: for audio that lies where the new files go.
        OSError: where a file cannot be written.
    """
    jobs = list(_jobs(folder, splits, settings))
    placed: dict[str, list[Utterance]] = {split: [] for split in splits}
    rejected: list[Finding] = []
    num_fresh = num_clipped = 0
    with open_journal(folder, progress) as journal:

        def work(job: _Job) -> _Outcome:
            return _place(folder, job, settings, journal.done)

        for number, (job, outcome) in enumerate(_ordered(work, jobs, settings.workers), 1):
            if outcome.reason is not None:
                rejected.append(job.utterance.finding(Kind.UNREADABLE_AUDIO, outcome.reason))
            else:
                placed[job.split].append(_with_audio(folder, job, outcome.duration))
            if job.name is not None and outcome.written is not None:
                num_clipped += outcome.written.num_clipped > 0
                num_fresh += outcome.fresh
                if outcome.fresh:
                    journal.add(job.name, outcome.written)
            progress.advance("audio", number, len(jobs), "files")
    _say(progress, settings, len(jobs) - len(rejected), num_fresh)
    notes = [f"{num_clipped} audio files were clipped at full scale."] if num_clipped else []
    return AudioResult(placed, tuple(rejected), tuple(notes))


def remove_stale_audio(
    folder: Path, splits: Mapping[str, Sequence[Utterance]], progress: Progress
) -> int:
    """Delete the files that earlier preparations wrote and no utterance points to now.

    Args:
        folder: of the corpus.
        splits: utterances as `place_audio` gave them.
        progress: told of lines of the journal that are passed over.

    Returns:
        How many files were deleted.
    """
    used = {item.audio_filepath for items in splits.values() for item in items}
    with open_journal(folder, progress) as journal:
        stale = [name for name in journal.done if folder / name not in used]
        existing = [folder / name for name in stale if (folder / name).is_file()]
        for path in existing:
            path.unlink()
        journal.forget(stale)
    return len(existing)


def _jobs(
    folder: Path, splits: Mapping[str, Sequence[Utterance]], settings: Settings
) -> Iterator[_Job]:
    audio_dir = folder / AUDIO_DIR
    for split, items in splits.items():
        uses = Counter(utterance.audio_filepath for utterance in items)
        if settings.audio_format != "keep":
            (audio_dir / split).mkdir(parents=True, exist_ok=True)
        for utterance in items:
            if utterance.audio_filepath.is_relative_to(audio_dir):
                raise ValueError(
                    f"{utterance.where}: its audio lies in {audio_dir}, which is written now, "
                    "expected another corpus name"
                )
            segment = utterance.offset > 0 or uses[utterance.audio_filepath] > 1
            name = audio_name(split, utterance.id, settings.audio_format)
            yield _Job(split, utterance, segment, None if settings.audio_format == "keep" else name)


def _place(folder: Path, job: _Job, settings: Settings, done: Mapping[str, Written]) -> _Outcome:
    utterance = job.utterance
    try:
        if job.name is None:
            return _measure(utterance, job.segment, settings.duration_tolerance_s)
        target = folder / job.name
        fingerprint = _fingerprint(job, settings)
        known = done.get(job.name)
        if known is not None and known.fingerprint == fingerprint and _is_whole(target, known):
            return _Outcome(known.num_samples / settings.sample_rate, written=known)
        waveform = _read(utterance, job.segment, settings)
    except (ValueError, OSError) as error:
        return _Outcome(reason=describe_error(error))
    # Outside of the try: a disk that is full is no fault of the utterance.
    samples, num_clipped = _to_int16(waveform)
    content = _encode(samples, settings)
    with replacing(target, durable=False) as file:
        file.write(content)
    written = Written(fingerprint, len(samples), num_clipped, len(content))
    return _Outcome(len(samples) / settings.sample_rate, written=written, fresh=True)


def _measure(utterance: Utterance, segment: bool, tolerance: float) -> _Outcome:
    """The duration of audio that stays where it is, by its header."""
    total = probe(utterance.audio_filepath).duration
    if not segment:
        _check_duration(total, utterance.duration, tolerance)
        return _Outcome(total)
    left = total - utterance.offset
    if left <= 0:
        raise ValueError(f"begins at {utterance.offset:g} s, expected less than {total:g} s")
    if utterance.duration is not None and utterance.duration > left + tolerance:
        _check_duration(left, utterance.duration, tolerance)
    duration = left if utterance.duration is None else min(utterance.duration, left)
    if utterance.offset == 0 and duration < total - tolerance:
        raise ValueError(
            "begins at 0 s and ends before its file does, which needs audio_format wav or flac"
        )
    return _Outcome(duration)


def _read(utterance: Utterance, segment: bool, settings: Settings) -> NDArray[np.float32]:
    waveform = load_audio(
        utterance.audio_filepath,
        settings.sample_rate,
        offset=utterance.offset,
        duration=utterance.duration if segment else None,
    )
    duration = len(waveform) / settings.sample_rate
    _check_duration(duration, utterance.duration, settings.duration_tolerance_s)
    return waveform


def _check_duration(actual: float, expected: float | None, tolerance: float) -> None:
    if expected is not None and abs(actual - expected) > tolerance:
        raise ValueError(
            f"audio lasts {actual:.3f} s, expected {expected:.3f} s as its duration says "
            f"(tolerance {tolerance:g} s)"
        )


def _fingerprint(job: _Job, settings: Settings) -> str:
    utterance = job.utterance
    status = utterance.audio_filepath.stat()
    made_from = [
        CONVERSION,
        str(utterance.audio_filepath.absolute()),
        status.st_size,
        status.st_mtime_ns,
        utterance.offset,
        utterance.duration,
        job.segment,
        settings.duration_tolerance_s,
        settings.sample_rate,
        settings.audio_format,
    ]
    return hashlib.sha256(json.dumps(made_from).encode()).hexdigest()


def _is_whole(path: Path, written: Written) -> bool:
    return path.is_file() and path.stat().st_size == written.num_bytes


def _to_int16(waveform: NDArray[np.float32]) -> tuple[NDArray[np.int16], int]:
    """Samples `(num_samples,)` as int16, and how many were beyond full scale."""
    # Not soundfile's own conversion: it scales by 32767, so that 16-bit sources would change.
    scaled = np.rint(waveform * np.float32(INT16_SCALE))
    beyond = (scaled < -INT16_SCALE) | (scaled > INT16_SCALE)
    clipped = np.clip(scaled, -INT16_SCALE, INT16_SCALE - 1)
    return clipped.astype(np.int16), int(np.count_nonzero(beyond))


def _encode(samples: NDArray[np.int16], settings: Settings) -> bytes:
    buffer = io.BytesIO()
    kind = settings.audio_format.upper()
    soundfile.write(buffer, samples, settings.sample_rate, subtype="PCM_16", format=kind)
    return buffer.getvalue()


def _with_audio(folder: Path, job: _Job, duration: float) -> Utterance:
    utterance = replace(job.utterance, duration=duration)
    if job.name is not None:
        utterance = replace(utterance, audio_filepath=folder / job.name, offset=0.0)
    return utterance


def _say(progress: Progress, settings: Settings, num_usable: int, num_fresh: int) -> None:
    if settings.audio_format == "keep":
        progress.say(f"audio: {num_usable} utterances measured, files kept where they are")
        return
    what = f"{settings.audio_format} files at {settings.sample_rate} Hz"
    if num_fresh < num_usable:
        progress.say(f"audio: {num_usable - num_fresh} {what} already done, {num_fresh} written")
    else:
        progress.say(f"audio: {num_fresh} {what} written")


def _ordered(
    function: Callable[[_In], _Out], inputs: Iterable[_In], workers: int
) -> Iterator[tuple[_In, _Out]]:
    """Map in threads, in the order of the inputs, with few of them waiting at a time."""
    rest = iter(inputs)
    # The first alone: it may import modules whose import is not made for several threads.
    for first in islice(rest, 1):
        yield first, function(first)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="audio")
    try:
        waiting: deque[tuple[_In, Future[_Out]]] = deque()
        for one in rest:
            waiting.append((one, pool.submit(function, one)))
            if len(waiting) > workers * IN_FLIGHT_PER_WORKER:
                done, future = waiting.popleft()
                yield done, future.result()
        for done, future in waiting:
            yield done, future.result()
    finally:
        pool.shutdown(cancel_futures=True)
