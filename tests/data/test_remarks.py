"""What is said of a corpus as a whole, and when nothing is."""

from __future__ import annotations

from pathlib import Path

import pytest

from asr.data.corpora.manifest import prepare_manifest
from asr.data.remarks import amount_remark, figure_remark, space_remark, tag_remark
from asr.text import TextNormalizer

SENTENCES = [f"say word{number} now" for number in range(200)]


def test_too_little_speech_is_told_but_for_a_few_fixed_words() -> None:
    remark = amount_remark("train", 156.0, SENTENCES)
    assert remark is not None
    assert remark.startswith("train has 2.6 min of speech. To train on, that is too little")
    assert amount_remark("train", 3600.0, SENTENCES) is None
    assert amount_remark("train", 156.0, ["one", "two three"] * 20) is None
    assert amount_remark("train", 156.0, ["one", "two three"]) is not None


def test_texts_without_spaces_are_told_but_for_single_words() -> None:
    remark = space_remark("m.jsonl", ["ichbinda", "kommdochher"])
    assert remark is not None
    assert "No text of m.jsonl has a space" in remark
    assert space_remark("m.jsonl", ["ich bin da", "kommdochher"]) is None
    assert space_remark("m.jsonl", ["\u4f60\u597d", "\u4eca\u5929\u5929\u6c14"]) is None
    assert space_remark("m.jsonl", ["yes", "no"] * 20) is None
    assert space_remark("m.jsonl", []) is None


@pytest.mark.parametrize(
    ("texts", "drop_in", "told"),
    [
        (["[noise] two (laughs)", "two <unk>", "plain"], "", ("2 of 3 texts", "'[]<>()'")),
        (["[noise] two", "two <unk>"], "[]", ("1 of 2 texts", "'[]<>'")),
        (["{uh} *cough* five"], "", ("1 of 1 texts", "'{}**'")),
        (["[noise]"], "[]", None),
        (["3 < 4 and 5 > 2 []", "(", "2 * 3"], "", None),
    ],
)
def test_tags_are_told_with_what_takes_them_away(
    texts: list[str], drop_in: str, told: tuple[str, str] | None
) -> None:
    remark = tag_remark(texts, TextNormalizer(drop_in=drop_in))
    if told is None:
        assert remark is None
        return
    assert remark is not None
    assert remark.startswith(told[0])
    assert f'"corpus.text.drop_in={told[1]}" takes it away' in remark
    rules = TextNormalizer(drop_in=told[1].strip("'"))
    assert tag_remark(texts, rules) is None


def test_figures_are_told_with_an_example() -> None:
    remark = figure_remark(["born in 1984", "yes", "5 %"])
    assert remark is not None
    assert remark.startswith("The alphabet has %, 1, 4, 5, 8, 9: 2 of 3 texts, as 'born in 1984'.")
    assert figure_remark(["yes"]) is None
    many = figure_remark(["0123456789"])
    assert many is not None
    assert "7 and 2 more: 1 of 1" in many


def test_prepare_tells_of_tags(speech_cases: Path, tmp_path: Path) -> None:
    manifest = speech_cases / "noise-tags-become-words" / "m.jsonl"
    corpus = prepare_manifest("x", tmp_path, train=manifest)
    (note,) = [note for note in corpus.notes if "tags" in note]
    assert "as '[noise] two zero four (laughs)'" in note
    rules = TextNormalizer(drop_in="[]()")
    corpus = prepare_manifest("x", tmp_path, train=manifest, text=rules)
    assert not [note for note in corpus.notes if "tags" in note]
