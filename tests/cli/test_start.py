"""asr train init_from: the start is the model of a file, and a resume does without that file."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from asr.cli.main import main
from asr.model_file import load_model

pytestmark = pytest.mark.usefixtures("no_pictures")

Fails = Callable[..., str]
STILL = ("optim.lr=0", "optim.weight_decay=0", "trainer.max_epochs=1")


@pytest.fixture
def renamed(corpus: Path, tmp_path: Path) -> Path:
    """The tone corpus in which c is called d."""
    rows = [json.loads(line) for line in corpus.read_text().splitlines()]
    for row in rows:
        row["audio_filepath"] = str(corpus.parent / row["audio_filepath"])
        row["text"] = row["text"].replace("c", "d")
    manifest = tmp_path / "renamed.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return manifest


def arguments(manifest: Path, runs: Path, name: str, *rest: str) -> list[str]:
    paths = [f"data.train={manifest}", f"data.dev={manifest}", f"paths.run_dir={runs}"]
    return ["train", *paths, f"name={name}", "augment=none", "trainer.accelerator=cpu", *rest]


def test_an_unchanged_alphabet_starts_where_the_model_was(
    corpus: Path, model_file: Path, tmp_path: Path
) -> None:
    """The settings' own model and features are other ones: those of the file rule."""
    run = arguments(corpus, tmp_path, "still", f"init_from={model_file}", *STILL)
    assert main(run) == 0
    folder = tmp_path / "train" / "still"
    found, training = load_model(folder / "last.safetensors")
    expected = load_model(model_file)[0].state_dict()
    assert found.state_dict().keys() == expected.keys()
    assert all(torch.equal(found.state_dict()[name], value) for name, value in expected.items())
    assert training["dev_wer"] == 0.0
    assert training["init_from"] == "best.safetensors"
    assert training["init_from_sha256"] == hashlib.sha256(model_file.read_bytes()).hexdigest()
    log = (folder / "train.log").read_text()
    assert f"start: {model_file}" in log
    assert "sample_rate 8000 of the model file, not 16000 of the settings; n_mels 40 of" in log
    assert "hidden_size 24 of the model file, not 128 of the settings" in log
    assert "dropout" not in log
    assert "characters: 4 kept (' abc'), none added, none dropped" in log


def test_a_new_character_is_learnt_and_the_others_are_known(
    renamed: Path, model_file: Path, tmp_path: Path
) -> None:
    few = (
        "trainer.max_epochs=20",
        "trainer.batch_duration_s=3",
        "optim.lr=0.01",
        "model.dropout=0",
    )
    assert main(arguments(renamed, tmp_path, "d", f"init_from={model_file}", *few)) == 0
    folder = tmp_path / "train" / "d"
    recognizer, training = load_model(folder / "best.safetensors")
    assert training["dev_wer"] == 0.0
    assert recognizer.tokenizer.alphabet == " abcd"
    assert (
        "characters: 4 kept (' abc'), 1 added ('d'), none dropped"
        in (folder / "train.log").read_text()
    )


def test_characters_that_are_given_are_all_there_are(
    renamed: Path, model_file: Path, tmp_path: Path
) -> None:
    given = (f"init_from={model_file}", "data.alphabet=' abd'", *STILL)
    assert main(arguments(renamed, tmp_path, "given", *given)) == 0
    log = (tmp_path / "train" / "given" / "train.log").read_text()
    assert "characters: 3 kept (' ab'), 1 added ('d'), 1 dropped ('c')" in log


def test_a_resume_needs_the_file_no_more(renamed: Path, model_file: Path, tmp_path: Path) -> None:
    """One epoch, the file gone, then the second, against two epochs in one go."""
    copy = tmp_path / "copy.safetensors"
    steps = ("trainer.batch_duration_s=3", "schedule=constant", "trainer.save_every_s=0")
    shutil.copy(model_file, copy)
    for name, epochs in (("parts", 1), ("whole", 2)):
        epochs_of = f"trainer.max_epochs={epochs}"
        run = arguments(renamed, tmp_path, name, f"init_from={copy}", *steps, epochs_of)
        assert main(run) == 0
    copy.unlink()
    parts, whole = (tmp_path / "train" / name for name in ("parts", "whole"))
    assert main(["train", f"resume={parts}", "trainer.max_epochs=2"]) == 0
    one, two = (load_model(folder / "last.safetensors") for folder in (parts, whole))
    assert one[1]["init_from"] == two[1]["init_from"] == "copy.safetensors"
    assert one[1] == two[1]
    for name, value in two[0].state_dict().items():
        assert torch.equal(one[0].state_dict()[name], value), name
    assert (parts / "train.log").read_text().count("characters: ") == 1


def test_a_training_that_began_with_fresh_weights_is_not_resumed_from_a_model(
    corpus: Path, tmp_path: Path, fails: Fails
) -> None:
    run = tmp_path / "train" / "fresh"
    (run / "state").mkdir(parents=True)
    (run / "state" / "000001-step-0.pt").touch()
    words = arguments(corpus, tmp_path, "fresh", "resume=auto", "init_from=other.safetensors")
    line = fails(*words)
    assert line.startswith(f"init_from=other.safetensors: {run} has no start.safetensors")
    assert line.endswith("expected init_from=null to go on with it")


def test_overwriting_without_it_leaves_no_start_behind(
    corpus: Path, model_file: Path, tmp_path: Path, tiny: tuple[str, ...]
) -> None:
    run = arguments(corpus, tmp_path, "again", *tiny, "trainer.max_epochs=1")
    assert main([*run, f"init_from={model_file}"]) == 0
    start = tmp_path / "train" / "again" / "start.safetensors"
    assert load_model(start)[1]["init_from"] == "best.safetensors"
    assert main([*run, "overwrite=true"]) == 0
    assert not start.exists()


def test_no_model_file(corpus: Path, tmp_path: Path, fails: Fails) -> None:
    run = arguments(corpus, tmp_path, "x", f"init_from={tmp_path}/gone.safetensors")
    assert fails(*run) == f"{tmp_path}/gone.safetensors: No such file or directory"
    line = fails(*arguments(corpus, tmp_path, "y", f"init_from={corpus}"))
    assert line.startswith(f"{corpus}: not a model file or damaged")
    assert not list((tmp_path / "train").rglob("*.safetensors"))
