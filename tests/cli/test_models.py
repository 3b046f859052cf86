"""asr models, and a model by its name in place of a file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import asr
from asr.cli.main import main
from asr.decoder import Greedy
from asr.decoder.ngram_file import save_ngram_model
from asr.model_file import load_model
from tests.decoder.searches import bigram_model
from tests.test_starter_model import CARD_TEXT

Fails = Callable[..., str]

DECODER = "_target_: asr.decoder.BeamSearch\nlanguage_model: {}\nlm_weight: 5.0\nbeam_size: 20\n"


@pytest.fixture
def models(model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of models with one in it, `tones`, in place of that of the checkout."""
    folder = tmp_path / "models" / "tones"
    folder.mkdir(parents=True)
    shutil.copy(model_file, folder / "model.safetensors")
    (folder / "card.md").write_text(CARD_TEXT.replace("NAME", "tones"))
    monkeypatch.setattr("asr.starter_model.models_dir", lambda: folder.parent)
    monkeypatch.setattr("asr.cli.models.models_dir", lambda: folder.parent)
    return folder


@pytest.fixture
def clip(corpus: Path) -> str:
    """A recording that says `c a`."""
    return str(corpus.parent / "02.wav")


def transcribed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert main(["transcribe", *arguments]) == 0
    return capsys.readouterr().out.strip().split("\t")[1]


def test_the_list_has_a_line_a_model_and_the_card_is_printed(
    models: Path, capsys: pytest.CaptureFixture[str], fails: Fails
) -> None:
    assert main(["models"]) == 0
    (line,) = [each for each in capsys.readouterr().out.splitlines() if "tones" in each][:1]
    cells = [cell.strip() for cell in line.strip("│ ").split("│")]
    assert cells[:2] == ["tones", "Letters as tones."]
    assert cells[3:] == ["8 kHz", "4 characters"]
    assert main(["models", "tones"]) == 0
    card = (models / "card.md").read_text().strip()
    assert capsys.readouterr().out.strip() == f"{card}\n\nIts files: {models}"
    assert fails("models", "tnes") == "no model is called 'tnes', expected one of tones"


def test_none_is_said_plainly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("asr.starter_model.models_dir", lambda: tmp_path)
    monkeypatch.setattr("asr.cli.models.models_dir", lambda: tmp_path)
    assert main(["models"]) == 0
    assert capsys.readouterr().out.startswith("no model comes with this asr")


