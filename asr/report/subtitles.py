"""Words with times as SubRip and WebVTT subtitles."""

from __future__ import annotations

from collections.abc import Sequence

from asr.report.timed_word import TimedWord

MAX_CUE_CHARACTERS = 42  # a line that broadcasters hold readable
MAX_CUE_S = 6.0  # [s]
PAUSE_S = 0.8  # [s] a silence after which a new cue starts


def cues(words: Sequence[TimedWord]) -> list[list[TimedWord]]:
    """Words in groups short enough to read, split at pauses."""
    groups: list[list[TimedWord]] = []
    for word in words:
        group = groups[-1] if groups else []
        fits = (
            bool(group)
            and word.start - group[-1].end <= PAUSE_S
            and word.end - group[0].start <= MAX_CUE_S
            and sum(len(other.word) + 1 for other in group) + len(word.word) <= MAX_CUE_CHARACTERS
        )
        if fits:
            group.append(word)
        else:
            groups.append([word])
    return groups


def srt(words: Sequence[TimedWord]) -> str:
    """SubRip text; empty for no words."""
    blocks = [
        f"{number}\n{_times(cue, ',')}\n{_text(cue)}\n"
        for number, cue in enumerate(cues(words), start=1)
    ]
    return "\n".join(blocks)


def vtt(words: Sequence[TimedWord]) -> str:
    """WebVTT text (W3C, "WebVTT: The Web Video Text Tracks Format")."""
    return "\n".join(["WEBVTT\n", *(f"{_times(cue, '.')}\n{_text(cue)}\n" for cue in cues(words))])


def _text(cue: Sequence[TimedWord]) -> str:
    return " ".join(word.word for word in cue)


def _times(cue: Sequence[TimedWord], separator: str) -> str:
    return f"{_clock(cue[0].start, separator)} --> {_clock(cue[-1].end, separator)}"


def _clock(seconds: float, separator: str) -> str:
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest // 1000:02}{separator}{rest % 1000:03}"
