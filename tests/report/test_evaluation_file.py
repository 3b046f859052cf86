"""The files of an evaluation: what is in them, and that they are the same when read back."""

import json
import math
import os
from dataclasses import replace
from pathlib import Path

import pytest

from asr.finding import Finding, Kind
from asr.metrics.calibration import Calibration
from asr.report.evaluation import (
    ModelDescription,
)
from asr.report.evaluation_file import (
    evaluation_to_json,
    read_calibration,
    read_evaluation,
    write_calibration,
)
from asr.word import Word


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
