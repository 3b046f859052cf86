"""`asr prepare`: what it writes, prints and refuses."""

from __future__ import annotations

import inspect
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import get_method
from omegaconf import OmegaConf

from asr.cli.main import main
from asr.cli.prepare import next_command
from asr.data.manifest import read_manifest
from asr.data.prepare import PreparedCorpus, SplitSummary

RATE = 8_000  # [Hz]


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with manifests for train and test, in a working directory of its own."""
    folder = tmp_path / "source"
    folder.mkdir()
    for name in ("train", "test"):
        noise = np.random.default_rng(0).uniform(-0.1, 0.1, RATE)
        soundfile.write(folder / f"{name}.wav", noise, RATE)
        record = {"audio_filepath": f"{name}.wav", "text": "One, two", "speaker": "[red]a"}
        (folder / f"{name}.jsonl").write_text(json.dumps(record) + "\n")
    monkeypatch.chdir(tmp_path)
    return folder


def prepare(*overrides: str) -> int:
    fixed = ["corpus=manifest", "corpus.name=mine", "corpus.sample_rate=8000"]
    return main(["prepare", *fixed, *overrides])


def test_a_corpus_is_prepared_and_told(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepare(f"corpus.source={source}") == 0
    folder = tmp_path / "data" / "mine"
    assert [u.text for u in read_manifest(folder / "train.jsonl")] == ["one two"]
    out, err = capsys.readouterr()
    assert err == ""
    for expected in (
        "train.jsonl: 1 utterances, written",
        f"mine: {folder}\n",
        "alphabet: 6 characters, ' enotw'",
        "note: train and test share 1 speakers ([red]a): error rates are those of known voices.",
        "next: asr train data.train=data/mine/train.jsonl data.dev=DEV_MANIFEST",
    ):
        assert expected in out
    assert re.search(r"train .* 1 .* 0\.0 min .* 1 .* 7\.0 to 7\.0", out)
    assert prepare(f"corpus.source={source}") == 0
    assert "audio: 2 wav files at 8000 Hz already done, 0 written" in capsys.readouterr().out


def test_text_rules_and_lists_come_from_the_command_line(source: Path, tmp_path: Path) -> None:
    overrides = [f"corpus.train=[{source}/train.jsonl]", f"corpus.dev={source}/test.jsonl"]
    assert prepare("corpus.text.lowercase=false", "corpus.audio_format=keep", *overrides) == 0
    assert [u.text for u in read_manifest(tmp_path / "data/mine/dev.jsonl")] == ["One two"]
    assert [u.audio_filepath for u in read_manifest(tmp_path / "data/mine/train.jsonl")] == [
        source / "train.wav"
    ]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["corpus=manifest"], "corpus.name is missing, expected corpus.name=VALUE"),
        (["corpus.sorce=x"], "unknown setting corpus.sorce: did you mean corpus.source?"),
        (["+corpus.foo=1"], "unknown setting corpus.foo: expected one of data_dir, name,"),
        (["corpus.audio_format=mp3"], "audio_format is 'mp3', expected one of keep, wav, flac"),
        (["corpus=fsdd", "corpus.held_out_speaker=bob"], "held_out_speaker is 'bob', expected"),
        (["corpus=fsdd", "corpus.source=nowhere"], "nowhere: not a folder"),
        (["corpus=manifest", "corpus.name=x"], "neither source nor train is given"),
        (
            ["corpus=manifest", "corpus.name=x", "corpus.train=nowhere.jsonl"],
            "nowhere.jsonl: No such file or directory",
        ),
        (
            ["corpus=manifest", "corpus.name=x", "corpus.text.unicode_form=x"],
            "corpus.text.unicode_form is 'x', expected one of NFC",
        ),
    ],
)
def test_mistakes_are_one_line_and_exit_2(
    overrides: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["prepare", *overrides]) == 2
    err = capsys.readouterr().err
    assert err.startswith("asr: error: ")
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "data").exists() or not list((tmp_path / "data").glob("*/*.jsonl"))


def test_bad_lines_are_listed_and_stop(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = source / "train.jsonl"
    train.write_text(train.read_text() + '{"audio_filepath": "\\u001b[2J.wav", "text": "x"}\n{\n')
    (source / "test.jsonl").write_text(
        '{"audio_filepath": "gone.wav", "text": "x", "speaker": "s"}\n'
    )
    assert prepare(f"corpus.source={source}") == 2
    out, err = capsys.readouterr()
    assert f"bad: {train}:2: audio_filepath is '\\x1b[2J.wav'" in out
    assert f"bad: {train}:3: bad JSON" in out
    assert f"bad: {source}/test.jsonl:1: {source}/gone.wav: no such file" in out
    assert err.startswith(f"asr: error: {train}:2: ")
    assert err.count("\n") == 1
    assert "\x1b" not in out + err


def corpus(folder: Path, *splits: str) -> PreparedCorpus:
    summaries = [SplitSummary(s, folder / f"{s}.jsonl", 1, 1.0, 1, (1.0, 1.0)) for s in splits]
    return PreparedCorpus(folder.name, folder, tuple(summaries), "a", ())


def test_the_next_command_can_be_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    inside = next_command(corpus(tmp_path / "data" / "mine", "train", "dev"), "data")
    assert inside == "asr train data.train=data/mine/train.jsonl data.dev=data/mine/dev.jsonl"
    assert next_command(corpus(tmp_path / "data" / "fsdd", "train"), "data") == (
        "asr train experiment=fsdd"
    )
    assert next_command(corpus(Path("/x/fsdd"), "train"), "/x") == (
        "asr train experiment=fsdd paths.data_dir=/x"
    )
    spaced = next_command(corpus(Path("/my data/mine"), "train", "dev"), "/my data")
    overrides = shlex.split(spaced)[2:]
    assert overrides == [
        "data.train='/my data/mine/train.jsonl'",
        "data.dev='/my data/mine/dev.jsonl'",
    ]
    parsed = OverridesParser.create().parse_overrides(overrides)
    assert [override.value() for override in parsed] == [
        "/my data/mine/train.jsonl",
        "/my data/mine/dev.jsonl",
    ]


def test_every_corpus_config_names_all_arguments_of_its_function() -> None:
    conf = Path(__file__).parents[2] / "conf"
    for path in sorted((conf / "corpus").glob("[!_]*.yaml")):
        with initialize_config_dir(str(conf), version_base="1.3"):
            composed = compose("prepare", overrides=[f"corpus={path.stem}"]).corpus
        config = OmegaConf.to_container(composed, resolve=False)
        assert isinstance(config, dict)
        function = get_method(config.pop("_target_"))
        assert config.keys() | {"say", "progress"} == inspect.signature(function).parameters.keys()
        defaults = {
            name: parameter.default
            for name, parameter in inspect.signature(function).parameters.items()
            if parameter.default is not parameter.empty and name not in ("say", "progress", "text")
        }
        for name, default in defaults.items():
            value = tuple(config[name]) if isinstance(config[name], list) else config[name]
            if isinstance(value, dict) and not any(value.values()):
                value = None  # names that are there to be set
            assert value == default, f"{path.name}: {name}"
