"""Audio files to waveforms, float32 at the asked rate, bounded in time and memory; and back."""

from __future__ import annotations

import io
import os
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from asr.memory import require_memory

# What counts as audio in a folder; a file that is named may be called anything.
AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au")
MIN_SAMPLE_RATE = 1_000  # [Hz] below this no speech is left, and resampling up explodes
MAX_SAMPLE_RATE = 384_000  # [Hz] the highest rate of professional converters
MAX_CHANNELS = 64
INT16_SCALE = 1 << 15  # of 16-bit samples
MAX_DURATION_S = 4 * 3600.0  # [s] longer recordings are to be cut with offset and duration
BLOCK_VALUES = 2**22  # decoded at a time, so that a forged length costs no memory
LONG_S = 600.0  # [s] of which nobody asks whether there is memory for it
PREROLL_S = 1.0  # [s] decoded and dropped after each seek: mp3 frames lean on earlier ones
OGG_PAGE, OGG_HEADER = b"OggS", 27  # what each page begins with, and its bytes before the sizes
BITS_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
OGG_END = 4  # the flag of a logical stream's last page
OGG_TAIL = 2 * (OGG_HEADER + 255 + 255 * 255)  # [bytes] two pages of the largest size
SLACK_S = 0.1  # [s] by which honest writers miscount: bytes of the header, delay of the codec
LOUDEST = 2.0**31  # float samples scaled like 32-bit integers; above that, powers overflow

# Writers that cannot go back to the header promise 2^31 or 2^32 bytes, less the header's.
STREAM_BYTES = 2**31 - 2**16
SF_COUNT_MAX = 2**63 - 1  # what libsndfile gives for an unknown length
SFE_BAD_FILE = 7  # libsndfile's "not a regular file", which is what it also says of a cut mp3

Source = Path | str | bytes


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
    """Read an audio file's header.

    Args:
        source: a path, or the bytes of a file.

    Returns:
        Rate, length and channels as the header gives them; the length may be wrong in a damaged
        file, which `load_audio` finds out.

    Raises:
        ValueError: empty, broken, not audio, or out of bounds.
        OSError: missing or unreadable.
    """
    with _open(source) as file:
        info = AudioInfo(file.samplerate, file.frames, file.channels)
        _check(info, _name(source))
    return info


def list_recordings(folder: Path | str) -> tuple[Recording, ...]:
    """List the audio files of a folder and the folders in it, each with its header read.

    Args:
        folder: audio files are those with a suffix of `AUDIO_SUFFIXES`; others (a licence, a
            table) are not looked at.

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
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES)
    if not paths:
        raise ValueError(f"{folder}: no audio files, expected {' '.join(AUDIO_SUFFIXES)}")
    return tuple(Recording(path, probe(path)) for path in paths)


def load_audio(
    source: Source,
    sample_rate: int,
    *,
    offset: float = 0.0,
    duration: float | None = None,
    max_duration: float = MAX_DURATION_S,
) -> NDArray[np.float32]:
    """Decode audio to one float32 channel at the asked rate.

    Channels are averaged; resampling is band-limited (soxr's high quality, as in librosa), to
    `ceil(num_samples * sample_rate / rate)` samples. A file that was cut short is refused where it
    is read to its end and its header tells (wav, flac and mp3) or its last page does (ogg: opus,
    vorbis). libsndfile guesses the length of an mp3 without a Xing header by the bit rate of its
    first frame.

    Args:
        source: a path, or the bytes of a file, in any format of libsndfile: wav, flac, ogg,
            opus, mp3 and more.
        sample_rate: of the result [Hz].
        offset: where to start [s].
        duration: how much to read at most [s]; None reads to the end.
        max_duration: refuse to decode more than this [s].

    Returns:
        Waveform `(num_samples,)`, float32, nominally in [-1, 1].

    Raises:
        ValueError: empty, broken, cut short, not audio, NaN or Inf samples, offset past the end,
            too long, or more than there is memory for.
        OSError: missing or unreadable.
    """
    name = _name(source)
    with _open(source) as file:
        _check(AudioInfo(file.samplerate, file.frames, file.channels), name)
        start, count = _span(file, name, offset, duration, max_duration)
        seconds = count / file.samplerate
        if seconds > LONG_S:  # its blocks, and then the whole of them
            require_memory(2 * 4 * seconds * sample_rate, f"{name}: {seconds:g} s of audio")
        return _decode(file, source, start, count, sample_rate)


def encode_audio(
    waveform: NDArray[np.float32], sample_rate: int, container: str, subtype: str = "PCM_16"
) -> tuple[bytes, int]:
    """Encode a waveform with 16 bits a sample.

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
    num_clipped = np.count_nonzero((scaled < -INT16_SCALE) | (scaled > INT16_SCALE))
    samples = np.clip(scaled, -INT16_SCALE, INT16_SCALE - 1).astype(np.int16)
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, sample_rate, format=container, subtype=subtype)
    return buffer.getvalue(), int(num_clipped)


