"""`asr shar`: shards out of a manifest, and what to type next."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from asr.cli.main import main
from asr.data.shar import SharFolder, read_index
from asr.text import TextNormalizer
from tests.cli.conftest import write_corpus


def test_a_manifest_becomes_shards(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "shards"
    assert main(["shar", str(corpus), str(folder), "--shard-size", "5"]) == 0
    index = read_index(SharFolder(folder))
    assert index is not None
    assert [shard.utterances for shard in index.shards] == [4, 4, 4]
    assert set(index.characters) == set(" abc")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("recording.000000.tar: 4 utterances")
    assert lines[-2].startswith(f"{folder}: 3 shards, 12 utterances, 0.00 h, ")
    assert lines[-1] == f"next: asr train data=shar data.train={folder} data.dev=DEV_MANIFEST"


def test_the_index_has_the_rules_of_the_preparation(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path)
    rules = asdict(TextNormalizer(lowercase=False))
    record = {"splits": {"train": {"manifest": corpus.name}}, "text": rules}
    (corpus.parent / "corpus.json").write_text(json.dumps(record))
    assert main(["shar", str(corpus), str(tmp_path / "shards")]) == 0
    index = read_index(SharFolder(tmp_path / "shards"))
    assert index is not None
    assert index.text["lowercase"] is False


def test_hours_format_rate_and_seed_are_heard(corpus: Path, tmp_path: Path) -> None:
    common = ["shar", str(corpus), "--shard-duration-h", "0.0005", "--sample-rate", "16000"]
    for name, extra in (("a", []), ("b", ["--shuffle-seed", "3"]), ("c", ["--format", "wav"])):
        assert main([*common, str(tmp_path / name), *extra]) == 0
    indices = {name: read_index(SharFolder(tmp_path / name)) for name in "abc"}
    assert {len(index.shards) for index in indices.values() if index} == {3}  # of 5.3 s, by 1.8 s
    hashes = {index.shards[0].recording_sha256 for index in indices.values() if index}
    assert len(hashes) == 3
    tar = (tmp_path / "c" / "recording.000000.tar").read_bytes()
    assert (16000).to_bytes(4, "little") in tar[512:560]  # in the header of the first wav


def test_a_second_call_writes_nothing(corpus: Path, tmp_path: Path) -> None:
    command = ["shar", str(corpus), str(tmp_path / "s")]
    assert main(command) == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "s").iterdir()}
    assert main(command) == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "s").iterdir()} == before


def test_mistakes_are_one_line(corpus: Path, tmp_path: Path, fails: Callable[..., str]) -> None:
    folder = str(tmp_path / "s")
    assert "--num-workers 0, expected at least 1" in fails(
        "shar", str(corpus), folder, "--num-workers", "0"
    )
    assert "shards of 0 utterances" in fails("shar", str(corpus), folder, "--shard-size", "0")
    assert "expected more than 0 s" in fails("shar", str(corpus), folder, "--shard-duration-h", "0")
    assert "No such file" in fails("shar", str(tmp_path / "none.jsonl"), folder)
    assert not Path(folder).exists()
    assert main(["shar", str(corpus), folder]) == 0
    assert "of another manifest or of other settings" in fails(
        "shar", str(corpus), folder, "--format", "wav"
    )


def test_a_training_from_shards(corpus: Path, tmp_path: Path, tiny: tuple[str, ...]) -> None:
    folder = tmp_path / "shards"
    assert main(["shar", str(corpus), str(folder), "--shard-size", "3"]) == 0
    status = main(
        ["train", *tiny, "data=shar", f"data.train={folder}", f"data.dev={corpus}",
         f"paths.run_dir={tmp_path}", "name=s", "trainer.max_epochs=1"]
    )  # fmt: skip
    assert status == 0
    assert (tmp_path / "train" / "s" / "best.safetensors").is_file()
