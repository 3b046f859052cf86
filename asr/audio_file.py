"""Audio files opened by the library that reads them whole: blocks of samples, and their count.

libsndfile is exact and fast where it counts right. It believes guesses elsewhere: the frame count
of an mp3 without one in its header, the first of several streams in an Ogg, a wav whose recorder
died before it wrote the length; and of an mp3 that is read in pieces it loses the seams. All those,
and the formats that it lacks, go through FFmpeg: decoded from the beginning to the end, counted.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import soundfile
from numpy.typing import NDArray

from asr.audio_array import AudioArray

if TYPE_CHECKING:
    from av.container import InputContainer

MIN_SAMPLE_RATE = 1_000  # [Hz] below this no speech is left, and resampling up explodes
MAX_SAMPLE_RATE = 384_000  # [Hz] the highest rate of professional converters
MAX_CHANNELS = 64
BLOCK_VALUES = 2**20  # decoded at a time, so that a forged length costs no memory
PREROLL_S = 1.0  # [s] decoded and dropped after a seek: mp3 frames lean on earlier ones
MAX_DAMAGED = 0.01  # share of packets that a decoder may refuse: tags between joined mp3s

SF_COUNT_MAX = 2**63 - 1  # what libsndfile gives for an unknown length

# FFmpeg's containers that a file may be taken for: none that names other files (playlists, lists of
# parts, images in a row), and no protocol but the open file itself.
MEDIA_OPTIONS = {
    "format_whitelist": "aac,ac3,aiff,amr,amrnb,amrwb,asf,au,avi,caf,eac3,flac,flv,gsm,iff,ircam,"
    "matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,mp3,mpeg,mpegts,nistsphere,ogg,sox,tta,voc,w64,wav,wv",
    "protocol_whitelist": "none",
}

# Writers that cannot go back to the header of a wav promise 0, or 2^31 or 2^32 bytes less its own.
STREAM_BYTES = 2**31 - 2**16
MAX_CHUNKS = 1_000  # of a wav, before its samples
MP3_SPARE_BYTES = 2_048  # behind the last counted frame: an ID3v1 tag, a frame without samples
OGG_PAGE, OGG_HEADER = b"OggS", 27  # what each page begins with, and its bytes before the sizes
OGG_BEGINNING = b"OggS\0\2"  # of a logical stream's first page
OGG_END = 4  # the flag of its last page
OGG_TAIL = 2 * (OGG_HEADER + 255 + 255 * 255)  # [bytes] two pages of the largest size
SEARCHED_AT_ONCE = 2**20  # [bytes]
BITS_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))

Encoded = Path | str | bytes  # a path, or the bytes of a file
Source = Encoded | AudioArray
Block = NDArray[np.float32]  # `(n, num_channels)`


class CountedFile:
    """A file that libsndfile reads.

    Attributes:
        name: for messages.
        sample_rate: [Hz].
        num_channels: 1 for mono.
        num_samples: samples a channel.
    """

    num_samples: int | None

    def __init__(self, file: soundfile.SoundFile, source: Encoded, name: str) -> None:
        self.name = name
        self.sample_rate: int = file.samplerate
        self.num_channels: int = file.channels
        self.num_samples = file.frames
        self._file, self._source = file, source

    def blocks(self, start: int = 0, count: int | None = None) -> Iterator[Block]:
        """Decode from a sample on; fewer than asked come where the file ends early.

        Raises:
            ValueError: damaged.
        """
        lead = min(start, round(PREROLL_S * self.sample_rate))
        try:
            if not self._file.seekable():  # GSM 6.10, G.721: from the beginning
                lead = start
            elif start > lead:
                self._file.seek(start - lead)
            left = self._file.frames - start if count is None else count
            while left > 0:
                size = min(lead + left, BLOCK_VALUES // self.num_channels)
                block = self._file.read(size, dtype="float32", always_2d=True)
                if not len(block):
                    return
                lead, block = max(lead - len(block), 0), block[lead:]
                left -= len(block)
                if len(block):
                    yield block
        except soundfile.LibsndfileError as error:
            reason = error.error_string.rstrip(".")
            raise ValueError(f"{self.name}: damaged audio ({reason})") from error

    def promised_beyond_end(self) -> int:
        """Samples that the header of a wav promises behind the end of the file.

        libsndfile counts those that are there, and says nothing of the others.
        """
        if self._file.format not in ("WAV", "WAVEX"):
            return 0
        with _bytes_of(self._source) as file:
            promised, present = _wav_data_bytes(file)
        if not 0 < present < promised < STREAM_BYTES:
            return 0
        return int(self._file.frames * (promised - present) // present)

    def is_cut_ogg(self) -> bool:
        """Whether it is an Ogg file without its end."""
        return self._file.format == "OGG" and _is_cut_ogg(self._source)


class JoinedFile:
    """An Ogg file of one whole stream behind another, as `cat` or a recorder that pauses leaves it.

    Attributes: as those of `CountedFile`, of all parts together.
    """

    num_samples: int | None

    def __init__(self, parts: Sequence[CountedFile]) -> None:
        self.name = parts[0].name
        self.sample_rate, self.num_channels = parts[0].sample_rate, parts[0].num_channels
        self._parts = parts
        self._lengths = [part.num_samples or 0 for part in parts]
        self.num_samples = sum(self._lengths)

    def blocks(self, start: int = 0, count: int | None = None) -> Iterator[Block]:
        """Decode from a sample on; fewer than asked come where the file ends early.

        Raises:
            ValueError: damaged.
        """
        end = sum(self._lengths) if count is None else start + count
        first = 0
        for part, length in zip(self._parts, self._lengths, strict=True):
            begin, stop = max(start - first, 0), min(end - first, length)
            if begin < stop:
                yield from part.blocks(begin, stop - begin)
            first += length

    def promised_beyond_end(self) -> int:
        """Count no sample: an Ogg promises none."""
        return 0

    def is_cut_ogg(self) -> bool:
        """Whether one of its streams is without its end."""
        return any(part.is_cut_ogg() for part in self._parts)


class MediaFile:
    """A file that FFmpeg decodes from its beginning to its end.

    Attributes:
        name: for messages.
        sample_rate: [Hz].
        num_channels: 1 for mono.
        num_samples: samples a channel, where the file lists or counts them (mp4, m4a, mov, 3gp,
            an mp3 with a count); None where only decoding tells.
    """

    num_samples: int | None

    def __init__(self, container: InputContainer, source: Encoded, name: str) -> None:
        self.name = name
        self._container, self._source = container, source
        self._stream = container.streams.audio[0]
        # One thread: loading processes are many, and threads of a library do not live through a
        # fork.
        self._stream.codec_context.thread_count = 1
        self.sample_rate = self._stream.codec_context.sample_rate
        self.num_channels = self._stream.codec_context.channels
        self.num_samples = None
        has_count = "mov" in container.format.name
        if container.format.name == "mp3":
            with _bytes_of(source) as file:
                has_count = _is_counted_mp3(file)
        if has_count and self._stream.duration:
            self.num_samples = round(self._stream.duration * self._time_base * self.sample_rate)

    def blocks(self, start: int = 0, count: int | None = None) -> Iterator[Block]:
        """Decode from a sample on; fewer than asked come where the file ends early.

        Raises:
            ValueError: damaged.
        """
        skipped: int | None = start
        if self.num_samples is not None and start > PREROLL_S * self.sample_rate:
            moment = int((start / self.sample_rate - PREROLL_S) / self._time_base)
            self._container.seek(moment + (self._stream.start_time or 0), stream=self._stream)
            skipped = None  # the first frame tells where it is
        left = math.inf if count is None else count
        for moment, block in self._decoded():
            if skipped is None:
                skipped = start - self._sample_at(moment)
                if skipped < 0:
                    raise ValueError(f"{self.name}: damaged audio (its times do not fit)")
            dropped = min(skipped, len(block))
            skipped -= dropped
            part = block[dropped:] if len(block) - dropped <= left else block[dropped:][: int(left)]
            left -= len(part)
            if len(part):
                yield part
            if not left:
                return

    def promised_beyond_end(self) -> int:
        """Count no sample: what is missing of a file in a list is missing of `num_samples`."""
        return 0

    def is_cut_ogg(self) -> bool:
        """Whether it is an Ogg file without its end."""
        return self._container.format.name == "ogg" and _is_cut_ogg(self._source)

    @property
    def _time_base(self) -> Fraction:
        assert self._stream.time_base is not None  # every audio stream has one
        return self._stream.time_base

    def _sample_at(self, moment: int) -> int:
        """The number of the sample at a moment of the stream's clock."""
        since = moment - (self._stream.start_time or 0)
        return round(since * self._time_base * self.sample_rate)

    def _decoded(self) -> Iterator[tuple[int, Block]]:
        """Blocks in the rate and the channels that the file begins with, each with its moment."""
        import av
        from av.audio.resampler import AudioResampler

        num_packets = num_damaged = 0
        shape: object = None
        try:
            for packet in self._container.demux(self._stream):
                num_packets += 1
                try:
                    decoded = packet.decode()
                except av.error.FFmpegError:
                    # Tags between joined files, the rest of a frame at the end.
                    num_damaged += 1
                    continue
                for frame in decoded:
                    # A joined stream may go on in another form.
                    if shape != (
                        shape := (frame.format.name, frame.layout.name, frame.sample_rate)
                    ):
                        # Interleaved: PyAV 18 reads beyond the planes of more than 8 channels.
                        convert = AudioResampler("flt", self._stream.layout, self.sample_rate)
                    moment = 0 if frame.pts is None else frame.pts
                    for each in convert.resample(frame):
                        samples = each.to_ndarray().astype(np.float32, copy=False)
                        yield moment, samples.reshape(-1, self.num_channels)
        except av.error.FFmpegError as error:
            raise ValueError(f"{self.name}: damaged audio ({error.strerror})") from error
        if num_damaged > 1 + MAX_DAMAGED * num_packets:
            raise ValueError(f"{self.name}: damaged audio ({num_damaged} of {num_packets} packets)")


