"""Reports are written whole, beside nothing else, or not at all."""

import errno

import pytest

from asr.report import read_evaluation, write_report


def test_all_files_and_no_other(tmp_path, make_evaluation):
    evaluation = make_evaluation(text="\ud800")
    paths = write_report(evaluation, tmp_path / "new" / "folder")
    assert paths.json == tmp_path / "new" / "folder" / "evaluation.json"
    assert paths.html == tmp_path / "new" / "folder" / "report.html"
    folder = paths.json.parent
    # No times of words, so nothing with times for sclite.
    assert paths.sclite == (folder / "ref.trn", folder / "hyp.trn")
    assert set(folder.iterdir()) == {paths.json, paths.html, *paths.sclite}
    assert read_evaluation(paths.json) == evaluation
    assert paths.html.read_text(encoding="utf-8").startswith("<!doctype html>")
    (tmp_path / "other").touch()
    assert paths.html.stat().st_mode == (tmp_path / "other").stat().st_mode


def test_earlier_report_is_replaced(tmp_path, make_evaluation):
    write_report(make_evaluation(text="earlier"), tmp_path)
    paths = write_report(make_evaluation(text="later"), tmp_path)
    for path in (paths.json, paths.html):
        assert "later" in path.read_text(encoding="utf-8")
        assert "earlier" not in path.read_text(encoding="utf-8")


def test_failure_leaves_what_was_there(tmp_path, make_evaluation, monkeypatch):
    paths = write_report(make_evaluation(text="earlier"), tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}

    def fail(source, target):
        raise OSError(errno.ENOSPC, "disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(
        OSError, match=r"cannot be written, \d+ bytes needed: No space left on device"
    ):
        write_report(make_evaluation(text="later"), tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert paths.json in before
