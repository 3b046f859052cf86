"""Groups of an evaluation, added up by hand."""

import math

import pytest

from asr.metrics.error_rate import ErrorCounts, score_utterance
from asr.report.evaluation import (
    EvaluatedUtterance,
    Evaluation,
    HeardWord,
    ModelDescription,
    by_speaker,
    worst,
)


def utterance(id, duration_s, reference="a", hypothesis="a", speaker=None):
    errors = score_utterance(id, reference, hypothesis)
    return EvaluatedUtterance(id, speaker, duration_s, f"{id}.wav", errors)


def evaluation(*utterances, real_time_factor=None):
    return Evaluation("t", ModelDescription("m", 1), "f.jsonl", real_time_factor, utterances)


def test_totals(make_evaluation):
    made = make_evaluation()
    # the cat plain1 on mats / the plain2 on big mats: cat deleted, plain1 substituted, big inserted
    # or an equally short way; with `plain3` against nothing four errors in seven words.
    assert made.words.errors == 4
    assert made.words.reference_length == 7
    assert made.duration_s == 6.5


def test_speakers_by_rate_and_those_without_one_apart(make_evaluation):
    rows = by_speaker(make_evaluation())
    assert [row.speaker for row in rows] == [None, "s1plain"]
    assert rows[0].words == ErrorCounts(0, 0, 0, 1)
    assert rows[0].words.rate == math.inf
    assert (rows[1].num_utterances, rows[1].duration_s) == (2, 6.0)
    assert rows[1].words.rate == 3 / 7


def test_worst_by_errors_then_rate_and_none_that_is_right():
    made = evaluation(
        utterance("right", 1),
        utterance("one of one", 1, "a", "b"),
        utterance("one of two", 1, "a b", "a c"),
        utterance("two", 1, "a b c", "x y c"),
    )
    assert [each.id for each in worst(made, 10)] == ["two", "one of one", "one of two"]
    assert [each.id for each in worst(made, 1)] == ["two"]


def test_user_mistakes_are_named():
    with pytest.raises(ValueError, match=r"'1': duration is -1.0 s, expected 0 to 1e\+09"):
        utterance("1", -1.0)
    with pytest.raises(ValueError, match="duration is nan s"):
        utterance("1", math.nan)
    with pytest.raises(ValueError, match=r"heard word 'a': confidence is 1\.5, expected 0 to 1"):
        HeardWord("a", 0.0, 0.1, 1.5)
    with pytest.raises(ValueError, match="'1': errors are of '2'"):
        EvaluatedUtterance("1", None, 1.0, "1.wav", score_utterance("2", "a", "a"))
    with pytest.raises(ValueError, match="no reference word in 1 utterances"):
        evaluation(utterance("1", 1.0, ""))
    with pytest.raises(ValueError, match="real-time factor is nan"):
        evaluation(utterance("1", 1.0), real_time_factor=math.nan)