AudioFile = CountedFile | JoinedFile | MediaFile | AudioArray


def source_name(source: Source) -> str:
    """What messages call a source."""
    if isinstance(source, AudioArray):
        return source.name
    return f"<{len(source)} bytes of audio>" if isinstance(source, bytes) else str(source)


@contextlib.contextmanager
def open_audio(source: Source) -> Iterator[AudioFile]:
    """Open an audio file by libsndfile where it counts right, else by FFmpeg.

    Args:
        source: a path, the bytes of a file, or an array.

    Raises:
        ValueError: empty, broken, not audio, or out of bounds.
        OSError: missing or unreadable.
    """
    if isinstance(source, AudioArray):
        _check_rate(source)
        yield source
        return
    name = source_name(source)
    head = _read_head(source, name)
    with contextlib.ExitStack() as stack:
        sound, reason = None, "damaged"
        if not _is_mpeg(head):
            try:
                # A path as its bytes: not every name can be decoded.
                target = io.BytesIO(source) if isinstance(source, bytes) else os.fsencode(source)
                sound = stack.enter_context(soundfile.SoundFile(target))
            except soundfile.LibsndfileError as error:
                reason = error.error_string.rstrip(".")
        file: AudioFile
        if sound is not None and sound.format == "OGG":
            file = _ogg_file(sound, source, name, stack)
        elif sound is not None and 0 < sound.frames < SF_COUNT_MAX:
            file = CountedFile(sound, source, name)
        elif (container := _media_container(source, stack)) is not None:
            file = MediaFile(container, source, name)
        elif sound is not None:  # a codec that FFmpeg lacks, as NMS ADPCM
            file = CountedFile(sound, source, name)
        else:
            raise ValueError(
                f"{name}: cannot be read as audio ({reason}), expected wav, flac, ogg, opus, mp3, "
                "m4a, mp4, webm or another format of FFmpeg"
            )
        _check_rate(file)
        if not 0 < file.num_channels <= MAX_CHANNELS:
            raise ValueError(f"{name}: {file.num_channels} channels, expected 1 to {MAX_CHANNELS}")
        if file.num_samples == SF_COUNT_MAX:
            raise ValueError(f"{name}: no length in its header, expected one")
        if file.num_samples is not None and file.num_samples <= 0:
            raise ValueError(f"{name}: no audio samples, expected at least one")
        yield file


