"""Slices: groups and bins by hand, every utterance in one of them."""

from itertools import pairwise

import pytest

from asr.metrics.error_rate import ErrorCounts, score_utterance
from asr.report.evaluation import EvaluatedUtterance, Evaluation, ModelDescription
from asr.report.slices import check_slice_by, cut, slice_names


def utterance(
    id, reference="a b", hypothesis="a b", duration_s=1.0, speaker=None, snr_db=None, **fields
):
    errors = score_utterance(id, reference, hypothesis)
    return EvaluatedUtterance(id, speaker, duration_s, f"{id}.wav", errors, fields, snr_db)


def evaluation(*utterances):
    return Evaluation("t", ModelDescription("m", 1), "f.jsonl", None, utterances)


def test_categories_by_rate_and_those_without_one_last():
    made = evaluation(
        utterance("1", hypothesis="a x", gender="f"),
        utterance("2", gender="f"),
        utterance("3", hypothesis="x y", gender="m"),
        utterance("4", hypothesis="x y"),
    )
    slices = cut(made, "gender")
    assert [(row.value, row.num_utterances) for row in slices.rows] == [
        ("m", 1),
        ("f", 2),
        (None, 1),
    ]
    assert [row.words.rate for row in slices.rows] == [1, 0.25, 1]
    assert slices.rows[1].words == ErrorCounts(3, 1, 0, 0)
    assert slices.rows[1].duration_s == 2
    assert slices.rows[0].interval is None
    assert (slices.rows[1].interval.low, slices.rows[1].interval.high) == (0, 0.5)
    assert (slices.rows[0].low, slices.rows[0].high, slices.unit) == (None, None, "")


def test_speakers_are_resampled_by_utterance_within_and_by_speaker_across():
    made = evaluation(
        *(utterance(f"{k}", speaker=f"s{k % 3}", gender="f", hypothesis="a x" if k % 2 else "a b")
          for k in range(12))
    )  # fmt: skip
    assert {row.interval.block for row in cut(made, "speaker").rows} == {"utterance"}
    (row,) = cut(made, "gender").rows
    assert (row.interval.block, row.interval.num_blocks) == ("speaker", 3)


def test_quantile_bins_by_hand():
    made = evaluation(*(utterance(f"{k}", duration_s=float(k)) for k in range(1, 11)))
    slices = cut(made, "duration")
    assert [(row.low, row.high) for row in slices.rows] == [(1, 3), (3, 5), (5, 7), (7, 9), (9, 10)]
    assert [row.num_utterances for row in slices.rows] == [2] * 5
    assert (slices.unit, slices.highest) == ("s", 10)


@pytest.mark.parametrize(
    "values",
    [
        [1.0] * 7,
        [0.0, 0.0, 0.0, 0.0, 9.0],
        [float(k % 4) for k in range(50)],
        [None, 3.0, None, -2.5, 3.0, 11.0, 0.0, 1e-9],
        [None, None],
    ],
)
def test_every_utterance_is_in_one_bin(values):
    made = evaluation(*(utterance(f"{k}", snr_db=value) for k, value in enumerate(values)))
    rows = cut(made, "snr").rows
    assert sum(row.num_utterances for row in rows) == len(values)
    assert all(row.num_utterances for row in rows)
    unknown = [row for row in rows if row.low is None]
    assert sum(row.num_utterances for row in unknown) == values.count(None)
    bins = [row for row in rows if row.low is not None]
    assert len(bins) <= 5
    assert all(a.high == b.low for a, b in pairwise(bins))


def test_a_field_of_many_numbers_is_cut_into_bins_and_one_of_few_is_not():
    ages = [str(20 + k) for k in range(10)]
    made = evaluation(
        *(utterance(f"{k}", age=age, room=str(k % 2)) for k, age in enumerate(ages)),
        utterance("unknown"),
    )
    by_age = cut(made, "age").rows
    assert [row.num_utterances for row in by_age] == [2, 2, 2, 2, 2, 1]
    assert by_age[-1].low is None
    assert {row.value for row in cut(made, "room").rows} == {"0", "1", None}


@pytest.mark.parametrize("odd", ["", "old", "nan", "inf"])
def test_a_field_with_a_text_among_numbers_stays_categories(odd):
    made = evaluation(*(utterance(f"{k}", age=str(k)) for k in range(9)), utterance("odd", age=odd))
    rows = cut(made, "age").rows
    assert len(rows) == 10
    assert odd in [row.value for row in rows]


def test_reference_length_counts_words():
    texts = ["", "a", "a b", "a b c"]
    made = evaluation(*(utterance(text or "none", text, text) for text in texts))
    slices = cut(made, "reference_length")
    assert (slices.rows[0].low, slices.highest, slices.unit) == (0, 3, "words")


def test_unknown_names_are_refused_with_what_there_is():
    fields = [{"gender": "f"}, {"age": 3, "snr": 5}]
    assert slice_names(fields) == [
        "speaker",
        "duration",
        "reference_length",
        "snr",
        "age",
        "gender",
    ]
    check_slice_by(["age", "snr", "speaker"], fields)
    with pytest.raises(
        ValueError,
        match="slice_by: 'gendre' is no field of the manifest, expected one of speaker, duration, "
        "reference_length, snr, age, gender",
    ):
        check_slice_by(["age", "gendre"], fields)
    with pytest.raises(ValueError, match="'age' is no field"):
        cut(evaluation(utterance("1")), "age")
