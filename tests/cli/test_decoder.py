"""Decoders by command line and by file: transcribe, evaluate, and options that would do nothing."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from omegaconf import OmegaConf

from asr.cli.conf import conf_dir, config_groups
from asr.cli.decoder import (
    HOTWORD_WEIGHT,
    add_decoder_options,
    decoder_settings,
    parse_hotwords,
)
from asr.cli.main import main
from asr.decoder.ngram_file import save_ngram_model
from tests.decoder.searches import bigram_model

Fails = Callable[..., str]


def config_of(*arguments: str) -> dict[str, object]:
    parser = argparse.ArgumentParser()
    add_decoder_options(parser)
    return decoder_settings(parser.parse_args(arguments))


@pytest.fixture
def lm(tmp_path: Path) -> str:
    """A language model that has seen `cab` and `ba` only."""
    save_ngram_model(tmp_path / "lm.arpa", bigram_model(("cab", "ba")))
    return str(tmp_path / "lm.arpa")


@pytest.fixture
def clip(corpus: Path) -> str:
    """A recording that says `c a`."""
    return str(corpus.parent / "02.wav")


def transcribed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert main(["transcribe", *arguments]) == 0
    return capsys.readouterr().out.strip().split("\t")[1]


def test_options_become_the_settings_of_conf() -> None:
    assert config_of() == {"_target_": "asr.decoder.Greedy"}
    beam = config_of("--decoder", "beam", "--beam-size", "8", "--hotword", "acme:3")
    assert beam["_target_"] == "asr.decoder.BeamSearch"
    assert (beam["beam_size"], beam["hotwords"]) == (8, {"acme": 3.0})
    assert "lm_weight" not in beam
    with_lm = config_of("--decoder", "beam", "--lm", "lm.arpa", "--lm-weight", "0.3")
    assert (with_lm["language_model"], with_lm["lm_weight"]) == ("lm.arpa", 0.3)
    assert {"beam_size", "word_bonus", "unk_score"} < set(with_lm)
    by_name = config_of("--decoder", "beam_ngram", "--lm", "lm.arpa", "--lm-weight", "0.3")
    assert by_name == with_lm
    assert config_of("--decoder", "beam", "--lexicon", "words.txt")["lexicon"] == "words.txt"


def test_a_file_is_changed_by_the_options(tmp_path: Path) -> None:
    file = tmp_path / "tuned.yaml"
    file.write_text(
        "_target_: asr.decoder.BeamSearch\nbeam_size: 9\nlanguage_model: a.arpa\nlm_weight: 0.7\n"
    )
    changed = config_of("--decoder-config", str(file), "--lm-weight", "0.2")
    assert (changed["beam_size"], changed["lm_weight"]) == (9, 0.2)
    assert changed["language_model"] == "a.arpa"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--decoder", "greedy", "--lm", "x"], "--lm has no effect with Greedy"),
        (["--decoder", "beam_ngram"], "language_model is missing, expected --lm FILE"),
        (["--decoder", "greedy", "--hotword", "x"], "--hotword has no effect with Greedy"),
        (["--n-best", "2"], "--n-best has no effect with Greedy"),
        (["--decoder", "greedy", "--beam-size", "2"], "--beam-size has no effect with Greedy"),
        (["--decoder", "greedy", "--lexicon", "x"], "--lexicon has no effect with Greedy"),
        (["--decoder", "greedy", "--phrases", "x"], "--phrases has no effect with Greedy"),
        (["--decoder", "beam", "--lm-weight", "1"], "--lm-weight has no effect"),
        (["--decoder", "beam", "--word-bonus", "1"], "--word-bonus has no effect"),
        (["--lexicon", "x", "--lm-weight", "1"], "--lm-weight has no effect without --lm"),
    ],
)
def test_an_option_without_effect_is_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        config_of(*arguments)


@pytest.mark.parametrize(
    ("arguments", "decoder"),
    [
        (["--lm", "a.arpa"], "BeamSearch"),
        (["--hotword", "acme"], "BeamSearch"),
        (["--lm", "a.arpa", "--hotword", "acme"], "BeamSearch"),
        (["--lexicon", "words.txt"], "BeamSearch"),
        (["--phrases", "phrases.txt"], "BeamSearch"),
        (["--lexicon", "words.txt", "--lm", "a.arpa"], "BeamSearch"),
    ],
)
def test_an_option_brings_its_decoder(arguments: list[str], decoder: str) -> None:
    settings = config_of(*arguments)
    assert settings["_target_"] == f"asr.decoder.{decoder}"
    assert settings.get("language_model") == ("a.arpa" if "--lm" in arguments else None)


def test_hotwords() -> None:
    assert parse_hotwords(["acme", "new york:2.5"]) == {"acme": HOTWORD_WEIGHT, "new york": 2.5}
    with pytest.raises(ValueError, match=r"^--hotword 'acme:much', expected WORD or WORD:WEIGHT"):
        parse_hotwords(["acme:much"])
    with pytest.raises(ValueError, match=r"^--hotword 'acme' is given twice"):
        parse_hotwords(["acme", "acme:2"])


@pytest.mark.parametrize("name", config_groups()["decoder"])
def test_names_and_settings_are_those_of_evaluate(name: str) -> None:
    """On a command line as Hydra composes them."""
    needed = "language_model" if name in ("beam_ngram", "beam_phones") else None
    options = ["--decoder", name, *(["--lm", "x"] if needed else [])]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        words = [f"decoder={name}", *([f"decoder.{needed}=x"] if needed else [])]
        config = hydra_compose("evaluate", words)
    assert config_of(*options) == OmegaConf.to_container(config.decoder)


def test_transcribe_with_each_decoder(
    model_file: Path, clip: str, lm: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = ("--model", str(model_file), clip)
    assert transcribed(capsys, *model, "--decoder", "beam") == "c a"
    forced = ("--decoder", "beam", "--lm", lm, "--lm-weight", "9")
    assert transcribed(capsys, *model, *forced) in ("cab", "ba")
    hot = ("--decoder", "beam", "--hotword", "CAB:60")
    assert transcribed(capsys, *model, *hot).startswith("cab")
    words = tmp_path / "words.txt"
    words.write_text("ba\nca\n")
    assert transcribed(capsys, *model, "--lexicon", str(words)) == "ca"
    phrases = tmp_path / "phrases.txt"
    phrases.write_text("kind: C, B\n{kind} A\nba ba\n")
    assert transcribed(capsys, *model, "--phrases", str(phrases)) == "c a"
    phrases.write_text("bac\nb b\n")
    assert main(["transcribe", *model, "--phrases", str(phrases)]) == 0
    assert capsys.readouterr().out == f"{clip}\t\n"


def test_words_that_the_model_cannot_write_are_told(
    model_file: Path, clip: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lm = tmp_path / "lm.arpa"
    save_ngram_model(lm, bigram_model(("cab", "dab", "fad")))
    arguments = ["--model", str(model_file), "--decoder", "beam", "--lm", str(lm), clip]
    assert main(["transcribe", *arguments]) == 0
    told = f"asr: {lm}: 2 of its words have characters that the model does not write, 'dab' first"
    assert told in capsys.readouterr().err


def test_what_a_decoder_refuses_is_one_line(
    model_file: Path, clip: str, tmp_path: Path, fails: Fails
) -> None:
    model = ("transcribe", "--model", str(model_file), clip)
    line = fails(*model, "--decoder", "beam", "--hotword", "xyz")
    assert line.startswith("character 'x' (U+0078 LATIN SMALL LETTER X)")
    assert fails(*model, "--decoder", "beam", "--lm", "no.arpa") == (
        "no.arpa: No such file or directory"
    )
    foreign = tmp_path / "foreign.yaml"
    foreign.write_text("_target_: os.system\ncommand: 'true'\n")
    line = fails(*model, "--decoder-config", str(foreign))
    assert line.startswith(f"{foreign}: _target_ is 'os.system', expected one of asr.decoder.")


def evaluated(corpus: Path, model_file: Path, folder: Path, *overrides: str) -> list[str]:
    status = main(
        ["evaluate", f"model_file={model_file}", f"manifest={corpus}", f"paths.run_dir={folder}",
         "name=tones", "device=cpu", *overrides]
    )  # fmt: skip
    assert status == 0
    content = json.loads((folder / "evaluate" / "tones" / "evaluation.json").read_text())
    return [row["hypothesis"] for row in content["utterances"]]


def test_evaluate_with_a_beam_and_with_a_file(
    corpus: Path, model_file: Path, lm: str, tmp_path: Path
) -> None:
    plain = evaluated(corpus, model_file, tmp_path)
    assert evaluated(corpus, model_file, tmp_path, "decoder=beam", "decoder.beam_size=4") == plain
    own = ("decoder=beam_ngram", f"decoder.language_model={lm}", "decoder.lm_weight=9")
    biased = evaluated(corpus, model_file, tmp_path, *own)
    assert biased != plain
    file = tmp_path / "tuned.yaml"
    file.write_text(
        f"_target_: asr.decoder.BeamSearch\nlanguage_model: {lm}\nlm_weight: 0.1\n"
        "word_bonus: 1.0\nunk_score: -5.0\n"
    )
    by_file = (f"decoder={file}", "decoder.lm_weight=9")
    assert evaluated(corpus, model_file, tmp_path, *by_file) == biased
    said = plain[0].split()[0]
    for name, text in (("lexicon", f"{said}\n"), ("phrases", f"{{{said},{said} {said}}}\n")):
        (tmp_path / f"{name}.txt").write_text(text)
        given = ("decoder=beam", f"decoder.{name}={tmp_path / name}.txt")
        assert {*" ".join(evaluated(corpus, model_file, tmp_path, *given)).split()} == {said}