def _name(source: Source) -> str:
    return f"<{len(source)} bytes of audio>" if isinstance(source, bytes) else str(source)


def _open(source: Source) -> soundfile.SoundFile:
    name = _name(source)
    if isinstance(source, bytes):
        empty = not source
    else:
        path = Path(source)
        if path.is_dir():
            raise IsADirectoryError(21, "is a folder, expected an audio file", name)
        if path.exists() and not path.is_file():
            raise ValueError(f"{name}: not a regular file, expected an audio file")
        with path.open("rb") as file:  # raises what the system says, libsndfile would not
            empty = not file.read(1)
        if path.suffix.lower() == ".raw":
            raise ValueError(f"{name}: samples without a header, expected wav, flac, ogg or mp3")
    if empty:
        raise ValueError(f"{name}: empty file, expected audio")
    try:
        return soundfile.SoundFile(io.BytesIO(source) if isinstance(source, bytes) else source)
    except soundfile.LibsndfileError as error:
        bad_file = error.code == SFE_BAD_FILE
        reason = "damaged" if bad_file else error.error_string.rstrip(".")
        raise ValueError(
            f"{name}: cannot be read as audio ({reason}), expected wav, flac, ogg, opus or mp3"
        ) from error


def _check(info: AudioInfo, name: str) -> None:
    if not MIN_SAMPLE_RATE <= info.sample_rate <= MAX_SAMPLE_RATE:
        raise ValueError(
            f"{name}: sample rate {info.sample_rate} Hz, "
            f"expected {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE} Hz"
        )
    if info.num_channels > MAX_CHANNELS:
        raise ValueError(f"{name}: {info.num_channels} channels, expected at most {MAX_CHANNELS}")
    if info.num_samples == SF_COUNT_MAX:
        raise ValueError(f"{name}: no length in its header (written to a pipe?), expected one")
    if info.num_samples <= 0:
        raise ValueError(f"{name}: no audio samples, expected at least one")


def _span(
    file: soundfile.SoundFile,
    name: str,
    offset: float,
    duration: float | None,
    max_duration: float,
) -> tuple[int, int]:
    """First sample and number of samples to decode."""
    rate = file.samplerate
    start = round(offset * rate) if 0 <= offset < file.frames / rate else file.frames
    if start >= file.frames:
        raise ValueError(
            f"{name}: offset {offset:g} s, expected 0 to less than {file.frames / rate:g} s"
        )
    left = file.frames - start
    if duration is not None:
        if not duration * rate > 0.5:
            raise ValueError(f"{name}: duration {duration:g} s, expected at least one sample")
        left = round(min(duration * rate, left))
    if left > max_duration * rate:
        raise ValueError(
            f"{name}: {left / rate:g} s of audio, expected at most {max_duration:g} s at once"
        )
    return start, left


