"""A calibration as a file: the same when read back, anything else refused by name."""

import json

import pytest

from asr.metrics.calibration import Calibration
from asr.report import read_calibration, write_calibration


def test_read_back_is_the_same(tmp_path):
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
def test_no_json_object_is_refused(tmp_path, text):
    path = tmp_path / "calibration.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"^{path}: "):
        read_calibration(path)
