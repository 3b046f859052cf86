"""An evaluation: totals, and slices by hand."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest

from asr.metrics.error_rate import ErrorCounts, score_utterance
from asr.report.evaluation import (
    EvaluatedUtterance,
    Evaluation,
    ModelDescription,
    by_speaker,
    check_slice_by,
    cut,
    name_of,
    slice_names,
    worst,
)
from asr.word import Word


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
    assert [row.value for row in rows] == [None, "s1plain"]
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
    with pytest.raises(ValueError, match=r"word 'a': confidence is 1\.5, expected 0 to 1"):
        Word("a", 0.0, 0.1, 1.5)
    with pytest.raises(ValueError, match="'1': errors are of '2'"):
        EvaluatedUtterance("1", None, 1.0, "1.wav", score_utterance("2", "a", "a"))
    with pytest.raises(ValueError, match="no reference word in 1 utterances"):
        evaluation(utterance("1", 1.0, ""))
    with pytest.raises(ValueError, match="real-time factor is nan"):
        evaluation(utterance("1", 1.0), real_time_factor=math.nan)


@pytest.mark.parametrize(("path", "name"), [
    ("data/digits/test.jsonl", "digits test"),
    ("/a/libri/dev-clean.tsv", "libri dev-clean"),
    ("runs/train/demo/best.safetensors", "demo"),
    ("/tmp/mine.safetensors", "mine"),
    ("test.jsonl", "test"),
    ("best", "best"),
    ("", ""),
])  # fmt: skip
def test_what_a_path_leads_to_has_a_name(path, name):
    assert name_of(path) == name


def test_heading_is_the_title_or_names_and_no_path(make_evaluation):
    assert make_evaluation().heading == "Title plain"
    assert make_evaluation().corpus == "Title plain"
    model = ModelDescription("runs/train/demo/best.safetensors", 1)
    manifest = "data/digits/test.jsonl"
    untitled = replace(make_evaluation(), title=manifest, manifest=manifest, model=model)
    assert untitled.heading == "digits test, demo"
    assert untitled.corpus == "digits test"


# --- slices --------------------------------------------------------------------------------------


def sliced(
    id, reference="a b", hypothesis="a b", duration_s=1.0, speaker=None, snr_db=None, **fields
):
    errors = score_utterance(id, reference, hypothesis)
    return EvaluatedUtterance(id, speaker, duration_s, f"{id}.wav", errors, fields, snr_db)


def test_categories_by_rate_and_those_without_one_last():
    made = evaluation(
        sliced("1", hypothesis="a x", gender="f"),
        sliced("2", gender="f"),
        sliced("3", hypothesis="x y", gender="m"),
        sliced("4", hypothesis="x y"),
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
        *(sliced(f"{k}", speaker=f"s{k % 3}", gender="f", hypothesis="a x" if k % 2 else "a b")
          for k in range(12))
    )  # fmt: skip
    assert {row.interval.block for row in cut(made, "speaker").rows} == {"utterance"}
    (row,) = cut(made, "gender").rows
    assert (row.interval.block, row.interval.num_blocks) == ("speaker", 3)


def test_quantile_bins_by_hand():
    made = evaluation(*(sliced(f"{k}", duration_s=float(k)) for k in range(1, 11)))
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
    made = evaluation(*(sliced(f"{k}", snr_db=value) for k, value in enumerate(values)))
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
        *(sliced(f"{k}", age=age, room=str(k % 2)) for k, age in enumerate(ages)),
        sliced("unknown"),
    )
    by_age = cut(made, "age").rows
    assert [row.num_utterances for row in by_age] == [2, 2, 2, 2, 2, 1]
    assert by_age[-1].low is None
    assert {row.value for row in cut(made, "room").rows} == {"0", "1", None}


@pytest.mark.parametrize("odd", ["", "old", "nan", "inf"])
def test_a_field_with_a_text_among_numbers_stays_categories(odd):
    made = evaluation(*(sliced(f"{k}", age=str(k)) for k in range(9)), sliced("odd", age=odd))
    rows = cut(made, "age").rows
    assert len(rows) == 10
    assert odd in [row.value for row in rows]


def test_reference_length_counts_words():
    texts = ["", "a", "a b", "a b c"]
    made = evaluation(*(sliced(text or "none", text, text) for text in texts))
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
        cut(evaluation(sliced("1")), "age")
