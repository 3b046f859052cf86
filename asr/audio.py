"""Audio files to waveforms, float32 at the asked rate, bounded in time and memory; and back."""

from __future__ import annotations

import io
import logging
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from asr.audio_array import AudioArray
from asr.audio_file import AudioFile, Block, Source, open_audio
from asr.memory import require_memory

# What counts as audio in a folder; a file that is named may be called anything.
AUDIO_SUFFIXES = (
    ".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".snd",
    ".w64", ".caf", ".sph", ".voc", ".m4a", ".m4b", ".mp4", ".mov", ".3gp", ".aac", ".webm",
    ".mkv", ".mka", ".avi", ".wma", ".amr", ".mp2", ".ac3", ".gsm",
)  # fmt: skip
INT16_SCALE = 1 << 15  # of 16-bit samples
MAX_DURATION_S = 4 * 3600.0  # [s] of a waveform as a whole
MAX_STREAMED_S = 48 * 3600.0  # [s] of a file that is decoded in blocks, or for its length alone
BLOCK_SAMPLES = 1 << 16  # of a stream, at least
LONG_S = 600.0  # [s] of which nobody asks whether there is memory for it
SLACK_S = 0.1  # [s] by which honest writers miscount: bytes of the header, delay of the codec
LOUDEST = 2.0**31  # float samples scaled like 32-bit integers; above that, powers overflow
CANCELLED = 10**-2.5  # the mix's power over the loudest channel's: less, and they cancel

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class AudioInfo:
    """What an audio file says of itself.

    Attributes:
        sample_rate: [Hz].
        num_samples: samples a channel.
        num_channels: 1 for mono.
    """

    sample_rate: int
    num_samples: int
    num_channels: int

    @property
    def duration(self) -> float:
        """Its length [s]."""
        return self.num_samples / self.sample_rate


@dataclass(frozen=True)
class Recording:
    """A file, and what its header says."""

    path: Path
    info: AudioInfo


def probe(source: Source) -> AudioInfo:
    """Read an audio file's header; where that does not tell its length, decode and count.

    Args:
        source: a path, or the bytes of a file.

    Returns:
        Rate, length and channels; the length may be wrong in a damaged file, which `load_audio`
        finds out.

    Raises:
        ValueError: empty, broken, not audio, or out of bounds.
        OSError: missing or unreadable.
    """
    with open_audio(source) as file:
        num_samples = file.num_samples
        if num_samples is None:
            num_samples = 0
            for block in file.blocks(0):
                num_samples += len(block)
                if num_samples > MAX_STREAMED_S * file.sample_rate:
                    raise ValueError(
                        f"{file.name}: more than {MAX_STREAMED_S:g} s of audio, expected less"
                    )
            if not num_samples:
                raise ValueError(f"{file.name}: no audio samples, expected at least one")
        return AudioInfo(file.sample_rate, num_samples, file.num_channels)


