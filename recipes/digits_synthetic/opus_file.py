"""Ogg Opus files that are small and whose bytes depend on their audio alone."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import soundfile


def write_opus(
    path: Path, waveform: np.ndarray, sample_rate: int, compression_level: float, serial: int
) -> float:
    """Write a mono waveform as Ogg Opus and return its duration as it decodes.

    Args:
        path: file to write; its folder is made.
        waveform: `(num_samples,)` in [-1, 1].
        sample_rate: [Hz], one of the rates of Opus.
        compression_level: 0 to 1, for 256 down to 6 kbit/s.
        serial: number of the Ogg stream, which libsndfile would draw from the clock.

    Returns:
        The duration [s].
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    settings = {"format": "OGG", "subtype": "OPUS", "compression_level": compression_level}
    soundfile.write(path, waveform, sample_rate, **settings)
    path.write_bytes(slim_ogg(path.read_bytes(), serial))
    decoded, decoded_rate = soundfile.read(path)
    assert decoded_rate == sample_rate
    return len(decoded) / sample_rate


def slim_ogg(data: bytes, serial: int) -> bytes:
    """Drop the padding of the comment header, a quarter of a short file, and set the serial.

    Source: RFC 3533 section 6 (pages), RFC 7845 section 5.2 (comment header).
    """
    pages, position = [], 0
    while position < len(data):
        head, count = data[position : position + 26], data[position + 26]
        lacing = data[position + 27 : position + 27 + count]
        position += 27 + count + sum(lacing)
        body = data[position - sum(lacing) : position]
        if body.startswith(b"OpusTags"):
            vendor_length = int.from_bytes(body[8:12], "little")
            body = body[: 12 + vendor_length] + bytes(4)  # and a list of no comments
            lacing = bytes([len(body)])
        pages.append(_page(head, serial, lacing, body))
    return b"".join(pages)


def _page(head: bytes, serial: int, lacing: bytes, body: bytes) -> bytes:
    start = head[:14] + serial.to_bytes(4, "little") + head[18:22]
    end = bytes([len(lacing)]) + lacing + body
    table, crc = _crc_table(), 0
    for byte in start + bytes(4) + end:
        crc = (crc << 8 & 0xFFFFFFFF) ^ table[crc >> 24 ^ byte]
    return start + crc.to_bytes(4, "little") + end


@functools.cache
def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        value = byte << 24
        for _ in range(8):
            value = (value << 1 ^ (0x04C11DB7 if value >> 31 else 0)) & 0xFFFFFFFF
        table.append(value)
    return table
