"""Models that come with asr: found by name, and those in models/ are as its README says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from asr.model_file import file_digest, load_model
from asr.starter_model import (
    CARD,
    DECODER,
    MODEL,
    NAME,
    decoder_file,
    model_names,
    model_path,
    models_dir,
    read_card,
    weights_path,
)

MAX_BYTES = 25_000_000  # of all models together
HEADINGS = ("Data and licences", "Error rates", "What it cannot do")
INTERVAL = re.compile(r"\d %[^\n]*\[\d+(\.\d+)?, \d+(\.\d+)?\]")  # WER 12.3 % [10.9, 13.8]
CARD_TEXT = """\
# NAME

Letters as tones.

## Data and licences

Twelve tones, made by a program.

## Error rates

WER 0.0 % [0.0, 1.0] on what it was trained on.

## What it cannot do

Anything else.
"""


def faults(root: Path) -> list[str]:
    """What is wrong with a folder of models, a line each."""
    folders = sorted(path for path in root.iterdir() if path.is_dir())
    size = sum(file.stat().st_size for file in root.rglob("*") if file.is_file())
    found = [f"{size} bytes, expected at most {MAX_BYTES}"] if size > MAX_BYTES else []
    for folder in folders:
        names = {path.name for path in folder.iterdir()}
        found += [f"{folder.name}: no {name}" for name in (MODEL, CARD) if name not in names]
        if not NAME.fullmatch(folder.name):
            found.append(f"{folder.name}: no name for a model")
        if CARD not in names:
            continue
        try:
            text = read_card(folder).text
        except ValueError as error:
            found.append(str(error))
            continue
        sections = dict(re.findall(r"^## (.+)\n((?:(?!## ).*\n?)*)", text, re.M))
        found += [
            f"{folder.name}: nothing under {heading!r}"
            for heading in HEADINGS
            if not sections.get(heading, "").strip()
        ]
        if not INTERVAL.search(sections.get("Error rates", "")):
            found.append(f"{folder.name}: no error rate with its interval")
    return found


def make(root: Path, name: str, card: str | None = None) -> Path:
    """Make the folder of a model that cannot be loaded; returns it."""
    folder = root / name
    folder.mkdir(parents=True)
    (folder / MODEL).write_bytes(b"weights")
    (folder / CARD).write_text((CARD_TEXT if card is None else card).replace("NAME", name))
    return folder


def test_those_that_ship_are_as_they_should_be() -> None:
    assert (models_dir() / "README.md").is_file()
    assert faults(models_dir()) == []
    for name in model_names():
        load_model(model_path(name))


def test_the_check_finds_what_is_wrong(tmp_path: Path) -> None:
    make(tmp_path, "good")
    assert faults(tmp_path) == []
    make(tmp_path, "a", CARD_TEXT.replace("## Data and licences", "## Data"))
    make(tmp_path, "b", CARD_TEXT.replace("Anything else.", ""))
    make(tmp_path, "c", CARD_TEXT.replace(" [0.0, 1.0]", ""))
    make(tmp_path, "d", "# d\n\n## Data and licences\n")
    make(tmp_path, "e.f")
    (make(tmp_path, "g") / CARD).unlink()
    (make(tmp_path, "h") / MODEL).unlink()
    about = f"{tmp_path / 'd' / CARD}: expected '# d', and below what it is for, in a line"
    assert faults(tmp_path) == [
        "a: nothing under 'Data and licences'",
        "b: nothing under 'What it cannot do'",
        "c: no error rate with its interval",
        about,
        "e.f: no name for a model",
        f"g: no {CARD}",
        f"h: no {MODEL}",
    ]
    (tmp_path / "good" / "lm.ngram").write_bytes(bytes(MAX_BYTES))
    assert faults(tmp_path)[0].endswith(f"bytes, expected at most {MAX_BYTES}")


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of two models in place of that of the checkout, and a working folder beside it."""
    root = tmp_path / "models"
    make(root, "read-english")
    make(root, "digits")
    (root / "README.md").touch()
    (root / "empty").mkdir()
    monkeypatch.setattr("asr.starter_model.models_dir", lambda: root)
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    return root


def test_what_a_name_leads_to(models: Path) -> None:
    assert model_names() == ["digits", "read-english"]
    assert model_path("read-english") == models / "read-english" / MODEL
    for path in ("a.safetensors", "sub/read-english", "./digits", str(models / "x.safetensors")):
        assert model_path(path) == Path(path)
    with pytest.raises(FileNotFoundError, match="expected one of digits, read-english") as error:
        model_path("empty")
    assert error.value.filename == "empty"
    # A folder of a model, or of a run, is taken by its path.
    assert model_path(models / "digits") == models / "digits" / MODEL
    run = Path("run")
    run.mkdir()
    (run / "best.safetensors").touch()
    assert model_path("run") == run / "best.safetensors"


def test_what_exists_goes_before_a_name(models: Path) -> None:
    Path("digits").touch()
    assert model_path("digits") == Path("digits")


def test_without_models_a_name_is_told_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asr.starter_model.models_dir", lambda: tmp_path / "none")
    assert model_names() == []
    with pytest.raises(FileNotFoundError, match="none comes with this asr"):
        model_path("digits")


def test_a_folder_may_take_the_model_of_another(models: Path) -> None:
    shared = models / "digits" / MODEL
    shared.write_text(f"../read-english/{MODEL}\n")
    assert weights_path(shared).resolve() == models / "read-english" / MODEL
    assert file_digest(shared) == file_digest(models / "read-english" / MODEL)
    with pytest.raises(ValueError, match=rf"read-english/{MODEL}: not a model file or damaged"):
        load_model(shared)
    # Elsewhere, in another form, or under another name it is a file like any other.
    for line in ("../../a/model.safetensors", "../a/b.safetensors", "/etc/passwd", "a\n../b/c"):
        shared.write_text(line)
        assert weights_path(shared) == shared
        with pytest.raises(ValueError, match=rf"digits/{MODEL}: not a model file or damaged"):
            load_model(shared)
    other = shared.with_name("best.safetensors")
    other.write_text(f"../read-english/{MODEL}\n")
    assert weights_path(other) == other
    # Nor is it followed any further.
    shared.write_text(f"../read-english/{MODEL}")
    (models / "read-english" / MODEL).write_text(f"../digits/{MODEL}")
    with pytest.raises(ValueError, match=rf"read-english/{MODEL}: not a model file or damaged"):
        load_model(shared)
    (models / "read-english" / MODEL).unlink()
    with pytest.raises(FileNotFoundError) as error:
        load_model(shared)
    assert str(error.value.filename).endswith(f"../read-english/{MODEL}")


def test_only_a_models_folder_has_a_decoder_of_its_own(models: Path) -> None:
    folder = models / "digits"
    assert decoder_file(folder / MODEL) is None
    (folder / DECODER).touch()
    assert decoder_file(folder / MODEL) == folder / DECODER
    assert decoder_file(folder / "best.safetensors") is None
