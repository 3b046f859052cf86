"""Utterances to hear and to see in the page: their sound, log-mel picture and CTC paths."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from asr.report.evaluation import EvaluatedUtterance, Evaluation, worst
from asr.report.wording import visible
from asr.word import Character

SoundFormat = Literal["opus", "wav"]

OPUS_RATES = (8_000, 12_000, 16_000, 24_000, 48_000)  # [Hz], RFC 6716, section 2
OPUS_BIT_RATE = 24_000  # [bit/s]: speech that is hard to tell from the original
BEST_OF = 5  # every fifth utterance to listen to is one of the best
QUIET = 0.05  # quantile of the picture's values that is as dark as silence
LEVEL_STEP = 4  # of 256 grey levels: 64 are told apart, and the file is a third smaller


@dataclass(frozen=True, slots=True)
class CtcPath:
    """The characters of one text over time.

    Attributes:
        name: whose text: "reference" or "hypothesis".
        characters: in order, a space between words included.
        missing: why there is no such path; empty where there is one.
    """

    name: str
    characters: tuple[Character, ...]
    missing: str = ""


@dataclass(frozen=True, slots=True)
class Clip:
    """One utterance's sound and picture, encoded.

    Attributes:
        id: of the utterance.
        duration_s: of the sound [s].
        media_type: of the sound, as browsers name it.
        sound: the audio file.
        picture: 8-bit grey PNG, time to the right and frequency upwards.
        picture_s: what the picture's width stands for [s].
        paths: what lies below the picture.
    """

    id: str
    duration_s: float
    media_type: str
    sound: bytes
    picture: bytes
    picture_s: float
    paths: tuple[CtcPath, ...]

    @property
    def num_bytes(self) -> int:
        """What sound and picture take in the page [bytes]: four for three."""
        return sum(4 * math.ceil(len(each) / 3) for each in (self.sound, self.picture))


@dataclass(frozen=True, slots=True)
class Clips:
    """The utterances of a page that can be heard.

    Attributes:
        by_id: clips by the utterance's id.
        num_left_out: how many more were asked for than the page's bound has room for.
    """

    by_id: Mapping[str, Clip] = field(default_factory=dict)
    num_left_out: int = 0

    @property
    def num_bytes(self) -> int:
        """Sound and pictures in the page [bytes]."""
        return sum(clip.num_bytes for clip in self.by_id.values())


def listed(evaluation: Evaluation, limit: int) -> list[EvaluatedUtterance]:
    """Choose the utterances to listen to: four with the most errors, one of the best, and so on.

    The best are those without an error, the ones with the most words first.

    Args:
        evaluation: the scored evaluation.
        limit: how many at most.
    """
    wrong = worst(evaluation)
    right = [each for each in evaluation.utterances if not each.errors.words.errors]
    right.sort(key=lambda each: (-each.errors.words.reference_length, each.id))
    num_right = min(len(right), max(limit // BEST_OF, limit - len(wrong)))
    chosen = [(place / (BEST_OF - 1), each) for place, each in enumerate(wrong)]
    chosen += [(place + 0.99, each) for place, each in enumerate(right[:num_right])]
    return [each for _, each in sorted(chosen, key=lambda pair: pair[0])][:limit]


def make_clip(
    id: str,
    waveform: NDArray[np.float32],
    sample_rate: int,
    log_mel: NDArray[np.float32],
    frame_shift_s: float,
    paths: Sequence[CtcPath],
    audio_format: SoundFormat = "opus",
) -> Clip:
    """Encode one utterance, the same way each time.

    Args:
        id: of the utterance.
        waveform: `(num_samples,)` float32, -1 to 1; what is beyond is clipped.
        sample_rate: [Hz].
        log_mel: `(T, F)` float32, natural logarithms of power, not normalised.
        frame_shift_s: time between its frames [s].
        paths: what to write below the picture.
        audio_format: "opus" (Ogg Opus, about 24 kbit/s) or "wav" (16 bit), which every browser
            plays.

    Raises:
        ValueError: another format.
    """
    media_type, sound = encode_sound(waveform, sample_rate, audio_format)
    return Clip(
        id=id,
        duration_s=len(waveform) / sample_rate,
        media_type=media_type,
        sound=sound,
        picture=encode_picture(log_mel),
        picture_s=len(log_mel) * frame_shift_s,
        paths=tuple(paths),
    )


def encode_sound(
    waveform: NDArray[np.float32], sample_rate: int, audio_format: SoundFormat
) -> tuple[str, bytes]:
    """Encode a waveform; returns its media type and the file. Arguments are those of `make_clip`.

    FFmpeg writes it and not libsndfile, whose Ogg streams have random serial numbers: the page of
    an evaluation is the same to the byte whenever it is made.
    """
    import av
    import soxr

    if audio_format == "opus":
        container, codec, media_type = "ogg", "libopus", "audio/ogg;codecs=opus"
        rate = min((each for each in OPUS_RATES if each >= sample_rate), default=OPUS_RATES[-1])
    elif audio_format == "wav":
        container, codec, media_type = "wav", "pcm_s16le", "audio/wav"
        rate = sample_rate
    else:
        raise ValueError(f"audio format {audio_format!r}, expected 'opus' or 'wav'")
    # FFmpeg's own resampler, inside of the encoder, keeps what it has not given out at the end.
    resampled = soxr.resample(waveform, sample_rate, rate) if rate != sample_rate else waveform
    samples = np.rint(32767 * np.clip(resampled, -1.0, 1.0)).astype(np.int16)
    frame = av.AudioFrame.from_ndarray(samples[np.newaxis], format="s16", layout="mono")
    frame.sample_rate, frame.pts = rate, 0
    file = io.BytesIO()
    with av.open(file, "w", format=container, options={"fflags": "+bitexact"}) as output:
        stream = output.add_stream(codec, rate=rate, layout="mono")
        assert isinstance(stream, av.AudioStream)
        if codec == "libopus":
            stream.bit_rate = OPUS_BIT_RATE
        for packet in (*stream.encode(frame), *stream.encode(None)):
            output.mux(packet)
    return media_type, file.getvalue()


def encode_picture(log_mel: NDArray[np.float32]) -> bytes:
    """Encode a log-mel picture as grey PNG, the highest band on top.

    Args:
        log_mel: `(T, F)` float32.
    """
    from PIL import Image

    quiet, loud = np.quantile(log_mel, QUIET), log_mel.max()
    levels = np.zeros(log_mel.shape, np.uint8)
    if loud > quiet:
        shares = np.clip((log_mel - quiet) / (loud - quiet), 0.0, 1.0)
        levels = (np.rint(shares * (255 // LEVEL_STEP)) * LEVEL_STEP).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(levels.T[::-1])).save(file, "PNG", compress_level=9)
    return file.getvalue()


def within(clips: Iterable[Clip], max_bytes: float) -> Iterator[Clip]:
    """Take clips in their order as long as all of them together have room, none after that.

    Args:
        clips: the most wanted first; made one at a time.
        max_bytes: what they may take in the page.
    """
    used = 0
    for clip in clips:
        used += clip.num_bytes
        if used > max_bytes:
            return
        yield clip


def embedded_clip(clip: Clip) -> dict[str, object]:
    """Tell a clip as the page's script reads it: data URIs, and paths as lists of numbers."""
    return {
        "audio": _data_uri(clip.media_type, clip.sound),
        "picture": _data_uri("image/png", clip.picture),
        "seconds": round(clip.duration_s, 3),
        "pictureSeconds": round(clip.picture_s, 3),
        "paths": [
            {
                "name": path.name,
                "missing": visible(path.missing),
                "characters": [
                    [
                        visible(each.character),
                        round(each.start, 3),
                        round(each.end, 3),
                        round(math.exp(min(each.log_prob, 0.0)), 3),
                    ]
                    for each in path.characters
                ],
            }
            for path in clip.paths
        ],
    }


def _data_uri(media_type: str, content: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"
