"""Waveforms as audio files small enough to be put into a page."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

SoundFormat = Literal["opus", "wav"]

OPUS_RATES = (8_000, 12_000, 16_000, 24_000, 48_000)  # [Hz], RFC 6716, section 2
# What libsndfile makes about 24 kbit/s of: speech that is hard to tell from the original.
_OPUS_COMPRESSION = 0.928
# Opus is not the same twice unless its stream's random serial number is fixed: bytes 14 to 17 of
# every Ogg page (RFC 3533, section 6).
_SERIAL = slice(14, 18)
_CHECKSUM = slice(22, 26)


@dataclass(frozen=True, slots=True)
class Sound:
    """An encoded audio file.

    Attributes:
        media_type: As browsers name it.
        content: The file.
    """

    media_type: str
    content: bytes


def encode_sound(
    waveform: NDArray[np.float32], sample_rate: int, audio_format: SoundFormat
) -> Sound:
    """Encode a waveform, the same way each time.

    Args:
        waveform: `(num_samples,)` float32, -1 to 1; what is beyond is clipped.
        sample_rate: [Hz].
        audio_format: "opus" (Ogg Opus, about 24 kbit/s) or "wav" (16 bit), which every browser
            plays.

    Raises:
        ValueError: another format.
    """
    import soundfile

    clipped = np.clip(waveform, -1.0, 1.0)
    file = io.BytesIO()
    if audio_format == "wav":
        soundfile.write(file, clipped, sample_rate, format="WAV", subtype="PCM_16")
        return Sound("audio/wav", file.getvalue())
    if audio_format != "opus":
        raise ValueError(f"audio format {audio_format!r}, expected 'opus' or 'wav'")
    rate = min((each for each in OPUS_RATES if each >= sample_rate), default=OPUS_RATES[-1])
    if rate != sample_rate:
        import soxr

        clipped = np.clip(soxr.resample(clipped, sample_rate, rate), -1.0, 1.0)
    soundfile.write(
        file, clipped, rate, format="OGG", subtype="OPUS", compression_level=_OPUS_COMPRESSION
    )
    return Sound("audio/ogg; codecs=opus", _with_serial(file.getvalue()))


def _with_serial(ogg: bytes) -> bytes:
    """The Ogg file with 0 as the serial number of its stream and checksums that fit."""
    pages, start = [], 0
    while start < len(ogg):
        assert ogg[start : start + 4] == b"OggS", start
        segments = ogg[start + 27 : start + 27 + ogg[start + 26]]
        end = start + 27 + len(segments) + sum(segments)
        page = bytearray(ogg[start:end])
        page[_SERIAL] = page[_CHECKSUM] = bytes(4)
        page[_CHECKSUM] = _ogg_checksum(page).to_bytes(4, "little")
        pages.append(bytes(page))
        start = end
    return b"".join(pages)


def _ogg_checksum(page: bytes | bytearray) -> int:
    """The 32-bit CRC of RFC 3533: polynomial 0x04c11db7, most significant bit first, from 0."""
    checksum = 0
    for byte in page:
        checksum = (checksum << 8 & 0xFFFFFFFF) ^ _CRC[checksum >> 24 ^ byte]
    return checksum


def _crc_of(byte: int) -> int:
    value = byte << 24
    for _ in range(8):
        value = (value << 1 ^ (0x04C11DB7 if value & 0x80000000 else 0)) & 0xFFFFFFFF
    return value


_CRC = tuple(map(_crc_of, range(256)))
