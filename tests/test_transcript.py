"""Transcripts of one voice and of several: text, turns, JSON and subtitles, by hand."""

from __future__ import annotations

import json

from asr.transcript import Alternative, Segment, Transcript, Turn
from asr.word import Word


def segment(text: str, start: float, channel: int | None, speaker: str | None) -> Segment:
    """Words of half a second each."""
    words = tuple(
        Word(word, start + 0.5 * place, start + 0.5 * place + 0.4, 0.9)
        for place, word in enumerate(text.split())
    )
    alternatives = (Alternative(text, -1.0), Alternative("no", -2.0))
    return Segment(start, start + 0.5 * len(words), words, alternatives, channel, speaker)


CALL = Transcript(
    (
        segment("hello there you", 0.0, 0, "Anna <A>"),
        segment("hi", 0.7, 1, "Bert"),
        segment("how are", 3.0, 0, "Anna <A>"),
        segment("you", 5.0, 0, "Anna <A>"),
    ),
    8.0,
)
ALONE = Transcript((segment("a b", 1.0, None, None), segment("c", 4.0, None, None)), 5.0)


def test_words_are_in_the_order_of_time_whoever_says_them() -> None:
    assert " ".join(word.word for word in CALL.words) == "hello there hi you how are you"
    assert CALL.text == "hello there you hi how are you"
    assert ALONE.text == "a b c"


def test_turns() -> None:
    assert CALL.turns == (
        Turn("Anna <A>", 0.0, 1.5, "hello there you"),
        Turn("Bert", 0.7, 1.2, "hi"),
        Turn("Anna <A>", 3.0, 5.5, "how are you"),
    )
    assert ALONE.turns == (Turn(None, 1.0, 4.5, "a b c"),)
    assert Transcript((), 1.0).turns == ()


def test_json() -> None:
    row = json.loads(ALONE.json("a.wav"))
    assert row == {
        "audio_filepath": "a.wav",
        "duration": 5.0,
        "text": "a b c",
        "segments": [
            {"start": 1.0, "end": 2.0, "text": "a b"},
            {"start": 4.0, "end": 4.5, "text": "c"},
        ],
        "words": [
            {"word": "a", "start": 1.0, "end": 1.4, "confidence": 0.9},
            {"word": "b", "start": 1.5, "end": 1.9, "confidence": 0.9},
            {"word": "c", "start": 4.0, "end": 4.4, "confidence": 0.9},
        ],
    }
    call = json.loads(CALL.json(num_alternatives=1))
    assert "audio_filepath" not in call
    assert call["segments"][1] == {
        "start": 0.7, "end": 1.2, "text": "hi", "channel": 1, "speaker": "Bert",
        "alternatives": [{"text": "hi", "log_prob": -1.0}],
    }  # fmt: skip
    assert [word["channel"] for word in call["words"]] == [0, 0, 1, 0, 0, 0, 0]


def test_subtitles_name_who_speaks() -> None:
    assert CALL.srt().split("\n\n")[:2] == [
        "1\n00:00:00,000 --> 00:00:01,400\nAnna <A>: hello there you",
        "2\n00:00:00,700 --> 00:00:01,700\nBert: hi",
    ]
    assert CALL.vtt().split("\n\n")[1:3] == [
        "00:00:00.000 --> 00:00:01.400\n<v Anna &lt;A&gt;>hello there you",
        "00:00:00.700 --> 00:00:01.700\n<v Bert>hi",
    ]
    assert "a b" in ALONE.srt()
    assert ":" not in ALONE.srt().splitlines()[2]
    assert "<v" not in ALONE.vtt()
