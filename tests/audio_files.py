"""Audio files for tests: sound and damaged ones, made in memory."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

RATE = 16_000

# The rms of the error that encoding may cost, as a share of the signal's.
FORMATS = {
    "wav": ({"format": "WAV", "subtype": "PCM_16"}, 1e-3),
    "wav_float": ({"format": "WAV", "subtype": "FLOAT"}, 0.0),
    "wav_24_bit": ({"format": "WAVEX", "subtype": "PCM_24"}, 1e-5),
    "wav_ulaw": ({"format": "WAV", "subtype": "ULAW"}, 0.05),
    "flac": ({"format": "FLAC"}, 1e-3),
    "vorbis": ({"format": "OGG", "subtype": "VORBIS"}, 0.05),
    "opus": ({"format": "OGG", "subtype": "OPUS"}, 0.1),
    "mp3": ({"format": "MP3"}, 0.05),
}
each_format = pytest.mark.parametrize("name", FORMATS)


def encode(samples: NDArray, rate: int = RATE, name: str = "wav") -> bytes:
    """The bytes of an audio file of samples `(num_samples,)` or `(num_samples, channels)`."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, **FORMATS[name][0])
    return file.getvalue()


def sine(hertz: float, seconds: float, rate: int = RATE, amplitude: float = 0.5) -> NDArray:
    """A sine, `(num_samples,)` float32."""
    position = np.arange(round(seconds * rate)) / rate
    return (amplitude * np.sin(2 * np.pi * hertz * position)).astype(np.float32)


def noise(*shape: int) -> NDArray:
    """White noise, float32."""
    return np.random.default_rng(0).uniform(-0.4, 0.4, shape).astype(np.float32)


def ramp(num_samples: int) -> NDArray:
    """Samples that tell their own position: number k is k steps of 16 bits."""
    return np.arange(num_samples, dtype=np.int16)


def riff(data: bytes, rate: int = RATE, channels: int = 1, kind: int = 1, bits: int = 16) -> bytes:
    """A wav file by hand, with any numbers in its header (kind: 1 for integers, 3 for floats)."""
    align = channels * bits // 8
    header = struct.pack(
        "<4sIHHIIHH", b"fmt ", 16, kind, channels, rate, rate * align % 2**32, align, bits
    )
    body = b"WAVE" + header + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


def floats(*samples: float) -> bytes:
    """A wav file of these float32 samples."""
    return riff(np.asarray(samples, "<f4").tobytes(), kind=3, bits=32)


def with_data_size(file: bytes, size: int) -> bytes:
    """A wav file whose header claims a data chunk of `size` bytes."""
    place = file.index(b"data") + 4
    return file[:place] + struct.pack("<I", size) + file[place + 4 :]


def with_flac_length(file: bytes, num_samples: int) -> bytes:
    """A flac file whose header claims this length (the last 36 of the 64 bits at byte 18)."""
    bits = int.from_bytes(file[18:26], "big") >> 36 << 36 | num_samples
    return file[:18] + bits.to_bytes(8, "big") + file[26:]


def with_mp3_frames(file: bytes, num_frames: int) -> bytes:
    """An mp3 file whose Xing header claims this number of frames."""
    place = file.index(b"Xing") + 8
    return file[:place] + struct.pack(">I", num_frames) + file[place + 4 :]


def with_serial_number(file: bytes, number: int) -> bytes:
    """An Ogg file whose pages have another serial number, and the CRC of RFC 3533 with it."""
    pages, place = b"", 0
    while place < len(file):
        body = place + 27 + file[place + 26]
        end = body + sum(file[place + 27 : body])
        page = bytearray(file[place:end])
        page[14:18] = number.to_bytes(4, "little")
        page[22:26] = bytes(4)
        register = 0
        for byte in page:
            register ^= byte << 24
            for _ in range(8):
                register = (register << 1) ^ (0x104C11DB7 if register >> 31 else 0)
        page[22:26] = register.to_bytes(4, "little")
        pages += page
        place = end
    return pages


def error_of(call: Callable[[], object], kind: type[Exception] = ValueError) -> str:
    """The one line that a call fails with."""
    with pytest.raises(kind) as caught:
        call()
    (line,) = str(caught.value).splitlines()
    return line
