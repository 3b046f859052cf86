"""An evaluation: totals, slices by hand, and its file, which is the same when read back."""

import json
import math
import os
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from asr.finding import Finding, Kind
from asr.metrics.calibration import Calibration
from asr.metrics.error_rate import ErrorCounts, score_utterance
from asr.report.evaluation import (
    EvaluatedUtterance,
    Evaluation,
    ModelDescription,
    by_speaker,
    check_slice_by,
    cut,
    evaluation_to_json,
    name_of,
    read_calibration,
    read_evaluation,
    slice_names,
    worst,
    write_calibration,
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


# --- the JSON file -------------------------------------------------------------------------------


def strict(text):
    def refuse(constant):
        raise AssertionError(constant)

    return json.loads(text, parse_constant=refuse)


def test_content_by_hand(make_evaluation):
    content = strict(
        evaluation_to_json(
            replace(make_evaluation(), text_rules=("lower case",), slice_by=("duration",))
        )
    )
    assert content["wer"] == 4 / 7
    assert content["words"]["errors"] == 4
    assert content["words"]["reference_length"] == 7
    assert content["words"]["hits"] + content["words"]["substitutions"] <= 7
    assert content["wer_interval"] == {
        "low": 0,
        "high": None,  # a replicate of the inserted word alone
        "level": 0.95,
        "block": "utterance",
        "num_blocks": 3,
    }
    assert content["text_rules"] == ["lower case"]
    assert content["reliability"] is None
    assert {"reference": None, "hypothesis": "plain3", "count": 1} in content["confusions"][
        "insertions"
    ]
    (slices,) = content["slices"]
    assert (slices["by"], slices["unit"]) == ("duration", "s")
    assert [(row["low"], row["high"]) for row in slices["rows"]] == [(0.5, 2.5), (2.5, 3.5)]
    assert slices["rows"][1]["wer"] == 3 / 7
    assert content["num_utterances"] == 3
    assert content["duration_s"] == 6.5
    assert [row["speaker"] for row in content["speakers"]] == [None, "s1plain"]
    assert content["speakers"][0]["wer"] is None  # an inserted word and no reference: infinite
    assert content["utterances"][2] == {
        "id": "3plain",
        "speaker": None,
        "duration_s": 0.5,
        "audio_filepath": "3plain.wav",
        "reference": "",
        "hypothesis": "plain3",
        "words": {
            "reference_length": 0,
            "hits": 0,
            "substitutions": 0,
            "deletions": 0,
            "insertions": 1,
            "errors": 1,
        },
        "characters": {
            "reference_length": 0,
            "hits": 0,
            "substitutions": 0,
            "deletions": 0,
            "insertions": 6,
            "errors": 6,
        },
        "fields": {},
        "snr_db": None,
        "heard": [],
    }


@pytest.mark.parametrize("text", ["plain", '"<&\u2028\x1b\ud800', "größe 声"])
def test_read_back_is_the_same(tmp_path, make_evaluation, text):
    evaluation = make_evaluation(text=text)
    path = tmp_path / "evaluation.json"
    path.write_text(evaluation_to_json(evaluation), encoding="utf-8")
    assert read_evaluation(path) == evaluation


def test_fields_snr_and_heard_words_are_kept(tmp_path, make_evaluation):
    made = make_evaluation()
    words = (Word("all", 0.1, 0.42, 0.9), Word("right", 0.5, 1.0, 0.25))
    rich = replace(made.utterances[1], fields={"gender": "f", "n": "3"}, snr_db=-1.5, words=words)
    evaluation = replace(made, utterances=(rich, made.utterances[2]))
    path = tmp_path / "evaluation.json"
    path.write_text(evaluation_to_json(evaluation), encoding="utf-8")
    assert read_evaluation(path) == evaluation


def test_what_was_left_out_is_kept_and_older_files_have_none(tmp_path, make_evaluation):
    left_out = (
        Finding(
            Kind.UNREADABLE_AUDIO,
            "9.wav: No such file or directory",
            "9",
            audio_filepath=Path("9.wav"),
        ),
    )
    path = tmp_path / "evaluation.json"
    path.write_text(evaluation_to_json(replace(make_evaluation(), left_out=left_out)))
    assert read_evaluation(path).left_out == left_out
    content = strict(path.read_text())
    assert content["num_utterances"] == 3
    (row,) = content["left_out"]
    assert row == {
        "id": "9", "audio_filepath": "9.wav", "reason": "9.wav: No such file or directory"
    }  # fmt: skip
    path.write_text(changed(path.read_text(), left_out=...))
    assert read_evaluation(path) == make_evaluation()


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "evaluation.json")
    for read in (read_evaluation, read_calibration):
        for path in (tmp_path / "evaluation.json", Path("/dev/zero")):
            with pytest.raises(ValueError, match=f"^{path}: not a regular file"):
                read(path)