def _check_rate(file: AudioFile) -> None:
    if not MIN_SAMPLE_RATE <= file.sample_rate <= MAX_SAMPLE_RATE:
        raise ValueError(
            f"{file.name}: sample rate {file.sample_rate} Hz, "
            f"expected {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE} Hz"
        )


def _read_head(source: Encoded, name: str) -> bytes:
    """The first bytes of what is a file with some, before a library waits for it or guesses."""
    if isinstance(source, bytes):
        head = source[:3]
    else:
        path = Path(source)
        if path.is_dir():
            raise IsADirectoryError(21, "is a folder, expected an audio file", name)
        if path.exists() and not path.is_file():
            raise ValueError(f"{name}: not a regular file, expected an audio file")
        with path.open("rb") as file:  # raises what the system says, libsndfile would not
            head = file.read(3)
        if path.suffix.lower() in (".raw", ".pcm"):
            raise ValueError(
                f"{name}: samples without a header, expected wav, flac, ogg or mp3; such as 16-bit "
                "mono at 16 kHz become one by: ffmpeg -f s16le -ar 16000 -ac 1 -i FILE FILE.wav"
            )
    if not head:
        raise ValueError(f"{name}: empty file, expected audio")
    return head


def _media_container(source: Encoded, stack: contextlib.ExitStack) -> InputContainer | None:
    """FFmpeg's view of a file; None where it sees no audio in it."""
    import av

    # Always an open file: FFmpeg would take a name for an address or a list of files.
    file = stack.enter_context(_bytes_of(source))
    try:
        container = av.open(file, "r", options=dict(MEDIA_OPTIONS), metadata_errors="ignore")
        stack.enter_context(container)
    except av.error.FFmpegError:
        return None
    streams = container.streams.audio
    return container if streams and streams[0].codec_context is not None else None


