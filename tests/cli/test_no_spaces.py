"""A language without spaces between words, by every command: the character is the unit."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from asr.cli.main import main
from asr.model_file import load_model, save_model
from asr.recognizer import ModelSpec, Part, Recognizer
from tests.cli.conftest import TEXTS, TINY

CHARACTERS = str.maketrans("abc", "今天好")


@pytest.fixture(scope="module")
def chinese(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifest of the tone corpus, with a character for each letter; the last has no space."""
    folder = tmp_path_factory.mktemp("chinese")
    rows = [json.loads(line) for line in corpus.read_text().splitlines()]
    for row in rows:
        row["audio_filepath"] = str(corpus.parent / row["audio_filepath"])
        row["text"] = row["text"].translate(CHARACTERS)
    manifest = folder / "train.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return manifest


@pytest.fixture(scope="module")
def trained(chinese: Path) -> tuple[Path, str]:
    """A run's folder, and its log."""
    runs = chinese.parent
    status = main(
        ["train", *TINY, f"data.train={chinese}", f"data.dev={chinese}", f"paths.run_dir={runs}",
         "name=zh", "trainer.max_epochs=40", "trainer.validate_every=40"]
    )  # fmt: skip
    assert status == 0
    folder = runs / "train" / "zh"
    return folder, (folder / "train.log").read_text()


def test_a_training_tells_the_cer_and_stores_the_unit(trained: tuple[Path, str]) -> None:
    folder, log = trained
    assert "CER" in log
    assert not re.search(r"WER \d", log)
    recognizer, training = load_model(folder / "best.safetensors")
    assert recognizer.text.unit == recognizer.unit == "character"
    assert training["dev_wer"] == training["dev_cer"] < 0.2


def test_a_model_file_that_does_not_say_is_known_by_its_alphabet(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    for alphabet, unit in ((" 今天好", "character"), (" abc", "word")):
        spec = ModelSpec(
            Part("LogMel", {"sample_rate": 8000, "n_mels": 8}),
            Part("BiLstmCtc", {"hidden_size": 4, "num_layers": 1, "channels": 4}), alphabet, {},
        )  # fmt: skip
        save_model(path, Recognizer(spec), {})
        assert load_model(path)[0].unit == unit


def test_trainings_are_compared_by_the_cer(
    trained: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "runs" / "zh"
    shutil.copytree(trained[0], folder)
    path = folder / "validations.csv"
    header, *rows = path.read_text().splitlines()
    place = [header.split(",").index(name) for name in ("wer", "cer")]
    cells = rows[-1].split(",")
    for each in place:
        cells[each] = "0.25"
    path.write_text("\n".join([header, ",".join(cells)]) + "\n")
    assert main(["runs", str(folder.parent)]) == 0
    told = capsys.readouterr().out
    assert "Best dev CER" in told
    assert "25.00" in told
    assert "WER" not in told


def test_words_are_characters_with_their_own_times(
    trained: tuple[Path, str], chinese: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = trained
    clips = [json.loads(line)["audio_filepath"] for line in chinese.read_text().splitlines()]
    place = TEXTS.index("abc")
    capsys.readouterr()
    command = ["transcribe", "--model", str(folder)]
    assert main([*command, "--format", "json", clips[place], clips[2]]) == 0
    plain, spaced = map(json.loads, capsys.readouterr().out.splitlines())
    assert plain["text"] == "今天好"
    assert [word["word"] for word in plain["words"]] == ["今", "天", "好"]
    assert [word.get("is_joined", False) for word in plain["words"]] == [False, True, True]
    for number, word in enumerate(plain["words"]):  # letters last 0.16 s
        assert 0.16 * number - 0.08 < word["start"] < word["end"] < 0.16 * number + 0.24
    assert spaced["text"] == "好 今"
    assert [word.get("is_joined", False) for word in spaced["words"]] == [False, False]
    assert main([*command, "--format", "srt", clips[place]]) == 0
    assert capsys.readouterr().out.splitlines()[2] == "今天好"
    align = ["align", "--model", str(folder), "--format", "ctm", clips[place], "今天好"]
    assert main(align) == 0
    assert [line.split()[4] for line in capsys.readouterr().out.splitlines()] == ["今", "天", "好"]


def test_an_evaluation_is_by_characters_or_as_asked(
    trained: tuple[Path, str], chinese: Path, tmp_path: Path, fails: Callable[..., str],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    folder, _ = trained
    command = ["evaluate", f"model_file={folder}", f"manifest={chinese}", "report.listen=0",
               f"paths.run_dir={tmp_path}"]  # fmt: skip
    for name, unit in (("own", []), ("words", ["unit=word"])):
        assert main([*command, f"name={name}", *unit]) == 0
    told = capsys.readouterr().out
    characters = sum(len(text.replace(" ", "")) for text in TEXTS)
    own = json.loads((tmp_path / "evaluate" / "own" / "evaluation.json").read_text())
    assert own["unit"] == "character"
    assert own["words"] == own["characters"]
    assert own["words"]["reference_length"] == characters
    assert own["reliability"]["num_words"] == sum(len(each["heard"]) for each in own["utterances"])
    assert f"against {characters} characters" in told
    words = json.loads((tmp_path / "evaluate" / "words" / "evaluation.json").read_text())
    assert "unit" not in words
    assert words["words"]["reference_length"] == sum(len(text.split()) for text in TEXTS)
    line = fails(
        "compare", str(tmp_path / "evaluate" / "own"), str(tmp_path / "evaluate" / "words")
    )
    assert "its unit is the word, expected the character" in line
    assert "unit is 'letter'" in fails(*command, "unit=letter")
