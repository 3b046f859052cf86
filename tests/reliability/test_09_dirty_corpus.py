"""Check 9: of 1,000 entries 60 are bad in 20 ways; the rest is learnt, and a rank runs short."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tests.reliability.corpus import RATE, tones, write_corpus
from tests.reliability.training import Training

ENTRIES, KINDS, OF_EACH = 1000, 20, 3
BAD = KINDS * OF_EACH
OUT_OF_MEMORY = 3
Row = dict[str, Any]


def raw(content: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(content) and None


def wav(waveform: np.ndarray) -> Callable[[Path], None]:
    return lambda path: soundfile.write(path, waveform, RATE, subtype="FLOAT")


def cut(path: Path) -> None:
    wav(tones("abcd"))(path)
    path.write_bytes(path.read_bytes()[:60])


# What is wrong with an entry: what stands in its line, and what lies in its audio file.
DIRT: dict[str, tuple[Callable[[Row], Row | str], Callable[[Path], None] | None]] = {
    "no JSON": (lambda row: json.dumps(row)[:-5], None),
    "a list": (lambda row: "[1, 2]", None),
    "no text": (lambda row: {k: v for k, v in row.items() if k != "text"}, None),
    "text is a number": (lambda row: row | {"text": 7}, None),
    "no audio_filepath": (
        lambda row: {k: v for k, v in row.items() if k != "audio_filepath"},
        None,
    ),
    "a URL": (lambda row: row | {"audio_filepath": "https://example.org/a.wav"}, None),
    "a command": (lambda row: row | {"audio_filepath": "cat a.wav |"}, None),
    "duration below 0": (lambda row: row | {"duration": -1.0}, None),
    "duration NaN": (lambda row: json.dumps(row | {"duration": float("nan")}), None),
    "duplicate id": (lambda row: row | {"id": "train0"}, None),
    "empty text": (lambda row: row | {"text": "..."}, None),
    "unknown character": (lambda row: row | {"text": "abz"}, None),
    "too long a text": (lambda row: row | {"text": "abcd" * 20}, None),
    "too short": (lambda row: row | {"duration": 0.01}, None),
    "too long": (lambda row: row | {"duration": 900.0}, None),
    "missing file": (lambda row: row | {"audio_filepath": "gone.wav"}, None),
    "a text file": (lambda row: row, raw(b"this is no audio")),
    "an empty file": (lambda row: row, raw(b"")),
    "a cut file": (lambda row: row, cut),
    "NaN samples": (lambda row: row, wav(np.full(4000, np.nan))),
}


@pytest.fixture(scope="module")
def dirty(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """The manifest, and the kind of each bad entry by its id."""
    assert len(DIRT) == KINDS
    folder = tmp_path_factory.mktemp("dirty")
    manifest = write_corpus(folder, ENTRIES, seed=9)
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    bad: dict[str, str] = {}
    lines = [json.dumps(row) for row in rows]
    positions = np.random.default_rng(9).permutation(np.arange(1, ENTRIES))[:BAD]
    for position, (kind, (spoil, write)) in zip(
        positions, list(DIRT.items()) * OF_EACH, strict=True
    ):
        row = rows[position]
        if write is not None:
            (folder / row["audio_filepath"]).unlink()
            write(folder / row["audio_filepath"])
        spoilt = spoil(row)
        lines[position] = spoilt if isinstance(spoilt, str) else json.dumps(spoilt)
        bad[row["id"]] = kind
    manifest.write_text("\n".join(lines) + "\n")
    return manifest, bad


@pytest.mark.slow
def test_the_good_are_trained_on_and_the_bad_are_listed(
    dirty: tuple[Path, dict[str, str]],
    corpus: Callable[..., Path],
    tmp_path: Path,
    survived: Callable[[str, int, int], None],
) -> None:
    manifest, bad = dirty
    training = Training(
        tmp_path / "run", manifest, corpus(6, "dev"), ranks=2, out_of_memory={"1": [2, 5, 9]},
        settings={"max_epochs": 1, "batch_duration_s": 8.0, "max_left_out": 0.1},
    )  # fmt: skip
    status, output = training.finish()
    assert status == 0, output
    times = Counter(
        name for rank in (0, 1) for row in training.events("learnt", rank) for name in row["ids"]
    )
    good = {f"train{number}" for number in range(ENTRIES)} - set(bad)
    assert set(times) == good
    assert set(times.values()) == {1}
    listed = [
        json.loads(line) for line in (training.folder / "left_out.jsonl").read_text().splitlines()
    ]
    assert len(listed) == BAD
    assert all(row["reason"] for row in listed)
    known = {row["id"] for row in listed} - {None}
    expected = {name for name, kind in bad.items() if kind not in ("no JSON", "a list")}
    assert {name for name in known if name != "train0"} <= set(bad)
    assert len(expected - known) <= 10 * OF_EACH, "lines that could not be read have no id"
    split = [line for line in output.splitlines() if "out of memory, batch split in two" in line]
    assert len(split) == OUT_OF_MEMORY
    survived("dirty corpus", len(times) + len(listed), ENTRIES)


@pytest.mark.slow
def test_beyond_five_percent_it_stops_with_a_summary(
    dirty: tuple[Path, dict[str, str]], corpus: Callable[..., Path], tmp_path: Path
) -> None:
    training = Training(
        tmp_path / "run", dirty[0], corpus(6, "dev"), ranks=2,
        settings={"max_epochs": 1, "batch_duration_s": 8.0},
    )  # fmt: skip
    status, output = training.finish()
    assert status == 1, "torchrun's own"
    (line, *_) = [
        line for line in output.splitlines() if "training utterances cannot be used" in line
    ]
    assert "of 1000 training utterances cannot be used, expected at most 5%" in line
    assert "9 bad lines" in line or "bad lines" in line
    assert not training.events("done")