def _decode(
    file: soundfile.SoundFile, source: Source, start: int, count: int, sample_rate: int
) -> NDArray[np.float32]:
    """Decode and resample block by block: never is the whole held at the file's own rate."""
    name, rate = _name(source), file.samplerate
    stream = soxr.ResampleStream(rate, sample_rate, 1, dtype="float32", quality="HQ")
    parts: list[NDArray[np.float32]] = []
    decoded = 0
    try:
        for block in _read_blocks(file, start, count):
            _check_samples(block, name)
            decoded += len(block)
            parts.append(block if rate == sample_rate else stream.resample_chunk(block))
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{name}: damaged audio ({error.error_string.rstrip('.')})") from error
    missing = count - decoded
    if start + count == file.frames:
        missing += _cut_samples(file)
        if file.format == "OGG" and _is_cut_ogg(source):
            raise ValueError(
                f"{name}: cut short, {decoded / rate:g} s of audio, expected an Ogg stream with "
                "its last page"
            )
    if missing > SLACK_S * rate or not decoded:
        raise ValueError(
            f"{name}: cut short, {decoded / rate:g} s of audio, "
            f"expected {(decoded + missing) / rate:g} s"
        )
    if rate != sample_rate:
        parts.append(stream.resample_chunk(np.zeros(0, dtype=np.float32), last=True))
        # soxr rounds the length; here it is always rounded up.
        parts.append(np.zeros(1, dtype=np.float32))
    return np.concatenate(parts)[: -(-decoded * sample_rate // rate)]


def _read_blocks(file: soundfile.SoundFile, start: int, left: int) -> Iterator[NDArray[np.float32]]:
    """Decode mono blocks; fewer than asked where the file ends early."""
    preroll = round(PREROLL_S * file.samplerate)
    block = BLOCK_VALUES // file.channels
    end = start + left
    while start < end:
        lead = min(start, preroll)
        file.seek(start - lead)
        part = file.read(lead + min(block, end - start), dtype="float32", always_2d=True)[lead:]
        if not len(part):
            break
        with np.errstate(over="ignore"):  # Inf is refused by the caller
            yield part[:, 0] if part.shape[1] == 1 else part.mean(axis=1)
        start += len(part)


def _cut_samples(file: soundfile.SoundFile) -> int:
    """Samples a channel that the header of a wav promises beyond the end of the file.

    libsndfile counts those that are there and tells of the others in its log only.
    """
    sizes = re.search(r"^data : (\d+) \(should be (\d+)\)$", file.extra_info, re.MULTILINE)
    if sizes is None:
        return 0
    promised, present = int(sizes[1]), int(sizes[2])
    if promised >= STREAM_BYTES:
        return 0
    return int(file.frames * (promised - present) // present)


def _is_cut_ogg(source: Source) -> bool:
    """Whether an Ogg file ends within a page, or before a stream's last page (RFC 3533).

    libsndfile takes the last page that is there for the last one. What comes after it, as some
    taggers write, is no page and tells nothing.
    """
    if isinstance(source, bytes):
        tail = source[-OGG_TAIL:]
    else:
        with open(source, "rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - OGG_TAIL, 0))
            tail = file.read(OGG_TAIL)
    has_ended: dict[bytes, bool] = {}  # by serial number of the logical streams
    end, place = 0, tail.find(OGG_PAGE)
    while place >= 0:
        sizes = place + OGG_HEADER
        body = sizes + tail[sizes - 1] if sizes <= len(tail) else sizes
        end = body + sum(tail[sizes:body])
        if end > len(tail):
            return True
        page = tail[place:end]
        if _has_checksum(page):
            has_ended[page[14:18]] = bool(page[5] & OGG_END)
        else:  # one that was cut before another stream was put behind it
            end = place + 1
        place = tail.find(OGG_PAGE, end)
    rest = tail[end:]
    is_beginning = 0 < len(rest) < len(OGG_PAGE) and OGG_PAGE.startswith(rest)
    return is_beginning or not has_ended or not all(has_ended.values())


def _has_checksum(page: bytes) -> bool:
    """Whether a page of an Ogg file has the CRC that it names; libsndfile passes over others.

    It is that of zlib for bits in the other order, without the inversions at both ends.
    """
    content = (page[:22] + bytes(4) + page[26:]).translate(BITS_REVERSED)
    checksum = zlib.crc32(content, 0xFFFFFFFF) ^ 0xFFFFFFFF
    return checksum.to_bytes(4, "little").translate(BITS_REVERSED) == page[25:21:-1]


def _check_samples(waveform: NDArray[np.float32], name: str) -> None:
    if not np.isfinite(waveform).all():
        raise ValueError(f"{name}: NaN or Inf among the samples, expected finite numbers")
    peak = max(waveform.max(), -waveform.min())
    if peak > LOUDEST:
        raise ValueError(f"{name}: samples up to {peak:g}, expected -1 to 1 or near it")
