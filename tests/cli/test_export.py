"""asr export, and what other commands make of an exported model: the same, without torch."""

from __future__ import annotations

import io
import json
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from asr.audio import load_audio
from asr.cli.main import main
from asr.exporter import TOLERANCES

Fails = Callable[..., str]


@pytest.fixture(scope="module")
def onnx_file(model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "tones.onnx"
    assert main(["export", str(model_file), "--output", str(path)]) == 0
    return path


@pytest.fixture
def clip(corpus: Path) -> str:
    return str(corpus.parent / "02.wav")


def test_what_is_told(
    model_file: Path, clip: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = tmp_path / "a.onnx"
    made = ["export", str(model_file), "--output", str(small)]
    words = [*made, "--precision", "int8", "--audio", clip]
    assert main(words) == 0
    told, checked = capsys.readouterr().out.splitlines()
    assert re.fullmatch(rf"{small}: 0\.\d MB in int8, \d+% of 0\.\d MB", told)
    assert checked.startswith(f"checked on 0.5 s, {clip}: log-probabilities differ by at most ")
    assert checked.endswith(" frames have another label")
    assert main(["transcribe", "--model", str(small), clip]) == 0
    assert capsys.readouterr().out == f"{clip}\tc a\n"


@pytest.mark.parametrize(
    "options",
    [
        ["--format", "json"],
        ["--format", "srt"],
        ["--format", "vtt"],
        ["--decoder", "beam", "--format", "json", "--n-best", "3"],
        ["--hotword", "cb:9"],
        ["--lexicon", "WORDS"],
        ["--phrases", "WORDS"],
    ],
    ids=" ".join,
)
def test_every_option_has_its_effect(
    options: list[str],
    model_file: Path,
    onnx_file: Path,
    clip: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = tmp_path / "words.txt"
    words.write_text("c\nab\na\n" if "--lexicon" in options else "c a\na b\n")
    options = [str(words) if each == "WORDS" else each for each in options]
    found = []
    for model in (model_file, onnx_file):
        assert main(["transcribe", "--model", str(model), clip, *options]) == 0
        # Scores and confidences are equal but for their last digits.
        found.append(re.sub(r"(\d\.\d\d)\d+", r"\1", capsys.readouterr().out))
    assert found[0] == found[1]


def test_no_torch_is_imported_and_the_text_is_there_soon(onnx_file: Path, clip: str) -> None:
    code = (
        "import sys; from asr.cli.main import main\n"
        f"words = ['transcribe', '--model', {str(onnx_file)!r}, {clip!r}, *sys.argv[1:]]\n"
        "assert main(words) == 0\n"
        "print(*{name.split('.')[0] for name in sys.modules}, file=sys.stderr)"
    )

    def imported(*options: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", code, *options], check=True, capture_output=True, text=True
        )
        assert done.stdout == f"{clip}\tc a\n"
        return done.stderr.splitlines()[-1].split()

    found = imported()  # what is compiled is kept
    for package in ("torch", "onnx", "librosa", "scipy", "numba", "av", "rich", "hydra"):
        assert package not in found

    def used_s() -> float:
        """Of the processor, which other programs lengthen less than the clock's."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        imported()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert any(used_s() < 0.7 for _ in range(5))
    assert "torch" not in imported("--decoder", "beam", "--hotword", "cab")


def test_live_and_a_decoder_file_beside_it(
    onnx_file: Path,
    clip: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "tones"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(onnx_file.read_bytes())
    (folder / "decoder.yaml").write_text("_target_: asr.decoder.BeamSearch\nlexicon: words.txt\n")
    (folder / "words.txt").write_text("c\nab\n")
    samples = load_audio(clip, 8000)
    pipe = np.round(32767 * np.pad(samples, (0, 8000))).astype("<i2").tobytes()
    for model, text in ((onnx_file, "c a\n"), (folder, "c ab\n")):
        monkeypatch.setattr(
            "sys.stdin", SimpleNamespace(buffer=io.BufferedReader(io.BytesIO(pipe)))
        )
        assert main(["transcribe", "--live", "--model", str(model), "-"]) == 0
        assert capsys.readouterr().out == text


@pytest.mark.usefixtures("no_pictures")
def test_other_commands_take_it(
    onnx_file: Path, corpus: Path, clip: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = f"paths.run_dir={tmp_path / 'runs'}"
    words = [f"manifest={corpus}", "report.listen=1", "name=e", runs]
    assert main(["evaluate", f"model_file={onnx_file}", *words]) == 0
    found = json.loads((tmp_path / "runs/evaluate/e/evaluation.json").read_text())
    assert found["wer"] == 0
    assert found["settings"]["device"] == "onnxruntime on cpu, float32"
    assert found["model"]["training"]["exported_from"].startswith("best.safetensors (sha256 ")
    capsys.readouterr()
    assert main(["align", "--model", str(onnx_file), clip, "c a"]) == 0
    assert main(["doctor", "--model", str(onnx_file), str(corpus)]) == 0


def test_what_is_refused(
    model_file: Path,
    onnx_file: Path,
    clip: str,
    tmp_path: Path,
    fails: Fails,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    new = tmp_path / "b.onnx"
    assert fails("export", str(model_file), "--output", str(tmp_path / "b")).endswith(
        "b, expected a name that ends in .onnx"
    )
    assert fails("export", str(model_file), "--output", str(onnx_file)) == (
        f"{onnx_file} exists, expected a new file or --overwrite"
    )
    line = fails("export", str(model_file), "--output", str(tmp_path / "gone" / "b.onnx"))
    assert line == f"{tmp_path}/gone: no folder, so {tmp_path}/gone/b.onnx cannot be"
    assert fails("export", str(tmp_path / "gone.safetensors"), "--output", str(new)) == (
        f"{tmp_path}/gone.safetensors: No such file or directory"
    )
    other = "an exported model, expected the model that it was made of"
    assert fails("export", str(onnx_file), "--output", str(new)) == f"{onnx_file}: {other}"
    line = fails(
        "export", str(model_file), "--output", str(new), "--audio", str(tmp_path / "gone.wav")
    )
    assert line == f"{tmp_path}/gone.wav: No such file or directory"
    monkeypatch.setitem(TOLERANCES, "float32", 0.0)
    line = fails("export", str(model_file), "--output", str(new), "--audio", clip)
    assert line.startswith(f"{new} is not written: log-probabilities that differ by ")
    assert line.endswith("expected at most 0 in float32")
    assert not new.exists()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    line = fails("export", str(model_file), "--output", str(new))
    assert line == "onnx is not installed, which asr export needs: pip install 'lstm-asr[onnx]'"


def test_a_damaged_file_is_told_in_a_line(
    onnx_file: Path, clip: str, tmp_path: Path, fails: Fails
) -> None:
    damaged = tmp_path / "c.onnx"
    damaged.write_bytes(onnx_file.read_bytes()[:-5])
    line = fails("transcribe", "--model", str(damaged), clip)
    assert line.startswith(f"{damaged}: not a model of asr export, or damaged")


def test_the_program_of_the_page(
    onnx_file: Path, clip: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = Path(__file__).parents[2] / "docs/export.md"
    (program,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.chdir(onnx_file.parent)
    names: dict[str, Any] = {}
    exec(program.replace("mine.onnx", onnx_file.name), names)
    assert names["text_of"](load_audio(clip, 8000)) == "c a"
