"""The folder of a prepared corpus: one writer, its audio converted once, nobody else's files.

Beside the manifests lies `audio/`, with the files that were converted for training. A journal
says which are done and from what, so that a preparation that was killed goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TextIO, TypeVar

from asr.atomic_file import remove_leftovers, replace_bytes, replace_text, replacing
from asr.audio import encode_audio, load_audio, probe
from asr.audio_file import MAX_SAMPLE_RATE, MIN_SAMPLE_RATE
from asr.data.checks import check_length
from asr.data.corpus_record import RECORD_FILE, SPLITS
from asr.data.manifest import Utterance
from asr.finding import Finding, Kind, describe_error
from asr.lock import locked
from asr.untrusted import MAX_LINE_BYTES, lines, open_regular, parse_json, record, shown

STATE_DIR = ".prepare"  # lock and notes on what is done; its presence marks the folder as ours
DOWNLOAD_DIR = "downloads"  # beside the corpora
AUDIO_DIR = "audio"
AUDIO_FORMATS = ("keep", "wav", "flac")
CONVERSION = 2  # raised when the same source and settings give other samples than before
IN_FLIGHT_PER_WORKER = 4
MAX_SLUG_LENGTH = 60  # characters of an id that its file's name shows
MAX_JOURNAL_BYTES = 1 << 30  # 1 GiB, some 4 million files
_CORPUS_NAME = re.compile(r"\w[\w.-]*")
_SLUG = f"[A-Za-z0-9][A-Za-z0-9_]{{0,{MAX_SLUG_LENGTH - 1}}}"
_AUDIO_NAME = re.compile(rf"{AUDIO_DIR}/({'|'.join(SPLITS)})/({_SLUG}-)?[0-9a-f]{{16}}\.(wav|flac)")

Say = Callable[[str], None]
# What is done, the unit of what is counted, how many of them, of how many.
Advance = Callable[[str, str, int, int], None]
Corpus = Mapping[str, Sequence[Utterance]]  # utterances by the name of their split
_In = TypeVar("_In")
_Out = TypeVar("_Out")


# --- the folder --------------------------------------------------------------------------------


@contextmanager
def corpus_folder(data_dir: Path, name: str) -> Iterator[Path]:
    """Make and lock `<data_dir>/<name>` for the length of a preparation.

    Args:
        data_dir: folder of all corpora; made where it is missing.
        name: of the corpus.

    Yields:
        The folder, absolute, free of what a killed writer left.

    Raises:
        ValueError: for a name that is no folder's, for manifests that this program did not write,
            for links in place of what it wrote, and while another process prepares the same corpus.
        OSError: where it cannot be made or locked.
    """
    if not isinstance(name, str) or not _CORPUS_NAME.fullmatch(name) or name == DOWNLOAD_DIR:
        raise ValueError(
            f"corpus name is {name!r}, expected letters, digits, '_', '-' and '.', beginning "
            f"with a letter or digit, and not {DOWNLOAD_DIR!r}"
        )
    folder = Path(data_dir).absolute() / name
    state = folder / STATE_DIR
    outputs = [*(folder / f"{split}.jsonl" for split in SPLITS), folder / RECORD_FILE]
    foreign = [path for path in outputs if path.exists()] if not state.is_dir() else []
    if foreign:
        raise ValueError(
            f"{foreign[0]}: exists and was not written by asr prepare, "
            "expected another corpus name or data folder"
        )
    refuse_links(folder, (STATE_DIR, f"{STATE_DIR}/lock"))
    is_new, makes_folder = not state.is_dir(), not folder.exists()
    state.mkdir(parents=True, exist_ok=True)
    with locked(state / "lock", "prepares this corpus now"):
        remove_leftovers(folder)
        try:
            yield folder
        except BaseException:
            if is_new and [*folder.iterdir(), *state.iterdir()] == [state, state / "lock"]:
                with suppress(OSError):  # the error itself says more
                    (state / "lock").unlink()
                    state.rmdir()
                    if makes_folder:
                        folder.rmdir()
            raise


def refuse_links(folder: Path, names: Iterable[str]) -> None:
    """Refuse a corpus folder in which something of ours is a link to elsewhere.

    Whoever writes or deletes below such a link does so in a place that nobody chose.

    Args:
        folder: of the corpus, which may itself be one.
        names: of files and folders in it, each after those that it lies in.

    Raises:
        ValueError: one is a symbolic link.
    """
    for name in names:
        if (folder / name).is_symlink():
            raise ValueError(
                f"{folder / name}: a symbolic link, expected what asr prepare made, or nothing"
            )


def write_if_changed(path: Path, content: bytes) -> bool:
    """Write a file, whole or not at all, unless it holds just that already.

    Returns:
        Whether it was written.
    """
    if _has_size(path, len(content)) and path.read_bytes() == content:
        return False
    replace_bytes(path, content)
    return True


# --- its audio ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Conversion:
    """What becomes of a corpus's audio.

    Attributes:
        audio_format: "wav" or "flac" writes 16-bit mono files beside the manifests, so that
            training decodes nothing slow; "keep" points to the original files.
        sample_rate: of the files that are written [Hz].
        num_workers: threads that convert; None takes one a core.
        duration_tolerance_s: how far audio may be from the duration its manifest gives [s].
        are_parts: a duration is always that of a part of a file, at its beginning too.

    Raises:
        ValueError: for a value out of range.
    """

    audio_format: str = "wav"
    sample_rate: int = 16_000
    num_workers: int | None = None
    duration_tolerance_s: float = 0.1
    are_parts: bool = False

    def __post_init__(self) -> None:
        rate, workers, tolerance_s = self.sample_rate, self.num_workers, self.duration_tolerance_s
        if self.audio_format not in AUDIO_FORMATS:
            expected = f"one of {', '.join(AUDIO_FORMATS)}"
            raise ValueError(f"audio_format is {self.audio_format!r}, expected {expected}")
        if not _is_whole(rate) or not MIN_SAMPLE_RATE <= rate <= MAX_SAMPLE_RATE:
            expected = f"{MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE} Hz"
            raise ValueError(f"sample_rate is {rate!r}, expected {expected}")
        if workers is not None and (not _is_whole(workers) or workers < 1):
            expected = "a whole number from 1 up, or null"
            raise ValueError(f"num_workers is {workers!r}, expected {expected}")
        if not isinstance(tolerance_s, int | float) or not 0 <= tolerance_s < float("inf"):
            raise ValueError(f"duration_tolerance_s is {tolerance_s!r}, expected seconds from 0 up")

    @property
    def keeps_files(self) -> bool:
        """Whether the audio stays where it is."""
        return self.audio_format == "keep"


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


@dataclass(frozen=True)
class PlacedAudio:
    """A corpus with its audio in place.

    Attributes:
        splits: utterances that point to the audio to train on, durations measured.
        rejected: what is wrong with those whose audio cannot be used.
        notes: what the user should know, one sentence each.
    """

    splits: Corpus
    rejected: tuple[Finding, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Job:
    """One utterance's audio.

    Attributes:
        split: which the utterance is of.
        utterance: as it is.
        is_part: of its file.
        name: of the new file in the corpus folder; None leaves the audio where it is.
    """

    split: str
    utterance: Utterance
    is_part: bool
    name: str | None


@dataclass(frozen=True)
class _Done:
    """What became of a job.

    Attributes:
        duration: of the audio [s].
        written: the new file, if there is one.
        is_fresh: it was made now.
    """

    duration: float
    written: Written | None = None
    is_fresh: bool = False


def place_audio(
    folder: Path, splits: Corpus, conversion: Conversion, say: Say, progress: Advance
) -> PlacedAudio:
    """Measure every utterance's audio and, unless it is kept, write it below `<folder>/audio`.

    An utterance with an offset, or one of several of the same file in any split, is a part of its
    file and is cut out; any other is a whole file, whose length must be the manifest's, unless all
    durations are those of parts. A written file counts
    as done when it was made from the same source (path, size, time of change) with the same
    settings and has its full size, so that a preparation that was killed goes on where it was.

    Args:
        folder: of the corpus.
        splits: utterances by the name of their split.
        conversion: format, rate, tolerance and number of threads.
        say: told when it is done, and of lines of the journal that are skipped.
        progress: told how many are done.

    Returns:
        The utterances with their new audio, and what is wrong with those that have none.

    Raises:
        ValueError: for audio that lies where the new files go.
        OSError: where a file cannot be written.
    """
    jobs = list(_jobs(folder, splits, conversion))
    placed: dict[str, list[Utterance]] = {split: [] for split in splits}
    rejected: list[Finding] = []
    num_fresh = num_clipped = 0
    with open_journal(folder, say) as journal:

        def work(job: _Job) -> _Done | Finding:
            return _place(folder, job, conversion, journal.done)

        workers = conversion.num_workers or len(os.sched_getaffinity(0))
        for number, (job, done) in enumerate(_ordered(work, jobs, workers), 1):
            if isinstance(done, Finding):
                rejected.append(done)
            else:
                utterance = replace(job.utterance, duration=done.duration)
                if job.name is not None:
                    utterance = replace(
                        utterance, audio_filepath=folder / job.name, offset=0.0, channel=None
                    )
                placed[job.split].append(utterance)
                if job.name is not None and done.written is not None:
                    num_clipped += done.written.num_clipped > 0
                    num_fresh += done.is_fresh
                    if done.is_fresh:
                        journal.add(job.name, done.written)
            progress("audio", "files", number, len(jobs))
    num_usable = len(jobs) - len(rejected)
    what = f"{conversion.audio_format} files at {conversion.sample_rate} Hz"
    if conversion.keeps_files:
        say(f"audio: {num_usable} utterances measured, files kept where they are")
    elif num_fresh < num_usable:
        say(f"audio: {num_usable - num_fresh} {what} already done, {num_fresh} written")
    else:
        say(f"audio: {num_fresh} {what} written")
    notes = []
    if num_clipped:
        notes.append(f"{num_clipped} audio files went beyond full scale and were made softer.")
    return PlacedAudio(placed, tuple(rejected), tuple(notes))


def remove_stale_audio(folder: Path, splits: Corpus, say: Say) -> int:
    """Delete the files that earlier preparations wrote and no utterance points to now.

    Args:
        folder: of the corpus.
        splits: utterances as `place_audio` gave them.
        say: told of lines of the journal that are skipped.

    Returns:
        How many files were deleted.
    """
    used = {utterance.audio_filepath for items in splits.values() for utterance in items}
    with open_journal(folder, say) as journal:
        stale = [name for name in journal.done if folder / name not in used]
        existing = [folder / name for name in stale if (folder / name).is_file()]
        for path in existing:
            path.unlink()
        journal.forget(stale)
    return len(existing)


def audio_name(split: str, utterance_id: str, audio_format: str) -> str:
    """The name, in the corpus folder, of the file that is written for an utterance.

    It is safe in any file system, readable, and different for different ids.
    """
    slug = re.sub(r"[^A-Za-z0-9]+", "_", utterance_id.rsplit("/", 1)[-1]).strip("_")
    digest = hashlib.sha256(utterance_id.encode()).hexdigest()[:16]
    stem = f"{slug[:MAX_SLUG_LENGTH]}-{digest}" if slug else digest
    return f"{AUDIO_DIR}/{split}/{stem}.{audio_format}"


def _jobs(folder: Path, splits: Corpus, conversion: Conversion) -> Iterator[_Job]:
    audio_dir = folder / AUDIO_DIR
    uses = Counter(each.audio_filepath for items in splits.values() for each in items)
    for split, items in splits.items():
        if not conversion.keeps_files:
            (audio_dir / split).mkdir(parents=True, exist_ok=True)
        for utterance in items:
            if utterance.audio_filepath.is_relative_to(audio_dir):
                raise ValueError(
                    f"{utterance.where}: its audio lies in {audio_dir}, which is written now, "
                    "expected another corpus name"
                )
            is_part = (
                utterance.offset > 0
                or uses[utterance.audio_filepath] > 1
                or (conversion.are_parts and utterance.duration is not None)
            )
            name = audio_name(split, utterance.id, conversion.audio_format)
            yield _Job(split, utterance, is_part, None if conversion.keeps_files else name)


def _place(
    folder: Path, job: _Job, conversion: Conversion, known: Mapping[str, Written]
) -> _Done | Finding:
    utterance, rate = job.utterance, conversion.sample_rate
    tolerance_s = conversion.duration_tolerance_s
    try:
        if job.name is None:
            return _measure(utterance, job.is_part, tolerance_s)
        target = folder / job.name
        fingerprint = _fingerprint(job, conversion)
        before = known.get(job.name)
        if before and before.fingerprint == fingerprint and _has_size(target, before.num_bytes):
            return _Done(before.num_samples / rate, before)
        duration = utterance.duration if job.is_part else None
        path, offset = utterance.audio_filepath, utterance.offset
        waveform = load_audio(
            path, rate, offset=offset, duration=duration, channel=utterance.channel
        )
    except (ValueError, OSError) as error:
        return utterance.finding(Kind.UNREADABLE_AUDIO, describe_error(error))
    if wrong := check_length(utterance, len(waveform) / rate, tolerance_s):
        return wrong
    # Outside of the try: a disk that is full is no fault of the utterance.
    content, num_clipped = encode_audio(waveform, rate, conversion.audio_format.upper())
    with replacing(target, durable=False) as file:
        file.write(content)
    written = Written(fingerprint, len(waveform), num_clipped, len(content))
    return _Done(len(waveform) / rate, written, is_fresh=True)


def _has_size(path: Path, num_bytes: int) -> bool:
    return path.is_file() and path.stat().st_size == num_bytes


def _measure(utterance: Utterance, is_part: bool, tolerance_s: float) -> _Done | Finding:
    """The duration of audio that stays where it is, by its header."""
    total = probe(utterance.audio_filepath).duration
    if not is_part:
        return check_length(utterance, total, tolerance_s) or _Done(total)
    left = total - utterance.offset
    if left <= 0:
        raise ValueError(f"begins at {utterance.offset:g} s, expected less than {total:g} s")
    duration = left if utterance.duration is None else min(utterance.duration, left)
    # Less than what is left of the file is all right, more is not.
    if duration == left and (wrong := check_length(utterance, left, tolerance_s)):
        return wrong
    if utterance.offset == 0 and duration < total - tolerance_s:
        raise ValueError(
            "begins at 0 s and ends before its file does, which needs audio_format wav or flac"
        )
    return _Done(duration)


def _fingerprint(job: _Job, conversion: Conversion) -> str:
    utterance = job.utterance
    status = utterance.audio_filepath.stat()
    made_from = [
        CONVERSION,
        str(utterance.audio_filepath.absolute()),
        status.st_size,
        status.st_mtime_ns,
        *utterance.part,
        job.is_part,
        conversion.duration_tolerance_s,
        conversion.sample_rate,
        conversion.audio_format,
    ]
    return hashlib.sha256(json.dumps(made_from).encode()).hexdigest()


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


# --- the journal -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Written:
    """A file that was written.

    Attributes:
        fingerprint: of the source and the settings it was made from.
        num_samples: of its audio.
        num_clipped: samples that were beyond full scale.
        num_bytes: of the whole file, by which a cut one is found out.
    """

    fingerprint: str
    num_samples: int
    num_clipped: int
    num_bytes: int


class Journal:
    """Written files by their path in the corpus folder; one line each, added when it is in place.

    Attributes:
        done: what is noted; all of these names are such as `audio_name` makes.
    """

    def __init__(self, path: Path, file: TextIO, done: dict[str, Written]) -> None:
        self._path = path
        self._file = file
        self.done = done

    def add(self, name: str, written: Written) -> None:
        """Note that a file is in place."""
        assert _AUDIO_NAME.fullmatch(name), "a name of ours"
        self.done[name] = written
        self._file.write(_journal_line(name, written))

    def forget(self, names: Collection[str]) -> None:
        """Strike files that are gone."""
        for name in names:
            del self.done[name]
        _rewrite(self._path, self.done)


@contextmanager
def open_journal(folder: Path, say: Say) -> Iterator[Journal]:
    """Read a corpus folder's journal and keep it open for additions.

    Files are deleted by what it says, and the folder may come from anybody: a line that is no
    entry, or whose file is none that a preparation writes, is skipped. It then stands in the
    journal no longer, its file is left alone, and is made again where it is needed.

    Args:
        folder: of the corpus.
        say: told of lines that are skipped.

    Raises:
        ValueError: a link among the folders that the files lie in, or a journal that is no file
            or too large.
        OSError: unreadable.
    """
    refuse_links(folder, (AUDIO_DIR, *(f"{AUDIO_DIR}/{split}" for split in SPLITS)))
    path = folder / STATE_DIR / "audio.jsonl"
    done: dict[str, Written] = {}
    first_bad, num_bad = "", 0
    if path.exists():
        with open_regular(path, "a journal of asr prepare") as file:
            for number, raw in lines(file, path, MAX_JOURNAL_BYTES):
                try:
                    name, written = _journal_entry(raw, f"{path}:{number}")
                    done[name] = written
                except ValueError as error:
                    first_bad, num_bad = first_bad or str(error), num_bad + 1
    if num_bad:
        others = f" (and {num_bad - 1} more)" if num_bad > 1 else ""
        say(f"skipped, its file is left alone: {first_bad}{others}")
    # Without it, the first new line would be the rest of one that a kill cut.
    _rewrite(path, done)
    with open(path, "a", buffering=1, encoding="utf-8") as additions:
        yield Journal(path, additions, done)


def _rewrite(path: Path, done: Mapping[str, Written]) -> None:
    replace_text(path, "".join(_journal_line(*entry) for entry in done.items()))


def _journal_line(name: str, written: Written) -> str:
    return json.dumps({"file": name, **asdict(written)}) + "\n"


def _journal_entry(raw: bytes, where: str) -> tuple[str, Written]:
    """The entry of a line.

    Raises:
        ValueError: it has none, as where a kill or a full disk cut it.
    """
    if len(raw) > MAX_LINE_BYTES:
        raise ValueError(f"{where}: more than {MAX_LINE_BYTES} bytes, expected a shorter line")
    entry = parse_json(raw.decode(errors="backslashreplace"), where, "an entry of the journal")
    name = entry.pop("file", None) if isinstance(entry, dict) else None
    if not isinstance(name, str) or not _AUDIO_NAME.fullmatch(name):
        raise ValueError(f"{where}: file is {shown(name)}, expected one that asr prepare writes")
    return name, record(Written, entry, where)
