"""asr compare: one table, JSON, errors."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

import pytest

from asr.cli.main import main
from asr.metrics.error_rate import score_utterance
from asr.report.evaluation import EvaluatedUtterance, Evaluation, ModelDescription
from asr.report.files import write_report

REFERENCES = {"u1": "a b c", "u2": "d e f", "u3": "g h i"}


def write(folder: Path, hypotheses: list[str], references: dict[str, str] = REFERENCES) -> Path:
    utterances = tuple(
        EvaluatedUtterance(id, f"s{id}", 1.0, f"{id}.wav", score_utterance(id, text, hypothesis))
        for (id, text), hypothesis in zip(references.items(), hypotheses, strict=True)
    )
    write_report(Evaluation("t", ModelDescription("m", 1), "f.jsonl", None, utterances), folder)
    return folder


def test_folders_and_files_become_one_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = write(tmp_path / "one", ["a b x", "d e f", "g h"])
    two = write(tmp_path / "two", ["a b c", "d e f", "g h i"])
    three = write(tmp_path / "three", ["x x x", "d e f", "g h"])
    out = tmp_path / "new" / "comparison.json"
    assert (
        main(["compare", str(one), str(two / "evaluation.json"), str(three), "--output", str(out)])
        == 0
    )
    output = capsys.readouterr().out
    lines = output.splitlines()
    assert "3 utterances, 9 words" in lines[0]
    assert any(str(one) in line and "22.22" in line for line in lines)
    assert any(f"{two / 'evaluation.json'}" in line and "-22.22" in line for line in lines)
    assert any(str(three) in line and "+22.22" in line for line in lines)
    assert str(out) in output
    content = json.loads(out.read_text())
    assert [pair["utterances_better"] for pair in content["pairs"]] == [2, 0]
    assert main(["compare", str(one), str(two / "evaluation.json"), str(three)]) == 0
    assert capsys.readouterr().out == output.replace(f"{out}\n", "")  # the same each time


def test_a_page_links_to_the_reports_that_are_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = write(tmp_path / "runs" / "a#1", ["a b x", "d e f", "g h"])
    two = write(tmp_path / "runs" / "two", ["a b c", "d e f", "g h i"])
    (two / "report.html").unlink()
    page = tmp_path / "new" / "compare.html"
    assert main(["compare", str(one), str(two), "--html", str(page)]) == 0
    assert capsys.readouterr().out.endswith(f"{page}\n")
    source = page.read_text(encoding="utf-8")
    assert source.startswith("<!doctype html>")
    links = re.findall('href="([^#"][^"]*)"', source)
    assert links == ["../runs/a%231/report.html"]
    assert (page.parent / unquote(links[0])).resolve() == one / "report.html"


def test_a_multirun_is_compared_job_by_job(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for k in (0, 1, 2, 10):
        write(tmp_path / "beams" / str(k), ["a b c" if k else "x", "d e f", "g h i"])
    (tmp_path / "beams" / "multirun.yaml").touch()
    assert main(["compare", str(tmp_path / "beams")]) == 0
    lines = capsys.readouterr().out.splitlines()
    jobs = [int(match[1]) for line in lines if (match := re.search(r"│ \S+/beams/(\d+) ", line))]
    assert jobs == [0, 1, 2, 10]


def test_mistakes_are_one_line(tmp_path: Path, fails: Callable[..., str]) -> None:
    one = write(tmp_path / "one", ["a b x", "d e f", "g h"])
    other = write(tmp_path / "other", ["", "", ""], REFERENCES | {"u3": "other words"})
    assert fails("compare", str(one), str(other)) == (
        f"{other}: 1 references differ from those of {one}, the first of utterance 'u3': "
        "'other words', expected 'g h i'"
    )
    assert "expected two or more" in fails("compare", str(one))
    (tmp_path / "empty").mkdir()
    assert fails("compare", str(one), f"{tmp_path}/empty") == (
        f"{tmp_path}/empty/evaluation.json: No such file or directory"
    )
    missing = tmp_path / "none"
    assert fails("compare", str(one), str(missing)) == f"{missing}: No such file or directory"
    (tmp_path / "no.json").write_text("{}")
    assert fails("compare", str(one), f"{tmp_path}/no.json").startswith(f"{tmp_path}/no.json: ")
