"""Audio files to waveforms: float32, mono, at the asked sample rate, bounded in time and memory."""

from __future__ import annotations

import io
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

MIN_SAMPLE_RATE = 1_000  # [Hz] below this no speech is left, and resampling up explodes
MAX_SAMPLE_RATE = 384_000  # [Hz] the highest rate of professional converters
MAX_CHANNELS = 64
MAX_DURATION_S = 4 * 3600.0  # [s] longer recordings are to be cut with offset and duration
BLOCK_S = 30.0  # [s] audio is decoded in blocks, so that a forged length costs no memory

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
        """[s]."""
        return self.num_samples / self.sample_rate


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


def load_audio(
    source: Source,
    sample_rate: int,
    *,
    offset: float = 0.0,
    duration: float | None = None,
    max_duration: float = MAX_DURATION_S,
) -> NDArray[np.float32]:
    """Decode audio to one float32 channel at the asked rate.

    Channels are averaged; resampling is band-limited (soxr_hq through librosa).

    Args:
        source: a path, or the bytes of a file, in any format of libsndfile: wav, flac, ogg,
            opus, mp3 and more.
        sample_rate: of the result [Hz].
        offset: where to start [s].
        duration: how much to read [s]; None reads to the end.
        max_duration: refuse to decode more than this [s].

    Returns:
        Waveform `(num_samples,)`, float32, nominally in [-1, 1].

    Raises:
        ValueError: empty, broken, not audio, NaN or Inf samples, offset past the end, too long.
        OSError: missing or unreadable.
    """
    name = _name(source)
    with _open(source) as file:
        rate = file.samplerate
        _check(AudioInfo(rate, file.frames, file.channels), name)
        waveform = _decode(file, name, offset, duration, max_duration)
    if rate != sample_rate:
        waveform = resample(waveform, rate, sample_rate)
    return waveform


def resample(waveform: NDArray[np.float32], rate: int, sample_rate: int) -> NDArray[np.float32]:
    """Change the sample rate of a waveform, band-limited.

    Args:
        waveform: `(num_samples,)` float32 at `rate` [Hz].
        rate: of the input [Hz].
        sample_rate: of the result [Hz].

    Returns:
        `(ceil(num_samples * sample_rate / rate),)` float32.
    """
    import librosa  # seconds, cold: only who resamples pays

    resampled = librosa.resample(waveform, orig_sr=rate, target_sr=sample_rate, res_type="soxr_hq")
    return np.asarray(resampled, dtype=np.float32)


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
        empty = path.stat().st_size == 0
    if empty:
        raise ValueError(f"{name}: empty file, expected audio")
    try:
        return soundfile.SoundFile(io.BytesIO(source) if isinstance(source, bytes) else source)
    except soundfile.LibsndfileError as error:
        reason = error.error_string.rstrip(".")
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
    if info.num_samples <= 0:
        raise ValueError(f"{name}: no audio samples, expected at least one")


def _decode(
    file: soundfile.SoundFile,
    name: str,
    offset: float,
    duration: float | None,
    max_duration: float,
) -> NDArray[np.float32]:
    rate = file.samplerate
    start = round(offset * rate)
    if start < 0 or start >= file.frames:
        raise ValueError(
            f"{name}: offset {offset:g} s, expected 0 to less than {file.frames / rate:g} s"
        )
    wanted = file.frames - start if duration is None else round(duration * rate)
    left = min(wanted, file.frames - start)
    if left > max_duration * rate:
        raise ValueError(
            f"{name}: {left / rate:g} s of audio, expected at most {max_duration:g} s at once"
        )
    try:
        file.seek(start)
        waveform = _read_blocks(file, left)
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{name}: damaged audio ({error.error_string.rstrip('.')})") from error
    if not len(waveform):
        raise ValueError(f"{name}: no audio samples, expected {left}")
    if not np.isfinite(waveform).all():
        raise ValueError(f"{name}: NaN or Inf among the samples, expected finite numbers")
    return waveform


def _read_blocks(file: soundfile.SoundFile, left: int) -> NDArray[np.float32]:
    block = ceil(BLOCK_S * file.samplerate)
    parts: list[NDArray[np.float32]] = []
    while left > 0:
        part = file.read(min(block, left), dtype="float32", always_2d=True)
        if not len(part):
            break
        parts.append(part[:, 0] if part.shape[1] == 1 else part.mean(axis=1, dtype=np.float32))
        left -= len(part)
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)
