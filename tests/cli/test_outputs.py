"""The guard of what is read against what is written, and that every command calls it."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from asr.cli.align import OF_ALL
from asr.cli.main import COMMANDS, main
from asr.cli.options import check_outputs
from asr.decoder.ngram_file import save_ngram_model
from tests.decoder.searches import bigram_model

# How each command could be made to write over what it reads; {x} are files of the fixture.
OVERWRITING = {
    "transcribe": ["--model {model} {folder}/rec.txt --output-dir {folder}",
                   "--model {model} {link} --output-dir {folder}",
                   "--model {model} {audio} --format text --output {audio}"],
    "align": [
        "--model {model} --format ctm {words} --output {folder} ca",
        "--model {model} --manifest {lines} --format json --output {folder}",
    ],
    "doctor": ["{manifest} --json {manifest}", "{manifest} --picture {hard}",
               "{manifest} --json {audio}", "{manifest} --json {out} --picture {out}",
               "{manifest} --json {model} --model {model}"],
    "compare": ["{evaluation} {other} --output {evaluation}", "{evaluation} {other} --html {other}",
                "{evaluation} {other} --html {out} --output {out}"],
    "lm": ["train {text} --output {text}", "convert {lm} {lm}"],
    "lexicon": ["{text} --known {words} --output {text}",
                "{text} --known {words} --output {words}"],
    "average": ["{model} {model_too} --output {model} --overwrite"],
    "shrink": ["{model} --output {model} --overwrite"],
    "export": ["{model} --output {onnx} --audio {onnx} --overwrite"],
    "review": ["{manifest} --model {model} --output {manifest}",
               "{audio} --model {model} --output {audio}"],
    "tune-decoder": ["--model {model} --manifest {tuning} --lm {lm} --output {folder} --overwrite"],
    "runs": ["{folder}/runs --output {folder}/runs/run"],
    "shar": ["{index} {folder}/shards"],
    "evaluate": ["model_file={model} manifest={manifest} fit_calibration={manifest} device=cpu",
                 "model_file={model} manifest={manifest} fit_calibration={audio} device=cpu"],
    "prepare": ["corpus=manifest corpus.name=mine paths.data_dir={folder} "
                "corpus.train={folder}/mine/train.jsonl"],
    "train": ["data.train={listed} data.dev={manifest} hydra.run.dir={folder}/run overwrite=true"],
}  # fmt: skip


@pytest.fixture
def files(
    corpus: Path, model_file: Path, run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Path]:
    """A file of each kind, every one a copy that may be lost, and names that lead to some."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "work"
    folder.mkdir()
    found = {
        "folder": folder, "out": folder / "new.json", "model": folder / "model.safetensors",
        "model_too": folder / "too.safetensors", "audio": folder / "02.wav",
        "manifest": folder / "test.jsonl", "link": folder / "link.wav", "hard": folder / "hard.png",
        "text": folder / "text.arpa", "lm": folder / "lm.arpa", "words": folder / OF_ALL["ctm"],
        "evaluation": folder / "a.json", "other": folder / "b.json",
        "tuning": folder / "tuning.json", "index": folder / "shards" / "cuts.index.json",
        "listed": folder / "run" / "worst.jsonl", "lines": folder / OF_ALL["json"],
        "onnx": folder / "recording.onnx",
    }  # fmt: skip
    shutil.copy(model_file, found["model"])
    shutil.copy(run_dir / "last.safetensors", found["model_too"])
    for name in (
        found["audio"],
        found["onnx"],
        folder / "rec.txt",
        found["words"],
        folder / "real.txt",
        folder / "rec.srt",
    ):
        shutil.copy(corpus.parent / "02.wav", name)
    found["link"].symlink_to(folder / "link.txt")
    os.link(folder / "real.txt", folder / "link.txt")
    row = json.dumps({"audio_filepath": str(found["audio"]), "text": "c a", "duration": 0.48})
    for name in ("manifest", "tuning", "index", "listed", "lines"):
        found[name].parent.mkdir(exist_ok=True)
        found[name].write_text(row + "\n")
    os.link(found["manifest"], found["hard"])
    (folder / "mine").mkdir()
    (folder / "mine" / "train.jsonl").write_text(row + "\n")
    found["text"].write_text("a b c\n" * 20)
    save_ngram_model(found["lm"], bigram_model(("cab", "ba")))
    arguments = [f"model_file={model_file}", f"manifest={corpus}", "device=cpu", "report.listen=0"]
    assert main(["evaluate", *arguments, f"hydra.run.dir={tmp_path / 'e'}"]) == 0
    for name in ("evaluation", "other"):
        shutil.copy(tmp_path / "e" / "evaluation.json", found[name])
    run = folder / "runs" / "run"
    (run / ".hydra").mkdir(parents=True)
    (run / "runs.csv").write_text("step,epoch,elapsed_s,audio_h,loss,wer,cer\n1,1,1,1,1,1,1\n")
    os.link(run / "runs.csv", run / "validations.csv")
    (run / ".hydra" / "config.yaml").write_text("trainer: {max_epochs: 1}\n")
    return found


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_command_has_a_row() -> None:
    assert sorted(OVERWRITING) == sorted(
        {*COMMANDS} - {"completion", "models", "bench", "serve"}
    )  # none is written


@pytest.mark.parametrize("command", OVERWRITING)
def test_no_command_overwrites_what_it_reads(
    command: str, files: dict[str, Path], fails: Callable[..., str]
) -> None:
    before = contents(files["folder"])
    for words in OVERWRITING[command]:
        line = fails(command, *words.format(**files).split())
        assert re.search("would be (overwritten and is read|written to it)", line), line
        after = contents(files["folder"])
        assert {path: after.get(path) for path in before} == before, words


def test_a_file_is_known_by_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").write_text("precious")
    (tmp_path / "link").symlink_to("a")
    os.link("a", "hard")
    (tmp_path / "sub").mkdir()
    for output in ("a", "./a", "sub/../a", "link", "hard", tmp_path / "a"):
        with pytest.raises(ValueError, match="would be overwritten and is read"):
            check_outputs([output], ["b", "a"])
    (tmp_path / "nowhere").symlink_to("new")
    with pytest.raises(ValueError, match="two outputs would be written to it"):
        check_outputs(["new", "nowhere"], [])
    check_outputs(["new", None, "other"], ["a", "-", None, "missing\0name"])
    check_outputs([], ["a"])
