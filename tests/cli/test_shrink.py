"""asr shrink: a smaller model file that every command takes, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from asr.cli.main import main
from asr.model_file import file_digest, load_model

Fails = Callable[..., str]


@pytest.mark.parametrize(("to", "share"), [([], 0.45), (["--to", "float16"], 0.65)])
def test_the_small_model_writes_the_same(
    to: list[str],
    share: float,
    model_file: Path,
    corpus: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    small = tmp_path / "small.safetensors"
    assert main(["shrink", str(model_file), "--output", str(small), *to]) == 0
    # Most of this model are its description and header.
    assert small.stat().st_size < share * model_file.stat().st_size
    told = capsys.readouterr().out
    assert told.startswith(f"{small}: 0.0 MB in {to[1] if to else 'int8'}, ")
    _, training = load_model(small)
    assert training["dev_wer"] == 0
    assert training["shrunk_from"] == f"best.safetensors (sha256 {file_digest(model_file)[:12]})"
    assert main(["transcribe", "--model", str(small), str(corpus.parent / "03.wav")]) == 0
    assert capsys.readouterr().out == f"{corpus.parent / '03.wav'}\tabc\n"


@pytest.mark.usefixtures("no_pictures")
def test_every_command_takes_it(model_file: Path, corpus: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tones"  # a model's folder
    folder.mkdir()
    small = folder / "model.safetensors"
    assert main(["shrink", str(model_file.parent), "--output", str(small)]) == 0
    runs, clip = f"paths.run_dir={tmp_path / 'runs'}", str(corpus.parent / "02.wav")
    words = [f"manifest={corpus}", "device=cpu", "report.listen=0", "name=e", runs]
    assert main(["evaluate", f"model_file={folder}", *words]) == 0
    found = json.loads((tmp_path / "runs/evaluate/e/evaluation.json").read_text())
    assert found["wer"] == 0
    assert found["model"]["training"]["shrunk_from"].startswith("best.safetensors")
    assert main(["align", "--model", str(folder), clip, "c a"]) == 0
    assert main(["doctor", "--model", str(folder), str(corpus)]) == 0
    data = (f"data.train={corpus}", f"data.dev={corpus}", "augment=none", "optim.lr=0")
    steps = ("trainer.max_epochs=1", "trainer.accelerator=cpu", "optim.weight_decay=0")
    assert main(["train", f"init_from={folder}", *data, *steps, "name=t", runs]) == 0
    trained = load_model(tmp_path / "runs/train/t/best.safetensors")[0].state_dict()
    for name, weight in load_model(small)[0].state_dict().items():
        assert torch.equal(trained[name], weight)  # and the run's own file is float32


def test_what_is_refused(model_file: Path, tmp_path: Path, fails: Fails) -> None:
    small = tmp_path / "small.safetensors"
    line = fails("shrink", str(tmp_path / "gone.safetensors"), "--output", str(small))
    assert line == f"{tmp_path}/gone.safetensors: No such file or directory"
    assert not small.exists()
    assert main(["shrink", str(model_file), "--output", str(small)]) == 0
    line = fails("shrink", str(model_file), "--output", str(small))
    assert line == f"{small} exists, expected a new file or --overwrite"
    before = model_file.read_bytes()
    line = fails("shrink", str(model_file), "--output", str(model_file), "--overwrite")
    assert model_file.read_bytes() == before
    line = fails("shrink", str(small), "--output", str(tmp_path / "smaller.safetensors"))
    assert line == (
        f"{small} has fewer than 4 bytes a weight already, expected the model that it was made of"
    )
    assert main(["shrink", str(model_file), "--output", str(small), "--overwrite"]) == 0
