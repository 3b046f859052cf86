"""YAML of users and of run folders: data comes through, everything else is one line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from asr.user_yaml import MAX_YAML_BYTES, read_settings, read_yaml

BOMB = "a: &a [1]\n" + "".join(
    f"{y}: &{y} [*{x}, *{x}]\n" for x, y in zip("abcdefg", "bcdefgh", strict=True)
)


def written(folder: Path, text: str) -> Path:
    path = folder / "file.yaml"
    path.write_text(text)
    return path


def test_keys_are_texts_whatever_yaml_makes_of_them(tmp_path: Path) -> None:
    text = "hotwords: {no: 4, Off: 1e-3, 10: 2.5, 1e3: 1, null: 1, 'a b': 1, x: [{yes: no}]}\n"
    assert read_yaml(written(tmp_path, text), "settings") == {
        "hotwords": {
            "no": 4, "Off": 1e-3, "10": 2.5, "1e3": 1, "null": 1, "a b": 1, "x": [{"yes": False}],
        }
    }  # fmt: skip
    assert read_yaml(written(tmp_path, 'a: "1e-3"\nb: 1e-3\nc: "no"\n'), "settings") == {
        "a": "1e-3", "b": 1e-3, "c": "no",
    }  # fmt: skip


def test_values_are_those_of_the_command_line(tmp_path: Path) -> None:
    text = "a: 1e-3\nb: [1, two]\nc: {d: null}\ne: ${a}\n'on': yes\nf: 2020-01-01\n"
    path = written(tmp_path, text)
    assert read_settings(path, "settings") == {
        "a": 1e-3, "b": [1, "two"], "c": {"d": None}, "e": 1e-3, "on": True,
        "f": "2020-01-01",
    }  # fmt: skip
    assert read_yaml(written(tmp_path, "- a=${b}\n- c"), "a list") == ["a=${b}", "c"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, ":2: an alias (*a) in the place of a value, expected settings"),
        ("a: !!python/object/apply:os.system ['id']", ":1: a tag ("),
        ("a: !!binary aGk=", ":1: a tag ("),
        ("a: ${oc.env:HOME}", ": a is '${oc.env:HOME}', expected a value, not a look-up"),
        ("a: [{b: '${oc.env:HOME}'}]", ": a is [{'b': '${oc.env:HOME}'}], expected a value"),
        ("a: x${b}\nb: 1", ": a is 'x${b}', expected a value, not a look-up"),
        ("a: ${b}\nb: ${a}", ": a is '${b}', expected a value, not a look-up"),
        ("a: ${c}\nb: 1", ": a is '${c}', expected a value, not a look-up"),
        ("'${oc.env:HOME}': 1", ": ${oc.env:HOME} is 1, expected a value, not a look-up"),
        ("[" * 40 + "]" * 40, ":1: nested deeper than 32"),
        ("a: " + "{b: " * 40 + "1" + "}" * 40, ":1: nested deeper than 32"),
        ("a: {b", ": not YAML: "),
        ("a: 1\na: 2", ": not YAML: "),
        ("a: " + "9" * 5000, ": not YAML: "),
        ("just words", ":1: 'just words', expected settings"),
        ("- 1", ": not YAML of names and values, expected settings"),
        ("a: " + "x" * MAX_YAML_BYTES, f"expected settings of at most {MAX_YAML_BYTES}"),
    ],
)
def test_what_is_no_plain_data_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        read_settings(path, "settings")
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)
