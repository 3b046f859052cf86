"""An utterance to hear and to see in the page: its sound, its log-mel picture, its CTC path."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from asr.report.evaluation import EvaluatedUtterance, Evaluation
from asr.report.png import gray_png
from asr.report.sound import Sound, SoundFormat, encode_sound
from asr.report.visible import visible

_BEST_OF = 5  # every fifth utterance to listen to is one that was heard well
_QUIET = 0.05  # quantile of the picture's values that is as dark as silence
_STEP = 4  # of 256 grey levels: 64 are told apart, and the file is a third smaller


@dataclass(frozen=True, slots=True)
class Spike:
    """A character where a CTC path has it.

    Attributes:
        character: One, a space between words included.
        start_s: Begin of its first frame [s].
        end_s: End of its last frame [s].
        probability: Geometric mean over its frames, 0 to 1.
    """

    character: str
    start_s: float
    end_s: float
    probability: float


@dataclass(frozen=True, slots=True)
class CtcPath:
    """The characters of one text over time.

    Attributes:
        name: Whose text: "heard" or "said".
        spikes: In order.
        missing: Why there is no such path; empty where there is one.
    """

    name: str
    spikes: tuple[Spike, ...]
    missing: str = ""


@dataclass(frozen=True, slots=True)
class Clip:
    """One utterance's sound and picture, encoded.

    Attributes:
        id: Of the utterance.
        duration_s: Of the sound [s].
        sound: The audio file.
        picture: 8-bit grey PNG, time to the right and frequency upwards.
        picture_s: What the picture's width stands for [s].
        paths: What lies below the picture.
    """

    id: str
    duration_s: float
    sound: Sound
    picture: bytes
    picture_s: float
    paths: tuple[CtcPath, ...]

    @property
    def num_bytes(self) -> int:
        """What sound and picture take in the page [bytes]: four for three."""
        return sum(4 * math.ceil(len(each) / 3) for each in (self.sound.content, self.picture))


@dataclass(frozen=True, slots=True)
class Clips:
    """The utterances of a page that can be heard.

    Attributes:
        by_id: Clips by the utterance's id.
        num_left_out: How many more were asked for than the page's bound has room for.
    """

    by_id: Mapping[str, Clip] = field(default_factory=dict)
    num_left_out: int = 0

    @property
    def num_bytes(self) -> int:
        """Sound and pictures in the page [bytes]."""
        return sum(clip.num_bytes for clip in self.by_id.values())


def listed(evaluation: Evaluation, limit: int) -> list[EvaluatedUtterance]:
    """The utterances to listen to: four with the most errors, then one of the best, and so on.

    The best are those without an error, the ones with the most words first.

    Args:
        evaluation: The scored evaluation.
        limit: How many at most.
    """
    wrong = [each for each in evaluation.utterances if each.errors.words.errors]
    right = [each for each in evaluation.utterances if not each.errors.words.errors]
    wrong.sort(key=lambda each: (-each.errors.words.errors, -each.errors.words.rate, each.id))
    right.sort(key=lambda each: (-each.errors.words.reference_length, each.id))
    num_right = min(len(right), max(limit // _BEST_OF, limit - len(wrong)))
    chosen = [(place / (_BEST_OF - 1), each) for place, each in enumerate(wrong)]
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
    """Encode one utterance.

    Args:
        id: Of the utterance.
        waveform: `(num_samples,)` float32, -1 to 1.
        sample_rate: [Hz].
        log_mel: `(T, F)` float32, natural logarithms of power, not normalised.
        frame_shift_s: Time between its frames [s].
        paths: What to write below the picture.
        audio_format: "opus" or "wav".
    """
    return Clip(
        id=id,
        duration_s=len(waveform) / sample_rate,
        sound=encode_sound(waveform, sample_rate, audio_format),
        picture=gray_png(_levels(log_mel)),
        picture_s=len(log_mel) * frame_shift_s,
        paths=tuple(paths),
    )


def within(clips: Iterable[Clip], max_bytes: float) -> Iterator[Clip]:
    """Clips in their order as long as all of them together have room, and none after that.

    Args:
        clips: The most wanted first; made one at a time.
        max_bytes: What they may take in the page.
    """
    used = 0
    for clip in clips:
        used += clip.num_bytes
        if used > max_bytes:
            return
        yield clip


def embedded_clip(clip: Clip) -> dict[str, object]:
    """A clip as the page's script reads it: data URIs, and paths as lists of numbers."""
    return {
        "audio": _data_uri(clip.sound.media_type, clip.sound.content),
        "picture": _data_uri("image/png", clip.picture),
        "seconds": round(clip.duration_s, 3),
        "pictureSeconds": round(clip.picture_s, 3),
        "paths": [
            {
                "name": path.name,
                "missing": visible(path.missing),
                "spikes": [
                    [
                        visible(spike.character),
                        round(spike.start_s, 3),
                        round(spike.end_s, 3),
                        round(spike.probability, 3),
                    ]
                    for spike in path.spikes
                ],
            }
            for path in clip.paths
        ],
    }


def _levels(log_mel: NDArray[np.float32]) -> NDArray[np.uint8]:
    """`(F, T)` grey levels, the highest band on top."""
    quiet, loud = np.quantile(log_mel, _QUIET), log_mel.max()
    if not loud > quiet:
        return np.zeros(log_mel.T.shape, np.uint8)
    shares = np.clip((log_mel - quiet) / (loud - quiet), 0.0, 1.0)
    levels: NDArray[np.uint8] = (np.rint(shares * (255 // _STEP)) * _STEP).astype(np.uint8)
    return levels.T[::-1]


def _data_uri(media_type: str, content: bytes) -> str:
    return f"data:{media_type.replace(' ', '')};base64,{base64.b64encode(content).decode()}"