def _bytes_of(source: Encoded) -> BinaryIO:
    return io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb")


# --- which headers tell the truth --------------------------------------------------------------


def _is_mpeg(head: bytes) -> bool:
    """Whether a file begins as an mp3 or a stream of AAC: with a tag, or the mark of a frame."""
    return head == b"ID3" or (head[0] == 0xFF and len(head) > 1 and head[1] >= 0xE0)


def _is_counted_mp3(file: BinaryIO) -> bool:
    """Whether an mp3's first frame counts frames and bytes, and no bytes follow these.

    Without such a count (Xing's or LAME's) every library multiplies the first frame's bit rate.
    """
    head = file.read(10)
    start = 0
    if head[:3] == b"ID3":  # its size in four bytes of seven bits
        start = 10 + sum(
            byte << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True)
        )
    file.seek(start)
    frame = file.read(200)
    place = max(frame.find(b"Xing"), frame.find(b"Info"))
    fields = frame[place + 4 : place + 16]
    if place < 0 or len(fields) < 12:
        return False
    flags, _, num_bytes = struct.unpack(">III", fields)
    left = file.seek(0, os.SEEK_END) - start
    return bool(flags & 3 == 3 and left <= num_bytes + MP3_SPARE_BYTES)


def _wav_data_bytes(file: BinaryIO) -> tuple[int, int]:
    """Bytes of samples that a wav's header promises, and those that the file has."""
    size = file.seek(0, os.SEEK_END)
    place = 12  # behind RIFF, its size, WAVE
    for _ in range(MAX_CHUNKS):
        file.seek(place)
        header = file.read(8)
        if len(header) < 8:
            break
        length = int.from_bytes(header[4:], "little")
        if header[:4] == b"data":
            return length, size - place - 8
        place += 8 + length + length % 2
    return 0, 0


def _ogg_file(
    sound: soundfile.SoundFile, source: Encoded, name: str, stack: contextlib.ExitStack
) -> AudioFile:
    """An Ogg file, of which libsndfile reads the first stream alone, with all its streams."""
    with _bytes_of(source) as file:
        starts = _ogg_starts(file)
        if len(starts) == 1:
            return CountedFile(sound, source, name)
        file.seek(0)
        content = file.read()
    parts = []
    for start, end in zip(starts, [*starts[1:], len(content)], strict=True):
        part = content[start:end]
        try:
            opened = stack.enter_context(soundfile.SoundFile(io.BytesIO(part)))
        except soundfile.LibsndfileError as error:
            raise ValueError(
                f"{name}: damaged audio, or cut short, from byte {start} on, expected another "
                "Ogg stream"
            ) from error
        parts.append(CountedFile(opened, part, name))
    forms = {(part.sample_rate, part.num_channels) for part in parts}
    if len(forms) > 1:
        found = " and ".join(f"{rate} Hz x {channels}" for rate, channels in sorted(forms))
        raise ValueError(
            f"{name}: joined of streams of {found}, expected one sample rate and one number of "
            "channels"
        )
    return JoinedFile(parts)


def _ogg_starts(file: BinaryIO) -> list[int]:
    """Where the streams of an Ogg file begin that come one behind another (RFC 3533).

    Streams beside each other, as those of a film, all begin before the first page of any goes on.
    """
    starts = [0]
    place = _behind_beginnings(file, 0)
    while True:
        file.seek(place)
        kept = b""
        while (found := (searched := kept + file.read(SEARCHED_AT_ONCE)).find(OGG_BEGINNING)) < 0:
            if len(searched) == len(kept):
                return starts
            kept = searched[1 - len(OGG_BEGINNING) :]
        starts.append(file.tell() - len(searched) + found)
        place = _behind_beginnings(file, starts[-1])


def _behind_beginnings(file: BinaryIO, place: int) -> int:
    """The place behind the first pages of streams that begin at a place of an Ogg file."""
    while True:
        file.seek(place)
        header = file.read(OGG_HEADER + 255)
        if not header.startswith(OGG_BEGINNING) or len(header) < OGG_HEADER:
            return place
        sizes = header[OGG_HEADER : OGG_HEADER + header[OGG_HEADER - 1]]
        place += OGG_HEADER + len(sizes) + sum(sizes)


def _is_cut_ogg(source: Encoded) -> bool:
    """Whether an Ogg file ends within a page, or before a stream's last page (RFC 3533).

    Both libraries take the last page that is there for the last one. What comes after it, as some
    taggers write, is no page and tells nothing.
    """
    with _bytes_of(source) as file:
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
