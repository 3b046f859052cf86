"""Check 32: a setting of another type or size is one line that names it, or does what it says."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from asr.cli.conf import conf_dir
from asr.cli.main import main
from tests.cli.conftest import TINY, write_corpus

VALUES = ("abc", "2.5", "-1", "null", "[1]", "{a: 1}", "1e30")
LIMIT_S = 60  # for one command
OWN_LINE = "asr: error: "


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("tones"))


@pytest.fixture(scope="module")
def model(tones: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    given = [*TINY, f"data.train={tones}", f"data.dev={tones}", f"paths.run_dir={runs}"]
    assert main(["train", *given, "name=m", "trainer.max_epochs=1"]) == 0
    return runs / "train" / "m" / "best.safetensors"


def keys(settings: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Every setting and every section by its dotted name."""
    for name, value in settings.items():
        if name != "_target_":
            yield f"{prefix}{name}"
        if isinstance(value, dict):
            yield from keys(value, f"{prefix}{name}.")


def too_slow(number: int, frame: FrameType | None) -> None:
    raise TimeoutError(f"no answer in {LIMIT_S} s")


def survivors(
    command: str, given: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> tuple[int, int]:
    """How many wrong values were answered well, and how many there were."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        settings = OmegaConf.to_container(compose(command, given), resolve=False)
    assert isinstance(settings, dict)
    good = tried = 0
    before = signal.signal(signal.SIGALRM, too_slow)
    try:
        for key in keys(settings):
            for value in VALUES:
                tried += 1
                capsys.readouterr()
                signal.alarm(LIMIT_S)
                status = main([command, *given, f"{key}={value}"])
                signal.alarm(0)
                lines = capsys.readouterr().err.splitlines()
                errors = [line for line in lines if line.startswith(OWN_LINE)]
                is_one_line = status == 2 and len(errors) == 1 and len(errors[0]) < 1000
                good += status == 0 or is_one_line
                if not (status == 0 or is_one_line):
                    with capsys.disabled():
                        print(f"\n{command} {key}={value}: {status}", *lines[-3:], sep="\n    ")
                for name in ("runs", "data"):
                    shutil.rmtree(folder / name, ignore_errors=True)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    return good, tried


@pytest.mark.slow
@pytest.mark.parametrize("augment", ["light", "noisy"])
def test_settings_of_a_training(
    augment: str,
    tones: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    survived: Callable[[str, int, int], None],
) -> None:
    monkeypatch.chdir(tmp_path)
    given = [
        *(word for word in TINY if not word.startswith("augment")), f"augment={augment}",
        f"data.train={tones}", f"data.dev={tones}", "debug=one_batch",
        "trainer.scan_memory=false",
    ]  # fmt: skip
    survived(f"32 settings, augment={augment}", *survivors("train", given, tmp_path, capsys))


@pytest.mark.slow
@pytest.mark.parametrize("decoder", ["greedy", "beam"])
def test_settings_of_an_evaluation(
    decoder: str,
    tones: Path,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    survived: Callable[[str, int, int], None],
) -> None:
    monkeypatch.chdir(tmp_path)
    given = [
        f"model_file={model}", f"manifest={tones}", "device=cpu", f"decoder={decoder}",
        "report.listen=0",
    ]  # fmt: skip
    survived(f"32 settings, decoder={decoder}", *survivors("evaluate", given, tmp_path, capsys))


@pytest.mark.slow
@pytest.mark.parametrize("corpus_name", ["manifest", "fsdd", "digits_synthetic"])
def test_settings_of_a_preparation(
    corpus_name: str,
    tones: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    survived: Callable[[str, int, int], None],
) -> None:
    monkeypatch.chdir(tmp_path)
    given = [f"corpus={corpus_name}", "corpus.name=x"]
    given += [f"corpus.train={tones}"] if corpus_name == "manifest" else ["corpus.source=nowhere"]
    survived(f"32 settings, corpus={corpus_name}", *survivors("prepare", given, tmp_path, capsys))
