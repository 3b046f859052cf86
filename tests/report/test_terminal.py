"""Terminal output: what it says, and that data cannot steer the terminal."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from asr.metrics.error_rate import score_utterance
from asr.report.evaluation import EvaluatedUtterance, Evaluation, ModelDescription
from asr.report.terminal import (
    AlignedLines,
    confusion_table,
    slice_table,
    summary,
    worst_utterances,
)
from asr.report.wording import Gap
from asr.word import Word


def printed(*renderables, width=100, colour=False):
    console = Console(
        file=io.StringIO(),
        width=width,
        force_terminal=colour,
        color_system="standard" if colour else None,
        legacy_windows=False,
    )
    console.print(*renderables)
    return console.file.getvalue()


def test_summary_by_hand(make_evaluation):
    first, second, told = printed(summary(make_evaluation()), width=200).splitlines()
    assert first.startswith("WER 57.14\u202f%  [0.00, ∞]  4 errors against 7 words: ")
    assert second.startswith("CER ")
    assert told == ("[ ]: 95\u202f% percentile bootstrap interval, resampled by utterance (3)")


def test_summary_tells_confidence_and_text_rules(make_evaluation):
    made = make_evaluation()
    words = (Word("all", 0, 1, 0.75), Word("right", 1, 2, 0.55))
    utterance = replace(made.utterances[1], words=words)
    rich = replace(made, utterances=(utterance,), text_rules=("lower case", "a\x1brule"))
    *_, confidence, rules = printed(summary(rich), width=200).splitlines()
    assert confidence == "confidence: off by 35.0\u202f% on average, of 2 recognised words"
    assert rules == "both texts: lower case; a␛rule"


def test_slices(make_evaluation):
    lines = printed(slice_table(make_evaluation(), "speaker"), width=120).splitlines()
    assert lines[0].strip() == "By speaker"
    assert any("(none given)" in line and "∞" in line and "—" in line for line in lines)
    assert any("s1plain" in line and "42.9\u202f%" in line for line in lines)
    assert any("All" in line and "57.1\u202f%" in line for line in lines)
    shortened = printed(slice_table(make_evaluation(), "speaker", limit=1), width=120)
    assert "(none given)" not in shortened
    assert "1 row more in evaluation.json" in shortened
    lines = printed(slice_table(make_evaluation(), "duration"), width=120).splitlines()
    assert lines[0].strip() == "By duration [s]"
    assert any("0.5 to < 2.5" in line for line in lines)
    assert any("2.5 to 3.5" in line for line in lines)


def test_most_frequent_errors(make_evaluation):
    lines = printed(confusion_table(make_evaluation())).splitlines()
    assert lines[0].strip() == "Most frequent errors"
    assert "Reference" in lines[2]
    assert "big" in lines[4] or "plain3" in lines[4]


def test_alignment_lines_by_hand():
    words = score_utterance("u", "the cat sat on mats", "the big bat sat mats").alignment
    assert printed(AlignedLines(words)).splitlines() == [
        "ref  the *** cat sat on mats ",
        "hyp  the big bat sat ** mats ",
        "         I   S       D       ",
    ]
    assert printed(AlignedLines((Gap(7),))).splitlines()[0] == "ref  (7 words) "


def test_alignment_breaks_between_columns_and_counts_cells():
    words = score_utterance("u", "声音 ab cde", "x ab cde").alignment
    assert printed(AlignedLines(words), width=13).splitlines() == [
        "ref  声音 ab ",
        "hyp  x    ab ",
        "     S       ",
        "ref  cde ",
        "hyp  cde ",
        "         ",
    ]


@pytest.mark.parametrize("colour", [False, True])
def test_controls_and_markup_of_data_do_nothing(make_evaluation, colour):
    hostile = make_evaluation(text="\x1b]0;x\x07\x9b2J\u202e[bold]", word="\x1b[2J\x07[red]")
    output = printed(
        summary(hostile),
        slice_table(hostile, "speaker"),
        confusion_table(hostile),
        worst_utterances(hostile),
        colour=colour,
    )
    for acting in ("\x1b]", "\x1b[2J", "\x07", "\x9b", "\u202e"):
        assert acting not in output
    assert ("\x1b" in output) == colour
    assert "␛[2J␇[red]" in output
    assert "[bold]" in output


def test_no_worst_utterances_wanted(make_evaluation):
    assert printed(worst_utterances(make_evaluation(), limit=0)) == ""


def test_all_right():
    right = EvaluatedUtterance("1", None, 1.0, "1.wav", score_utterance("1", "a", "a"))
    evaluation = Evaluation("t", ModelDescription("m", 1), "f", None, (right,))
    assert printed(worst_utterances(evaluation)) == "Every utterance is entirely right.\n"