def test_settings_that_are_not_finite_are_null(make_evaluation):
    model = ModelDescription("m", 1, {"loss": math.nan, "best": math.inf, "rate": 0.5})
    content = strict(evaluation_to_json(replace(make_evaluation(), model=model)))
    assert content["model"]["training"] == {"loss": None, "best": None, "rate": 0.5}


def changed(text, **changes):
    content = json.loads(text) | changes
    return json.dumps({name: value for name, value in content.items() if value is not ...})


def test_what_is_no_evaluation_is_refused(tmp_path, make_evaluation):
    good = evaluation_to_json(make_evaluation())
    utterance = json.loads(good)["utterances"][0]
    cases = {
        "Expecting value": "no JSON",
        r"expected \('asr evaluation', 2\)": "[]",
        r"\('asr evaluation', 1\)": changed(good, version=1),
        "content has no manifest, expected one": changed(good, manifest=...),
        "title is 5, expected a text": changed(good, title=5),
        "reference is None": changed(good, utterances=[utterance | {"reference": None}]),
        r"errors are \(3, .*expected \(0, 0\) by its texts": changed(
            good, utterances=[utterance | {"hypothesis": utterance["reference"]}]
        ),
        "no reference word in 0 utterances": changed(good, utterances=[]),
        "NaN is no JSON number": good.replace('"duration_s": 2.5', '"duration_s": NaN'),
        r"utterances\[0\]\.duration_s is '2', expected a number": changed(
            good, utterances=[utterance | {"duration_s": "2"}]
        ),
        r"utterances\[0\]\.fields\['age'\] is 3, expected a text": changed(
            good, utterances=[utterance | {"fields": {"age": 3}}]
        ),
        r"utterances\[0\] has 'speakers': did you mean speaker\?": changed(
            good, utterances=[utterance | {"speakers": 3}]
        ),
        "expected -1000 to 1000": changed(good, utterances=[utterance | {"snr_db": 1e308}]),
        r"slice_by: 'x' is no field": changed(good, slice_by=["x"]),
        "utterance '1plain' occurs twice": changed(good, utterances=[utterance] * 2),
        r"left_out\[0\] has no reason": changed(
            good, left_out=[{"id": "a", "audio_filepath": "a.wav"}]
        ),
    }
    path = tmp_path / "evaluation.json"
    for message, text in cases.items():
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=message) as raised:
            read_evaluation(path)
        assert str(raised.value).startswith(str(path))


def test_a_calibration_read_back_is_the_same(tmp_path):
    path = tmp_path / "new" / "calibration.json"
    calibration = Calibration(slope=0.1 + 0.2, offset=-1 / 3)
    write_calibration(path, calibration)
    assert read_calibration(path) == calibration


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "other"}, "format and version are"),
        ({"version": 2}, "format and version are"),
        ({"slope": "1"}, "slope is '1', expected a number"),
        ({"offset": None}, "offset is None, expected a number"),
        ({"slope": True}, "slope is True, expected a number"),
        ({"slope": -1.0}, "expected a slope above 0"),
        ({"offset": float("nan")}, "NaN is no JSON number"),
        ({"more": 1}, "content has 'more'"),
        ({"format": "x" * 100_000}, "100057 bytes, expected a file of asr calibration of at most"),
    ],
)
def test_what_is_no_calibration_is_refused(tmp_path, changes, message):
    path = tmp_path / "calibration.json"
    write_calibration(path, Calibration(1.0, 0.0))
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ValueError, match=f"^{path}: .*{message}"):
        read_calibration(path)


@pytest.mark.parametrize("text", ["", "[]", "3", '"text"', "\x00"])
def test_no_json_object_is_no_calibration(tmp_path, text):
    path = tmp_path / "calibration.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"^{path}: "):
        read_calibration(path)