def list_recordings(folder: Path | str) -> tuple[Recording, ...]:
    """List the audio files of a folder and the folders in it, each with its header read.

    Args:
        folder: audio files are those that `find_audio` finds; others (a licence, a table) are not
            looked at.

    Returns:
        In the order of their paths, so that the same folder gives the same draws; at least one.

    Raises:
        ValueError: no such folder, none of its files audio, or a file that cannot be read as such.
        OSError: a file that may not be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        found = "a file" if folder.exists() else "missing"
        raise ValueError(f"{folder}: {found}, expected a folder of audio files")
    return tuple(Recording(path, probe(path)) for path in find_audio(folder)[0])


def find_audio(folder: Path) -> tuple[list[Path], list[Path]]:
    """Find the audio files of a folder and the folders in it, by their suffixes.

    Hidden files and folders (a dot before the name, as of the `._x.wav` that macOS leaves) are not
    looked at. Links are followed, each folder once.

    Returns:
        Audio files in the order of their paths, at least one, and the other files likewise.

    Raises:
        ValueError: no audio file.
    """
    audio: list[Path] = []
    others: list[Path] = []
    seen: set[tuple[int, int]] = set()  # device and inode: a link may lead to a folder above it
    for place, folders, names in os.walk(folder, followlinks=True):
        state = os.stat(place)
        if (state.st_dev, state.st_ino) in seen:
            folders.clear()
            continue
        seen.add((state.st_dev, state.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for path in (Path(place, name) for name in names if not name.startswith(".")):
            (audio if path.suffix.lower() in AUDIO_SUFFIXES else others).append(path)
    if not audio:
        raise ValueError(f"{folder}: no audio files, expected {' '.join(AUDIO_SUFFIXES)}")
    return sorted(audio), sorted(others)


def load_audio(
    source: Source,
    sample_rate: int,
    *,
    offset: float = 0.0,
    duration: float | None = None,
    max_duration: float = MAX_DURATION_S,
    channel: int | None = None,
) -> NDArray[np.float32]:
    """Decode audio to one float32 channel at the asked rate.

    Any format of libsndfile or FFmpeg (`audio_file` says which reads what). Channels are averaged,
    unless they cancel each other: then the loudest is taken. Resampling is band-limited (soxr's
    high quality, as in librosa), to `ceil(num_samples * sample_rate / rate)` samples. A file that
    was cut short is refused where it is read to its end and its header tells (wav, flac, mp3, mp4)
    or its last page does (ogg: opus, vorbis).

    Args:
        source: a path, the bytes of a file, or an array.
        sample_rate: of the result [Hz].
        offset: where to start [s].
        duration: how much to read at most [s]; None reads to the end.
        max_duration: refuse to decode more than this [s].
        channel: which alone is read, from 0; None averages all.

    Returns:
        Waveform `(num_samples,)`, float32, nominally in [-1, 1].

    Raises:
        ValueError: empty, broken, cut short, not audio, NaN or Inf samples, offset past the end, no
            such channel, too long, or more than there is memory for.
        OSError: missing or unreadable.
    """
    with open_audio(source) as file:
        start, count = _span(file, offset, duration, max_duration)
        blocks = _decode(file, sample_rate, start, count, max_duration, channel)
        parts: list[NDArray[np.float32]] = []
        num_samples, affordable_s = 0, LONG_S
        # Block by block: never is the whole held at the file's own rate.
        for block in blocks:
            parts.append(block)
            num_samples += len(block)
            seconds = max((count or 0) / file.sample_rate, num_samples / sample_rate)
            if seconds > affordable_s:  # its blocks, and then the whole of them
                affordable_s = seconds if count else 2 * seconds
                require_memory(
                    2 * 4 * affordable_s * sample_rate, f"{file.name}: {seconds:g} s of audio"
                )
    return np.concatenate([*parts, np.zeros(0, np.float32)])


def stream_audio(
    source: Source, sample_rate: int, *, channel: int | None = None
) -> Iterator[NDArray[np.float32]]:
    """Decode audio of up to MAX_STREAMED_S as `load_audio` does, in blocks.

    Args:
        source: a path, the bytes of a file, or an array.
        sample_rate: of the result [Hz].
        channel: which alone is read, from 0; None averages all.

    Yields:
        The samples `(n,)`, float32, which joined are those of `load_audio`.

    Raises:
        ValueError: as `load_audio`; what is wrong with a file's end is found there.
        OSError: missing or unreadable.
    """
    with open_audio(source) as file:
        start, count = _span(file, 0.0, None, MAX_STREAMED_S)
        yield from _decode(file, sample_rate, start, count, MAX_STREAMED_S, channel)


def _decode(
    file: AudioFile,
    sample_rate: int,
    start: int,
    count: int | None,
    max_duration: float,
    channel: int | None,
) -> Iterator[NDArray[np.float32]]:
    """Decode, mix and resample a stretch of a file, in blocks of BLOCK_SAMPLES and more."""
    rate = file.sample_rate
    mix = _Mix(file, channel)
    stream = soxr.ResampleStream(rate, sample_rate, 1, dtype="float32", quality="HQ")
    parts: list[NDArray[np.float32]] = []  # FFmpeg's frames are short
    waiting = given = decoded = 0  # samples
    for block in file.blocks(start, count):
        decoded += len(block)
        if decoded / rate > max_duration:
            raise ValueError(
                f"{file.name}: more than {max_duration:g} s of audio, expected at most that at once"
            )
        samples = mix(block)
        parts.append(samples if rate == sample_rate else stream.resample_chunk(samples))
        waiting += len(parts[-1])
        if waiting >= BLOCK_SAMPLES:
            yield np.concatenate(parts)
            given += waiting
            parts, waiting = [], 0
    if not decoded and file.num_samples is None and start:
        raise ValueError(f"{file.name}: offset {start / rate:g} s, expected less than its length")
    _require_whole(file, start, count, decoded)
    if rate != sample_rate:
        parts.append(stream.resample_chunk(np.zeros(0, dtype=np.float32), last=True))
        # soxr rounds the length; here it is always rounded up.
        parts.append(np.zeros(1, dtype=np.float32))
    if parts:
        yield np.concatenate(parts)[: -(-decoded * sample_rate // rate) - given]


def count_channels(source: Source) -> int:
    """Count the channels of a source, 1 for mono.

    Raises:
        ValueError: empty, broken, not audio, or out of bounds.
        OSError: missing or unreadable.
    """
    with open_audio(source) as file:
        return file.num_channels


def header_duration(source: Source) -> float | None:
    """Tell the length of a source by its header alone [s]; None where that does not tell it.

    Raises:
        ValueError: empty, broken, not audio, or out of bounds.
        OSError: missing or unreadable.
    """
    with open_audio(source) as file:
        return None if file.num_samples is None else file.num_samples / file.sample_rate


def encode_audio(
    waveform: NDArray[np.float32], sample_rate: int, container: str, subtype: str = "PCM_16"
) -> tuple[bytes, int]:
    """Encode a waveform with 16 bits a sample.

    One that goes beyond full scale, as floats on the scale of integers do, is made softer as a
    whole: clipping would be another sound.

    Args:
        waveform: `(num_samples,)`, nominally in [-1, 1].
        sample_rate: [Hz].
        container: as libsndfile names it: WAV, FLAC, OGG.
        subtype: as libsndfile names the encoding.

    Returns:
        The content of a file, and how many samples were beyond full scale.
    """
    # Of floats libsndfile cuts off what a WAV's 16 bits do not hold; here it is rounded.
    scaled = np.rint(waveform * np.float32(INT16_SCALE))
    num_beyond = np.count_nonzero((scaled < -INT16_SCALE) | (scaled > INT16_SCALE))
    if num_beyond:
        scaled = np.rint(waveform * np.float32((INT16_SCALE - 1) / np.abs(waveform).max()))
    samples = np.clip(scaled, -INT16_SCALE, INT16_SCALE - 1).astype(np.int16)
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, sample_rate, format=container, subtype=subtype)
    return buffer.getvalue(), int(num_beyond)


def _span(
    file: AudioFile, offset: float, duration: float | None, max_duration: float
) -> tuple[int, int | None]:
    """First sample and number of samples to decode; None is all that come."""
    rate, total = file.sample_rate, file.num_samples
    if total == 0:  # an array: a file has some
        return 0, 0
    end_s = math.inf if total is None else total / rate
    if duration is not None and not duration * rate > 0.5:
        raise ValueError(f"{file.name}: duration {duration:g} s, expected at least one sample")
    start = round(offset * rate) if 0 <= offset < min(end_s, MAX_STREAMED_S) else -1
    if start < 0 or start == total:
        raise ValueError(f"{file.name}: offset {offset:g} s, expected 0 to less than {end_s:g} s")
    if total is None:
        return start, None if duration is None else round(min(duration, MAX_STREAMED_S) * rate)
    left = total - start
    if duration is not None:
        left = round(min(duration * rate, left))
    if left > max_duration * rate:
        raise ValueError(
            f"{file.name}: {left / rate:g} s of audio, expected at most {max_duration:g} s at once"
        )
    return start, left


def _require_whole(file: AudioFile, start: int, count: int | None, decoded: int) -> None:
    """Refuse what ends before its header, or the last page of an Ogg, says."""
    rate, total = file.sample_rate, file.num_samples
    missing = 0 if total is None or count is None else count - decoded
    if count is None or decoded < count or (total is not None and start + count == total):
        missing += file.promised_beyond_end()
        if file.is_cut_ogg():
            raise ValueError(
                f"{file.name}: cut short, {decoded / rate:g} s of audio, expected an Ogg stream "
                "with its last page"
            )
    if missing > SLACK_S * rate or (missing and not decoded):
        raise ValueError(
            f"{file.name}: cut short, {decoded / rate:g} s of audio, "
            f"expected {(decoded + missing) / rate:g} s"
        )
    if not decoded and not isinstance(file, AudioArray):
        raise ValueError(f"{file.name}: no audio samples, expected at least one")


class _Mix:
    """One channel of several: the one that is asked for, or the mean of all.

    Channels of opposite phase, as of a balanced line that was recorded as stereo, cancel each other
    in the mean; then the louder one is taken, for the whole file.
    """

    def __init__(self, file: AudioFile, channel: int | None) -> None:
        if channel is not None and not 0 <= channel < file.num_channels:
            raise ValueError(
                f"{file.name}: channel {channel}, expected 0 to {file.num_channels - 1}"
            )
        self.name = file.name
        self.channel = 0 if file.num_channels == 1 else channel
        self.is_settled = self.channel is not None

    def __call__(self, block: Block) -> NDArray[np.float32]:
        """Mix `(n, num_channels)` to `(n,)`."""
        with np.errstate(over="ignore"):  # Inf is refused below
            mixed = block.mean(axis=1) if self.channel is None else block[:, self.channel]
        if not np.isfinite(mixed).all():
            raise ValueError(f"{self.name}: NaN or Inf among the samples, expected finite numbers")
        peak = max(mixed.max(), -mixed.min())
        if peak > LOUDEST:
            raise ValueError(f"{self.name}: samples up to {peak:g}, expected -1 to 1 or near it")
        if not self.is_settled:
            powers = np.square(block, dtype=np.float64).mean(axis=0)  # (num_channels,)
            # Settled by the first block that has sound.
            self.is_settled = bool(powers.max() > 0)
            if np.square(mixed, dtype=np.float64).mean() < CANCELLED * powers.max():
                self.channel = int(powers.argmax())
                logger.warning(
                    "%s: its channels cancel each other, so channel %d alone is read",
                    self.name, self.channel,
                )  # fmt: skip
                return block[:, self.channel]
        return mixed
