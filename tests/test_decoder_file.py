"""Decoder files: what is none, and where the files lie that a model's own decoder names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from asr.decoder_file import DECODERS, read_decoder_file, read_own_decoder
from asr.signatures import parameters_of


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("beam_size: 3", "no _target_, expected decoder settings"),
        ("- 1", "not YAML of names and values"),
        ("a: [", "not YAML"),
        ("", "no _target_"),
        ("_target_: ${oops", "_target_ is '${oops', expected a value, not a look-up"),
        ("_target_: os.system", "_target_ is 'os.system', expected one of asr.decoder."),
        ("_target_: asr.decoder.Decoder", "expected one of asr.decoder."),
        ("_target_: [asr.decoder.Greedy]", "expected one of asr.decoder."),
        ("_target_: asr.decoder.Greedy\nbeam_size: 3", "unknown setting beam_size"),
        ("_target_: asr.decoder.BeamSearch\nbeam_siz: 3", "did you mean beam_size?"),
        (
            "_target_: asr.decoder.BeamSearch\nbeam_size: many",
            "beam_size is 'many', expected a whole",
        ),
        (
            "_target_: asr.decoder.BeamSearch\nbeam_size: {_target_: os.system}",
            "expected a value and no class",
        ),
    ],
)
def test_files_of_no_decoder_are_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "decoder.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=f"^{file}: .*{re.escape(message)}"):
        read_decoder_file(file)


def test_a_models_own_files_lie_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "decoder.yaml"
    text = "_target_: asr.decoder.BeamSearch\nlanguage_model: lm.ngram\nlexicon: {}\n"
    file.write_text(text.format("null"))
    assert read_decoder_file(file)["language_model"] == "lm.ngram"
    assert read_own_decoder(file) == {
        "_target_": "asr.decoder.BeamSearch",
        "language_model": str(tmp_path / "lm.ngram"),
        "lexicon": None,
    }
    for outside in ("/etc/words", "../words", "a/../../words", "../a/../words", "../../a/words"):
        file.write_text(text.format(outside))
        with pytest.raises(ValueError, match=f"^{file}: lexicon is '{outside}', expected a file"):
            read_own_decoder(file)


def test_a_name_without_a_folder_is_the_file_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "decoder.yaml"
    file.write_text("_target_: asr.decoder.BeamSearch\nlanguage_model: lm.ngram\n")
    (tmp_path / "lm.ngram").touch()
    assert read_decoder_file(file)["language_model"] == str(tmp_path / "lm.ngram")
    assert read_own_decoder(file)["language_model"] == str(tmp_path / "lm.ngram")


def test_a_file_of_another_models_folder(tmp_path: Path) -> None:
    file = tmp_path / "live" / "decoder.yaml"
    file.parent.mkdir()
    file.write_text("_target_: asr.decoder.BeamSearch\nlanguage_model: ../big/lm.ngram\n")
    assert read_decoder_file(file)["language_model"] == "../big/lm.ngram"  # of where one works
    (tmp_path / "big").mkdir()
    (tmp_path / "big" / "lm.ngram").touch()
    found = str(tmp_path / "live" / ".." / "big" / "lm.ngram")
    assert read_decoder_file(file)["language_model"] == found
    assert read_own_decoder(file)["language_model"] == found


def test_all_decoders_of_the_table_are_there() -> None:
    assert all(name == "asr.decoder.Greedy" or parameters_of(name) for name in DECODERS)
