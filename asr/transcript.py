"""What was said in a recording, when and by whom: segments with words, as text, JSON, subtitles."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import groupby
from typing import Any

from asr.text import printable_json
from asr.word import Word, text_of


@dataclass(frozen=True)
class Alternative:
    """One of the texts that a decoder proposes for a segment.

    Attributes:
        text: its words with single spaces between.
        log_prob: the score by which it was chosen [nats].
    """

    text: str
    log_prob: float


@dataclass(frozen=True)
class Segment:
    """A stretch of speech between two pauses.

    Attributes:
        start: [s].
        end: [s].
        words: in order, with times in the recording.
        alternatives: best first; the first is the segment's own text.
        channel: of the recording, from 0; None of the mean of all.
        speaker: name of who speaks on this channel; None where nobody was named.
    """

    start: float
    end: float
    words: tuple[Word, ...]
    alternatives: tuple[Alternative, ...] = ()
    channel: int | None = None
    speaker: str | None = None

    @property
    def text(self) -> str:
        """Its words with the spaces between them."""
        return text_of(self.words)

    @property
    def confidence(self) -> float:
        """How sure its least sure word is, 0 to 1: one wrong word makes the whole text wrong."""
        return min((word.confidence for word in self.words), default=0.0)


@dataclass(frozen=True)
class Turn:
    """What one speaker says until another one begins.

    Attributes:
        speaker: name; None where nobody was named.
        start: [s].
        end: [s].
        text: the words with single spaces between.
    """

    speaker: str | None
    start: float
    end: float
    text: str


@dataclass(frozen=True)
class Transcript:
    """The text of a recording, and when each of its words is spoken.

    Attributes:
        segments: with speech, in the order in which they begin.
        duration: of the audio [s].
    """

    segments: tuple[Segment, ...]
    duration: float

    @cached_property
    def words(self) -> tuple[Word, ...]:
        """The words of all segments in the order in which they begin."""
        return tuple(word for word, _ in self._words())

    @cached_property
    def text(self) -> str:
        """The words of all segments, one segment behind the other, with single spaces between."""
        return " ".join(segment.text for segment in self.segments)

    @cached_property
    def turns(self) -> tuple[Turn, ...]:
        """What each speaker says until another begins; without speakers, all is one turn."""
        turns = []
        for speaker, own in groupby(self.segments, lambda segment: segment.speaker):
            segments = list(own)
            text = " ".join(segment.text for segment in segments)
            turns.append(Turn(speaker, segments[0].start, segments[-1].end, text))
        return tuple(turns)

    def srt(self) -> str:
        """Write SubRip subtitles, with the speaker's name before each where there is one."""
        from asr.subtitles import srt

        return srt(self._voices())

    def vtt(self) -> str:
        """Write WebVTT subtitles, in which speakers are voices."""
        from asr.subtitles import vtt

        return vtt(self._voices())

    def json(self, name: str | None = None, num_alternatives: int = 0) -> str:
        """Write all there is as a JSON object on one line.

        Args:
            name: of the recording, its `audio_filepath`; None leaves it out.
            num_alternatives: texts that are written for each segment, at most; 0 for none.
        """
        row: dict[str, Any] = {} if name is None else {"audio_filepath": name}
        row |= {
            "duration": round(self.duration, 3),
            "text": self.text,
            "segments": [
                {"start": each.start, "end": each.end, "text": each.text}
                | _voice(each)
                | (
                    {"alternatives": [asdict(a) for a in each.alternatives[:num_alternatives]]}
                    if num_alternatives
                    else {}
                )
                for each in self.segments
            ],
            "words": [word.row() | _voice(segment) for word, segment in self._words()],
        }
        return printable_json(row)

    def _words(self) -> Iterator[tuple[Word, Segment]]:
        """Words and their segments; those of several speakers by time."""
        pairs = [(word, segment) for segment in self.segments for word in segment.words]
        yield from sorted(pairs, key=lambda pair: pair[0].start)

    def _voices(self) -> dict[str | None, list[Word]]:
        """The words of each speaker."""
        voices: dict[str | None, list[Word]] = {}
        for word, segment in self._words():
            voices.setdefault(segment.speaker, []).append(word)
        return voices


def _voice(segment: Segment) -> dict[str, Any]:
    """The fields that tell who speaks; none where all channels are one."""
    fields = {"channel": segment.channel, "speaker": segment.speaker}
    return {name: value for name, value in fields.items() if value is not None}
