"""Cues: how words are grouped and how their times are written."""

from __future__ import annotations

from asr.report.subtitles import cues, srt, vtt
from asr.transcriber import Word


def word(text: str, start: float, end: float) -> Word:
    return Word(text, start, end, 1.0)


def test_srt_by_hand() -> None:
    words = [word("hello", 0.5, 0.9), word("world", 1.0, 1.4), word("again", 3661.25, 3661.9)]
    assert srt(words) == (
        "1\n00:00:00,500 --> 00:00:01,400\nhello world\n\n2\n01:01:01,250 --> 01:01:01,900\nagain\n"
    )


def test_vtt_by_hand() -> None:
    assert vtt([word("hi", 59.9996, 60.2)]) == ("WEBVTT\n\n00:01:00.000 --> 00:01:00.200\nhi\n")


def test_no_words() -> None:
    assert srt([]) == ""
    assert vtt([]) == "WEBVTT\n"


def test_cues_end_at_pauses_width_and_time() -> None:
    pause = [word("a", 0, 1), word("b", 1.9, 2)]
    assert [len(cue) for cue in cues(pause)] == [1, 1]
    wide = [word("abcdefghij", i, i + 0.9) for i in range(5)]
    assert [len(cue) for cue in cues(wide)] == [3, 2]
    slow = [word("a", i, i + 0.9) for i in range(9)]
    assert [len(cue) for cue in cues(slow)] == [6, 3]
