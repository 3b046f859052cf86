"""The built wheel, installed away from the checkout: it must bring its settings along."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from omegaconf import OmegaConf

CHECKOUT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Installed:
    """A virtual environment with the wheel in it, and a folder to run its programs in."""

    bin: Path
    elsewhere: Path

    def run(self, program: str, *arguments: str) -> str:
        """Standard output of one of the environment's programs, which has to succeed."""
        return run([str(self.bin / program), *arguments], self.elsewhere)


def run(command: list[str], folder: Path) -> str:
    """Standard output of a command, which has to succeed, with no path back to the checkout."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel file, built from the checkout."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    run([*build, str(CHECKOUT)], folder)
    (file,) = folder.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel in a fresh environment that borrows its dependencies from the running one."""
    folder = tmp_path_factory.mktemp("installed")
    venv = folder / "venv"
    run([sys.executable, "-m", "venv", "--without-pip", str(venv)], folder)
    python = venv / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python)]
    run([*pip, "install", "--quiet", "--no-index", "--no-deps", str(wheel)], folder)
    # Folders named in a .pth file go on the path without their own .pth files being read, so a
    # checkout that is installed there in editable form stays out of sight.
    purelib = run(
        [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], folder
    )
    borrowed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (Path(purelib.strip()) / "borrowed.pth").write_text("\n".join(sorted(borrowed)) + "\n")
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    return Installed(bin=venv / "bin", elsewhere=elsewhere)


def files_below(folder: Path) -> set[str]:
    """The files of a folder of the checkout, as paths from the folder's parent."""
    files = [
        file for file in folder.rglob("*") if file.is_file() and "__pycache__" not in file.parts
    ]
    return {file.relative_to(folder.parent).as_posix() for file in files}


def test_wheel_holds_exactly_the_code_the_settings_and_the_models(wheel: Path) -> None:
    expected = files_below(CHECKOUT / "asr")
    for folder in ("conf", "models"):
        expected |= {f"asr/{name}" for name in files_below(CHECKOUT / folder)}
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == expected
    assert {"asr/py.typed", "asr/conf/train.yaml", "asr/models/README.md"} <= names


def test_asr_comes_from_the_wheel(installed: Installed) -> None:
    file = installed.run("python", "-c", "import asr; print(asr.__file__)").strip()
    assert Path(file).is_relative_to(installed.bin.parent)


def test_the_pages_templates_are_in_the_wheel(installed: Installed) -> None:
    program = (
        "from asr.metrics.error_rate import score_utterance\n"
        "from asr.report.evaluation import EvaluatedUtterance, Evaluation, ModelDescription\n"
        "from asr.report.html import render_evaluation\n"
        "utterance = EvaluatedUtterance('u', None, 1.0, 'u.wav', score_utterance('u', 'a', 'b'))\n"
        "evaluation = Evaluation('t', ModelDescription('m', 1), 'f', None, (utterance,))\n"
        "print(render_evaluation(evaluation))"
    )
    page = installed.run("python", "-c", program)
    assert page.startswith("<!doctype html>")
    assert "PagedList" in page
    assert "--paper" in page


def test_help_names_the_commands(installed: Installed) -> None:
    text = installed.run("asr", "--help")
    assert all(command in text for command in ("prepare", "train", "evaluate", "transcribe"))


def test_models_are_looked_for_in_the_installed_package(installed: Installed) -> None:
    code = "from asr.starter_model import models_dir; print(models_dir())"
    folder = Path(installed.run("python", "-c", code).strip())
    assert folder.is_relative_to(installed.bin.parent)
    assert (folder / "README.md").is_file()


def test_train_composes_its_settings_outside_the_checkout(installed: Installed) -> None:
    config = OmegaConf.create(installed.run("asr", "train", "--cfg", "job"))
    assert config.model._target_.startswith("asr.model.")
    assert list(installed.elsewhere.iterdir()) == [], "showing a config must leave nothing behind"
