"""Check 26: a decoder file or a run folder of somebody else's runs nothing and looks nothing up."""

from __future__ import annotations

import json
import os
import pickle
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from asr.cli.main import main
from asr.decoder.kneser_ney import encode, train
from asr.decoder.ngram_file import save_ngram_model
from asr.model_file import load_model, save_model
from asr.recognizer import ModelSpec, Part, Recognizer

SECRET = "secret-of-the-user"


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return os.mkdir, (str(self.canary),)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a model, a recording and a file that runs code where it is unpickled.

    Afterwards nothing has been run, and the file that may not change has not.
    """
    canary, treasure = tmp_path / "canary", tmp_path / "treasure.txt"
    treasure.write_text("precious")
    with (tmp_path / "evil.pt").open("wb") as file:
        pickle.dump(Evil(canary), file)
    torch.manual_seed(0)
    spec = ModelSpec(
        Part("LogMel", {"sample_rate": 8000, "n_mels": 20}),
        Part("BiLstmCtc", {"hidden_size": 4, "num_layers": 1, "channels": 2}), "ab ", {},
    )  # fmt: skip
    save_model(tmp_path / "model.safetensors", Recognizer(spec), {})
    soundfile.write(tmp_path / "a.wav", np.sin(np.arange(8000) / 9), 8000)
    (tmp_path / "test.jsonl").write_text('{"audio_filepath": "a.wav", "text": "ab"}\n')
    monkeypatch.setenv("SECRET", SECRET)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert not canary.exists()
    assert treasure.read_text() == "precious"


def decoder_files(place: Path) -> Iterator[str]:
    """Decoder files that name code, files or secrets wherever a file can."""
    evil, treasure = place / "evil.pt", place / "treasure.txt"
    calls = [
        f"{{_target_: torch.load, f: {evil}, weights_only: false}}",
        f"{{_target_: numpy.load, file: {evil}, allow_pickle: true}}",
        f"{{_target_: joblib.load, filename: {evil}}}",
        f"{{_target_: pickle.load, file: {{_target_: builtins.open, file: {evil}, mode: rb}}}}",
        f"{{_target_: builtins.open, file: {treasure}, mode: w}}",
        f"{{_target_: os.mkdir, path: {place / 'canary'}}}",
        f"{{_target_: subprocess.run, args: [mkdir, {place / 'canary'}]}}",
        f'{{_target_: builtins.eval, _args_: [\'__import__("os").mkdir("{place / "canary"}")\']}}',
        "{_target_: asr.decoder.Greedy}",
    ]
    for call in calls:
        yield f"_target_: asr.decoder.BeamSearch\nbeam_size: {call}\n"
        yield f"_target_: asr.decoder.BeamSearch\nhotwords: {{word: {call}}}\n"
        if "asr.decoder" not in call:  # which is a decoder file
            yield call.strip("{}").replace(", ", "\n") if "{" not in call[1:] else f"- {call}"
        yield f"_target_: asr.decoder.BeamSearch\nevil: {call}\n"
    beam = "_target_: asr.decoder.BeamSearch\n"
    look_ups = (
        "${oc.env:SECRET}",
        "x${oc.env:SECRET}",
        "${oc.decode:${oc.env:SECRET}}",
        "${now:%Y}",
    )
    for text in look_ups:
        yield f"{beam}language_model: '{text}'\n"
        yield f"{beam}hotwords: {{'{text}': 1.0}}\n"
        yield f"_target_: '{text}'\n"
    yield f"{beam}_partial_: true\n"
    yield f"{beam}_args_: [3]\n"
    yield f"{beam}_convert_: all\n_recursive_: true\n"
    yield f"{beam}defaults: [{{/hydra/callbacks: evil}}, _self_]\n"
    yield f"{beam}hydra: {{callbacks: {{a: {calls[5]}}}}}\n"
    yield f"{beam}beam_size: !!python/object/apply:os.mkdir [{place / 'canary'}]\n"
    yield "_target_: asr.decoder.Hypothesis\ntokens: []\n"
    yield "_target_: asr.decoder.ngram_file.load_ngram_model\npath: /dev/zero\n"
    yield "_target_: asr.trainer.Trainer\nmax_epochs: 1\n"


def test_text_rules_of_a_model_file_neither_hang_nor_grow(
    place: Path, capsys: pytest.CaptureFixture[str], survived: Callable[[str, int, int], None]
) -> None:
    recognizer, _ = load_model(place / "model.safetensors")
    text = "a" * 20_000 + "b"
    (place / "test.jsonl").write_text(json.dumps({"audio_filepath": "a.wav", "text": text}) + "\n")
    hostile: list[dict[str, object]] = [
        {"replace": [["(a|aa)+$", ""]]},
        {"replace": [["(a|b|ab)*c", ""], ["(a|aa)+$", ""]] * 50},
        {"replace": [["a", "a" * 1000]] * 3},
        {"replace": [["(a*)", r"\1" * 400]] * 3},
        {"replace": [["a", "1"]], "numbers": "hi"},
        {"replace": [["((a{1,99}){1,99}){1,99}b$", ""], [".", r"\g<0>\g<0>"]] * 20},
    ]
    trained = train(encode([["a"], ["b"]]), 1, fallback=(0.5, 1, 1.5))
    save_ngram_model(place / "lm.arpa", trained.model)
    good = tried = 0
    for number, rules in enumerate(hostile):
        model = f"hostile{number}.safetensors"
        save_model(place / model, Recognizer(replace(recognizer.spec, text=rules)), {})
        for command in (
            ["evaluate", f"model_file={model}", "manifest=test.jsonl", "name=e", "device=cpu"],
            ["align", "--model", model, "a.wav", text],
            ["lm", "perplexity", "--rules", model, str(place / "lm.arpa"), "test.jsonl"],
        ):
            tried += 1
            start = time.process_time()
            status = main(command)
            took = time.process_time() - start
            err = capsys.readouterr().err
            told = [line for line in err.splitlines() if line.startswith("asr: error: ")]
            is_told = len(told) == 1 and len(told[0]) < 2000
            if status == 2 and is_told and took < 5:
                good += 1
            else:
                print(number, command[:2], status, took, [line[:300] for line in told])
    survived("26 hostile text rules", good, tried)


def test_decoder_files_run_nothing(
    place: Path, capsys: pytest.CaptureFixture[str], survived: Callable[[str, int, int], None]
) -> None:
    file = place / "decoder.yaml"
    good = tried = 0
    for text in decoder_files(place):
        file.write_text(text)
        for command in (
            ["transcribe", "--model", "model.safetensors", "--decoder-config", str(file), "a.wav"],
            ["evaluate", "model_file=model.safetensors", "manifest=test.jsonl", f"decoder={file}",
             "name=e", "device=cpu"],
        ):  # fmt: skip
            tried += 1
            capsys.readouterr()
            status = main(command)
            captured = capsys.readouterr()
            lines = [line for line in captured.err.splitlines() if line.startswith("asr: error: ")]
            is_refused = status == 2 and len(lines) == 1 and "Traceback" not in captured.err
            is_silent = SECRET not in captured.out + captured.err
            good += is_refused and is_silent and not (place / "canary").exists()
            if not (is_refused and is_silent):
                print(f"{command[0]}: {text}: {status}: {captured.err}")
    survived("26 decoder files that would run code", good, tried)


HOSTILE_OVERRIDES = (
    "++data.text.x={_target_: os.mkdir, path: canary}",
    "data.text={_target_: os.mkdir, path: canary}",
    "data.text._target_=os.mkdir",
    "optim._target_=os.mkdir",
    "model._target_=os.mkdir",
    "trainer={_target_: os.mkdir, path: canary}",
    "++augment.spec={_target_: os.mkdir, path: canary}",
    "++hydra.callbacks={a: {_target_: os.mkdir, path: canary}}",
    "++hydra.job.env_set={LD_PRELOAD: evil.so}",
    "hydra.job_logging={version: 1, handlers: {a: {'()': os.mkdir}}}",
    "hydra/launcher=submitit_slurm",
    "hydra.searchpath=[file:///tmp]",
    "hydra.output_subdir=..",
    "model@hydra.callbacks=evil",
    "experiment=../../evil",
    "+experiment=/evil",
    "data.train=${oc.env:SECRET}",
    "name=x${oc.env:SECRET}",
    "optim.lr=choice(1,2)",
    "--config-dir=.",
    "--multirun",
    "-cn=evil",
    "--package=evil",
)


def test_run_folders_run_nothing(
    place: Path, capsys: pytest.CaptureFixture[str], survived: Callable[[str, int, int], None]
) -> None:
    record = place / "run" / ".hydra"
    record.mkdir(parents=True)
    given = ["data.train=test.jsonl", "data.dev=test.jsonl", "trainer.max_epochs=1"]
    good = 0
    for override in HOSTILE_OVERRIDES:
        (record / "overrides.yaml").write_text(
            "".join(f"- {each!r}\n" for each in [*given, override])
        )
        capsys.readouterr()
        status = main(["train", "resume=run"])
        captured = capsys.readouterr()
        is_refused = status == 2 and len(captured.err.splitlines()) == 1
        good += is_refused and SECRET not in captured.err and not (place / "canary").exists()
        if not is_refused:
            print(f"{override}: {status}: {captured.err}")
    survived("26 run folders that would run code", good, len(HOSTILE_OVERRIDES))


OWN_FILES = (
    "train.log", "steps.csv", "left_out.jsonl", "validations.csv", ".lock", "error.txt",
    "best.safetensors", "start.safetensors", ".hydra", ".hydra/overrides.yaml",
    ".hydra/config.yaml", "state", "state/index.json", "state/000001-step-1.pt",
)  # fmt: skip


@pytest.mark.slow
def test_run_folders_lead_nowhere(
    place: Path, capsys: pytest.CaptureFixture[str], survived: Callable[[str, int, int], None]
) -> None:
    """Links and FIFOs where a training writes: nothing outside is written, and nothing waits."""
    good = tried = 0
    overrides = ["data.train=test.jsonl", "data.dev=test.jsonl", "trainer.max_epochs=1"]
    for name in OWN_FILES:
        for kind in ("link", "fifo"):
            run = place / f"{kind}-{name.replace('/', '-')}"
            outside = place / f"outside-{run.name}"
            (run / ".hydra").mkdir(parents=True)
            (run / "state").mkdir()
            (run / "state" / "index.json").write_text("{}")
            (run / ".hydra" / "overrides.yaml").write_text("".join(f"- {o}\n" for o in overrides))
            if name in (".hydra", "state"):
                (run / name).rename(outside)
            elif kind == "link":
                outside.write_text("precious")
            else:
                outside.mkdir()
            (run / name).unlink(missing_ok=True)
            if kind == "link":
                (run / name).symlink_to(outside)
            else:
                os.mkfifo(run / name)
            before = content(outside)
            for command in (["resume=" + str(run)], [*overrides, f"hydra.run.dir={run}"]):
                tried += 1
                capsys.readouterr()
                status = main(["train", *command])
                err = capsys.readouterr().err
                is_refused = status == 2 and len(err.splitlines()) == 1
                good += is_refused and content(outside) == before
                if not is_refused:
                    print(f"{kind} {name}: {status}: {err}")
    survived("26 run folders that lead elsewhere", good, tried)


def content(path: Path) -> dict[str, bytes]:
    """All files at and below a path."""
    files = [path] if path.is_file() else sorted(path.rglob("*"))
    return {str(file): file.read_bytes() for file in files if file.is_file()}


def test_run_folders_are_compared_without_a_look_up(
    place: Path, capsys: pytest.CaptureFixture[str], survived: Callable[[str, int, int], None]
) -> None:
    """A secret of the reader's environment, a formula, an alias bomb, infinite losses."""
    header = "step,epoch,elapsed_s,audio_h,loss,wer,cer\n"
    bomb = "a0: &a0 [x]\n" + "".join(f"a{n + 1}: &a{n + 1} [*a{n}, *a{n}]\n" for n in range(60))
    configs = {
        "secret": "seed: ${oc.env:SECRET}\ntrainer: {max_epochs: 1, where: '${oc.env:SECRET}'}\n",
        "formula": "seed: 2\ntrainer: {max_epochs: 1, where: '=cmd|calc!A1'}\n",
        "infinite": "seed: 3\ntrainer: {max_epochs: 1, where: '@SUM(A1)'}\n",
        "infinite_too": "seed: 4\ntrainer: {max_epochs: 1, where: '@SUM(A1)'}\n",
        "bomb": f"{bomb}trainer: {{max_epochs: 1}}\n",
    }
    for name, config in configs.items():
        (place / "runs" / name / ".hydra").mkdir(parents=True)
        (place / "runs" / name / ".hydra" / "config.yaml").write_text(config)
        (place / "runs" / name / "validations.csv").write_text(f"{header}1,1,1,1,inf,inf,0.5\n")
    os.mkfifo(place / "runs" / "bomb" / "error.txt")
    status = main(["runs", "runs"])
    printed = "".join(capsys.readouterr())
    table = (place / "runs" / "runs.csv").read_text()
    checks = [
        status == 0,
        SECRET not in printed + table,
        ",'=cmd|calc!A1," in table,
        ",'@SUM(A1)," in table,
        "infinite_too" in table,
        "cannot be read" in table,
    ]
    survived("26 run folders that are compared", sum(checks), len(checks))
