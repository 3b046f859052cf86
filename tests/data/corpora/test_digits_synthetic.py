"""The corpus that ships with the checkout."""

from __future__ import annotations

from pathlib import Path

import pytest

from asr.data.corpora import digits_synthetic
from asr.data.corpora.digits_synthetic import prepare_digits_synthetic
from asr.data.manifest import read_manifest

SHIPPED = Path(__file__).parents[3] / "recipes" / "digits_synthetic"
DIGITS = {"zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"}


def test_the_shipped_corpus_is_found_and_good(tmp_path: Path) -> None:
    corpus = prepare_digits_synthetic(tmp_path, audio_format="keep")
    assert [split.name for split in corpus.splits] == ["train", "dev", "test"]
    assert corpus.folder == tmp_path / "digits_synthetic"
    heard: set[str | None] = set()
    for split in corpus.splits:
        utterances = read_manifest(split.manifest)
        assert len(utterances) == split.utterances > 0
        assert {word for u in utterances for word in u.text.split()} >= DIGITS
        assert all(u.audio_filepath.is_relative_to(SHIPPED) for u in utterances)
        voices = {u.speaker for u in utterances}
        assert not voices & heard
        heard |= voices


def test_without_a_checkout_the_source_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "site-packages" / "asr" / "data" / "corpora" / "digits_synthetic.py"
    monkeypatch.setattr(digits_synthetic, "__file__", str(installed))
    with pytest.raises(ValueError, match=r"digits_synthetic: missing, .* expected source, the"):
        prepare_digits_synthetic(tmp_path / "data")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        prepare_digits_synthetic(tmp_path / "data", source=tmp_path / "nowhere")
    assert not (tmp_path / "data").exists()
