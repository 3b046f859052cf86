"""Subtitles: golden files, and cues that can be read whatever the words."""

from __future__ import annotations

import numpy as np
import pytest

from asr.subtitles import Cue, columns, cues, srt, vtt
from asr.word import Word, text_of


def word(text: str, start: float, end: float) -> Word:
    return Word(text, start, end, 1.0)


def test_srt_by_hand() -> None:
    words = [word("hello", 0.5, 0.9), word("world", 1.0, 1.4), word("again", 3661.25, 3662.9)]
    assert srt(words) == (
        "1\n00:00:00,500 --> 00:00:01,500\nhello world\n\n2\n01:01:01,250 --> 01:01:02,900\nagain\n"
    )


def test_vtt_by_hand() -> None:
    assert vtt([word("hi", 59.9996, 61.2)]) == ("WEBVTT\n\n00:01:00.000 --> 00:01:01.200\nhi\n")


def test_markup_of_words_is_text_in_vtt() -> None:
    assert vtt([word("<b>&", 0, 1)]).endswith("\n&lt;b&gt;&amp;\n")
    assert srt([word("<b>&", 0, 1)]).endswith("\n<b>&\n")


def test_subtitles_of_no_words() -> None:
    assert srt([]) == ""
    assert vtt([]) == "WEBVTT\n"


def test_cues_end_at_pauses_width_and_time() -> None:
    pause = [word("a", 0, 1), word("b", 1.9, 3)]
    assert cues(pause) == [Cue(0, 1, ("a",)), Cue(1.9, 3, ("b",))]
    wide = [word("abcdefghij", i / 2, i / 2 + 0.4) for i in range(9)]
    ten = "abcdefghij"
    assert [cue.lines for cue in cues(wide)] == [
        (f"{ten} {ten} {ten}", f"{ten} {ten} {ten}"), (f"{ten} {ten} {ten}",),
    ]  # fmt: skip
    slow = [word("a", i, i + 0.9) for i in range(9)]
    assert [cue.lines for cue in cues(slow)] == [("a a a a a a a",), ("a a",)]


def test_lines_of_a_cue_are_of_like_length() -> None:
    words = [
        word(text, i / 3, i / 3 + 0.3)
        for i, text in enumerate("one two three four five six seven eight nine ten".split())  # noqa: SIM905
    ]
    (cue,) = cues(words)
    assert cue.lines == ("one two three four five", "six seven eight nine ten")


def test_a_cue_stays_as_long_as_it_takes_to_read() -> None:
    assert cues([word("hi", 5, 5.1)]) == [Cue(5, 6, ("hi",))]
    fast = [word("abcdefghi", 0.1 * i, 0.1 * i + 0.1) for i in range(4)]
    (cue,) = cues(fast)  # 36 letters
    assert (cue.start, cue.end) == (0, pytest.approx(1.8))
    followed = [*fast, word("next", 1.3, 1.9)]
    first, second = cues(followed)
    assert first.end == second.start == 1.3


def test_a_language_without_spaces_is_cut_between_characters() -> None:
    text = "今天天气很好我们去公园散步吧" * 6
    found = cues([word(text, 0.2, 29.8)])
    assert "".join(line for cue in found for line in cue.lines) == text
    assert len(found) >= 5
    for cue in found:
        assert all(columns(line) <= 42 for line in cue.lines)
        assert cue.end - cue.start <= 7.1
    assert found[0].start == 0.2
    assert found[-1].end == pytest.approx(29.8)


def test_joined_words_stand_beside_each_other() -> None:
    """As a model of such a language gives them: a character a word, each with its time."""
    text = "今天天气很好 我们去公园散步吧" * 4
    words, is_joined = [], False
    for place, character in enumerate(text):
        if character != " ":
            times = 0.2 * place, 0.2 * place + 0.2
            words.append(Word(character, *times, 1.0, is_joined=is_joined))
        is_joined = character != " "
    found = cues(words)
    assert "".join(line for cue in found for line in cue.lines).replace(" ", "") == text.replace(
        " ", ""
    )
    assert any("好 我" in line for cue in found for line in cue.lines)
    assert all(columns(line) <= 42 for cue in found for line in cue.lines)
    assert text_of(words) == text


def test_a_word_longer_than_a_line_is_cut_without_spaces() -> None:
    lines = [line for cue in cues([word("x" * 100, 0, 6), word("y", 6, 7)]) for line in cue.lines]
    assert "".join(lines).replace(" ", "") == "x" * 100 + "y"
    assert sum(line.count(" ") for line in lines) <= 1
    assert max(map(len, lines)) <= 42


def test_marks_stay_on_their_letters() -> None:
    text = "สวัสดีครับ" * 20
    lines = [line for cue in cues([word(text, 0, 20)]) for line in cue.lines]
    assert "".join(lines) == text
    assert columns("สวัสดี") == 4
    assert all(columns(line[0]) == 1 for line in lines)


def test_any_words_give_cues_that_can_be_read() -> None:
    draws = np.random.default_rng(4)
    for _ in range(50):
        words, now = [], 0.0
        for _ in range(int(draws.integers(1, 80))):
            now += float(draws.exponential(0.3)) + 0.01
            length = int(draws.integers(1, 60 if draws.random() < 0.05 else 12))
            end = now + 0.06 * length
            words.append(word("x" * length, round(now, 3), round(end, 3)))
            now = end
        found = cues(words)
        shown = " ".join(line for cue in found for line in cue.lines)
        assert shown.replace(" ", "") == "".join(each.word for each in words)
        for cue, after in zip(found, [*found[1:], None], strict=True):
            assert 1 <= len(cue.lines) <= 2
            assert all(0 < columns(line) <= 42 for line in cue.lines)
            assert cue.start < cue.end
            assert cue.end - cue.start <= 7.1
            letters = sum(len(line.replace(" ", "")) for line in cue.lines)
            has_room = after is None or after.start > cue.end
            if has_room:
                assert cue.end - cue.start >= min(max(1.0, letters / 20), 7.0) - 1e-6
            if after is not None:
                assert cue.end <= after.start + 1e-9


def test_a_name_has_room_on_the_first_line() -> None:
    words = [word("x" * length, i / 3, i / 3 + 0.3) for i, length in enumerate([20, 17, 40, 3, 9])]
    text = srt({"Somebody": words, "Another": []})
    lines = [line for block in text.split("\n\n") for line in block.strip().splitlines()[2:]]
    assert "".join(lines).replace("Somebody: ", "").replace(" ", "") == "x" * 89
    assert all(columns(line) <= 42 for line in lines)
    assert text.count("Somebody: ") == text.count(" --> ")
    assert max(columns(line) for line in srt({"N" * 50: words}).splitlines()) <= 42 // 2 + 54