@pytest.mark.usefixtures("no_pictures")
def test_a_name_stands_for_the_file_in_every_command(
    models: Path,
    corpus: Path,
    clip: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert transcribed(capsys, "--model", "tones", clip) == "c a"
    assert main(["align", "--model", "tones", clip, "c a"]) == 0
    assert main(["doctor", "--model", "tones", str(corpus)]) == 0
    runs = f"paths.run_dir={tmp_path / 'runs'}"
    words = [f"manifest={corpus}", "device=cpu", "report.listen=0", "name=e", runs]
    assert main(["evaluate", "model_file=tones", *words]) == 0
    found = json.loads((tmp_path / "runs/evaluate/e/evaluation.json").read_text())
    assert found["wer"] == 0
    assert found["model"]["name"] == "tones"
    data = (f"data.train={corpus}", f"data.dev={corpus}", "augment=none", "optim.lr=0")
    steps = ("trainer.max_epochs=1", "trainer.accelerator=cpu", "optim.weight_decay=0")
    assert main(["train", "init_from=tones", *data, *steps, "name=t", runs]) == 0
    _, training = load_model(tmp_path / "runs/train/t/best.safetensors")
    assert training["init_from"] == "tones/model.safetensors"
    assert training["dev_wer"] == 0
    assert asr.Transcriber.load("tones").transcribe(clip).text == "c a"
    assert asr.Aligner.load("tones").align_file(clip, "c a").fits


def test_a_name_that_there_is_not(
    models: Path, corpus: Path, clip: str, tmp_path: Path, fails: Fails
) -> None:
    told = "tone: no such file, and no model is called 'tone', expected one of tones"
    assert fails("transcribe", "--model", "tone", clip) == told
    assert fails("align", "--model", "tone", clip, "c a") == told
    assert fails("doctor", "--model", "tone", str(corpus)) == told
    run = f"hydra.run.dir={tmp_path / 'run'}"
    assert fails("evaluate", "model_file=tone", f"manifest={corpus}", run) == told
    with pytest.raises(FileNotFoundError, match="expected one of tones"):
        asr.Transcriber.load("tone")


def test_the_models_decoder_is_taken_where_no_other_is_chosen(
    models: Path, clip: str, capsys: pytest.CaptureFixture[str], fails: Fails
) -> None:
    # A language model that has seen `cab` and `ba` only, at a weight that outshouts the audio.
    save_ngram_model(models / "lm.arpa", bigram_model(("cab", "ba")))
    (models / "decoder.yaml").write_text(DECODER.format("lm.arpa"))
    greedy = transcribed(capsys, "--model", "tones", "--decoder", "greedy", clip)
    own = transcribed(capsys, "--model", "tones", clip)
    assert greedy == "c a"
    assert own in ("cab", "ba")
    assert transcribed(capsys, "--model", str(models), clip) == own  # the folder by its path
    # Options that are none of a greedy search change it; with another language model it is gone.
    assert transcribed(capsys, "--model", "tones", "--lm-weight", "0", clip) == "c a"
    other = str(models / "lm.arpa")
    assert transcribed(capsys, "--model", "tones", "--lm", other, "--lm-weight", "0", clip) == "c a"
    for outside in ("/etc/lm.arpa", "../lm.arpa"):
        (models / "decoder.yaml").write_text(DECODER.format(outside))
        line = fails("transcribe", "--model", "tones", clip)
        path = models / "decoder.yaml"
        assert line == (
            f"{path}: language_model is {outside!r}, expected a file in its folder, or ../NAME/FILE"
        )


def evaluated(corpus: Path, folder: Path, *words: str) -> dict[str, Any]:
    runs = f"paths.run_dir={folder}"
    given = [f"manifest={corpus}", "device=cpu", "report.listen=0", "name=e", runs, *words]
    assert main(["evaluate", *given]) == 0
    found: dict[str, Any] = json.loads((folder / "evaluate/e/evaluation.json").read_text())
    return found


@pytest.mark.usefixtures("no_pictures")
def test_the_models_decoder_is_taken_by_evaluate_and_in_python(
    models: Path,
    corpus: Path,
    clip: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    fails: Fails,
) -> None:
    save_ngram_model(models / "lm.arpa", bigram_model(("cab", "ba")))
    (models / "decoder.yaml").write_text(DECODER.format("lm.arpa"))
    own = transcribed(capsys, "--model", "tones", clip)
    assert own in ("cab", "ba")

    def said(found: dict[str, Any]) -> str:
        (row,) = [each for each in found["utterances"] if each["reference"] == "c a"]
        return str(row["hypothesis"])

    found = evaluated(corpus, tmp_path, "model_file=tones")
    assert said(found) == own
    settings = found["settings"]
    assert settings["decoder"] == "BeamSearch"
    assert settings["decoder.language_model"] == str(models / "lm.arpa")
    assert settings["decoder_file"] == str(models / "decoder.yaml")
    assert f"decoder: {models / 'decoder.yaml'}" in capsys.readouterr().err
    # Settings change it, another decoder takes its place.
    found = evaluated(corpus, tmp_path, f"model_file={models}", "decoder.lm_weight=0")
    assert (said(found), found["settings"]["decoder.lm_weight"]) == ("c a", 0)
    found = evaluated(corpus, tmp_path, "model_file=tones", "decoder=greedy")
    assert (said(found), found["settings"]["decoder"]) == ("c a", "Greedy")
    assert "decoder_file" not in found["settings"]
    found = evaluated(corpus, tmp_path, "model_file=tones", "decoder=beam")
    assert (said(found), "decoder.language_model" in found["settings"]) == ("c a", False)
    assert asr.Transcriber.load("tones").transcribe(clip).text == own
    assert asr.Transcriber.load("tones", decoder=Greedy()).transcribe(clip).text == "c a"
    # One decoder for the jobs of a sweep has to be named.
    sweep = [f"manifest={corpus}", "device=cpu", "report.listen=0", "-m", "name=s"]
    sweep += [f"paths.run_dir={tmp_path}", f"model_file={models},{models / 'model.safetensors'}"]
    assert "expected decoder=NAME for all models, greedy for none" in fails_last(sweep, capsys)
    assert main(["evaluate", *sweep, "decoder=greedy"]) == 0
    outside = models / "decoder.yaml"
    outside.write_text(DECODER.format("../lm.arpa"))
    told = (
        f"{outside}: language_model is '../lm.arpa', expected a file in its folder, or ../NAME/FILE"
    )
    assert fails("evaluate", "model_file=tones", f"manifest={corpus}") == told
    with pytest.raises(ValueError, match="expected a file in its folder"):
        asr.Transcriber.load("tones")


def fails_last(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The last line of a command that fails, after what its jobs have told."""
    assert main(["evaluate", *words]) == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_a_decoder_beside_a_runs_model_is_not_taken(
    models: Path, clip: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """asr tune-decoder may have written it there, and nobody asked for it."""
    shutil.copy(models / "model.safetensors", tmp_path / "best.safetensors")
    (tmp_path / "decoder.yaml").write_text(DECODER.format("no.arpa"))
    assert transcribed(capsys, "--model", str(tmp_path), clip) == "c a"
