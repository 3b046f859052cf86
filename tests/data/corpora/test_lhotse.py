"""Manifests of lhotse, read by their fields: nothing that they name is run or fetched."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from asr.data.corpora.lhotse import Lhotse
from tests.data.corpora.conftest import RATE, Made


def recording(name: str, kind: str = "file", source: str | None = None) -> dict[str, Any]:
    path = f"{name}.wav" if source is None else source
    return {"id": name, "sources": [{"type": kind, "channels": [0], "source": path}],
            "sampling_rate": 8000, "num_samples": 16000, "duration": 2.0}  # fmt: skip


def supervision(
    name: str, of: str, start: float, duration: float, **more: object
) -> dict[str, Any]:
    return {"id": name, "recording_id": of, "start": start, "duration": duration, "channel": 0,
            "text": "Yes", "speaker": "ada", **more}  # fmt: skip


def cut(
    of: dict[str, Any], start: float, *supervisions: dict[str, Any], **more: object
) -> dict[str, Any]:
    return {"id": "c", "start": start, "duration": 1.0, "channel": 0, "recording": of,
            "supervisions": [*supervisions], "type": "MonoCut", **more}  # fmt: skip


def packed(*rows: dict[str, Any]) -> bytes:
    return gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode())


def test_cuts_of_a_folder_are_splits_by_their_names(made: Made) -> None:
    made.audio("r1.wav", "r2.wav", seconds=2.0)
    one = cut(recording("r1"), 0.5, supervision("u1", "r1", 0.25, 0.5, language="de"),
              supervision("u2", "r1", -0.5, 0.5))  # fmt: skip
    made.text("cuts_train.jsonl.gz", packed(one))
    made.text(
        "x_cuts_dev.jsonl.gz", packed(cut(recording("r2"), 0.0, supervision("u3", "r2", 0, 2.0)))
    )
    made.prepare(Lhotse())
    assert {n: (u.text, u.duration, u.speaker) for n, u in made.written().items()} == {
        "u1": ("yes", 0.5, "ada"), "u2": ("yes", 0.5, "ada"),
    }  # fmt: skip
    assert made.written()["u1"].extra == {"language": "de"}
    assert made.written("dev")["u3"].duration == 2.0


def test_recordings_and_supervisions(made: Made) -> None:
    made.audio("sound/r1.wav", seconds=2.0)
    made.text("libri_recordings_train-clean-5.jsonl.gz", packed(recording("r1")))
    two = packed(supervision("u1", "r1", 0.0, 0.5), supervision("u2", "gone", 0, 1))
    made.text("libri_supervisions_train-clean-5.jsonl.gz", two)
    made.text("other_supervisions_test.jsonl", "")
    corpus = made.prepare(Lhotse(str(made.source / "sound")), skip_bad=True)
    assert {n: u.duration for n, u in made.written().items()} == {"u1": 0.5}
    assert made.rejected() == ["recording 'gone' is not in libri_recordings_train-clean-5.jsonl.gz"]
    assert (
        "other_supervisions_test.jsonl has no file of recordings and was passed over."
        in corpus.notes
    )


def test_a_call_with_a_voice_on_each_channel(made: Made) -> None:
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (RATE, 2))
    soundfile.write(made.source / "r.wav", samples, RATE, subtype="FLOAT")
    call = recording("r") | {"channel_ids": [0, 1]}
    made.text("mine_recordings_train.jsonl", json.dumps(call))
    spoken = [supervision(name, "r", 0, 1) | {"channel": channel}
              for name, channel in (("left", 0), ("right", 1), ("both", [0, 1]))]  # fmt: skip
    made.text("mine_supervisions_train.jsonl", "\n".join(map(json.dumps, spoken)))
    made.prepare(Lhotse())
    for name, expected in (
        ("left", samples[:, 0]), ("right", samples[:, 1]), ("both", samples.mean(axis=1))
    ):  # fmt: skip
        one = made.written()[name]
        assert one.channel is None  # it was written out
        written, _ = soundfile.read(one.audio_filepath)
        np.testing.assert_allclose(written, expected, atol=1e-4)
    made.prepare(Lhotse(), audio_format="keep")
    assert [each.channel for each in made.written().values()] == [0, 1, None]


def test_what_is_no_plain_file_is_named_and_left_alone(made: Made) -> None:
    canary = made.source / "canary"
    made.audio("r.wav", seconds=2.0)
    good = supervision("u", "r", 0, 1)
    two = recording("r") | {"channel_ids": [1, 2]}
    rows = [
        cut(recording("r"), 0, good),
        cut(recording("r", "command", f"touch {canary}"), 0, good),
        cut(recording("r", "url", "https://example.org/a.wav"), 0, good),
        cut(recording("r", "shar", ""), 0, good),
        cut(recording("r"), 0, good, type="MixedCut"),
        cut(recording("r") | {"transforms": [{"name": "Speed"}]}, 0, good),
        cut(two, 0, good),
        cut(recording("r"), 0),
        cut(recording("r"), 0, supervision("v", "r", 0, 1, text=None)),
        cut(recording("r"), "x", good),  # type: ignore[arg-type]
    ]
    path = made.text("mine.jsonl", "".join(json.dumps(row) + "\n" for row in rows) + "{\n")
    with pytest.raises(
        ValueError, match=r"mine\.jsonl:2: the audio of 'r' is a 'command' .*not read or run"
    ):
        made.prepare(Lhotse(), source=path)
    made.prepare(Lhotse(), source=path, skip_bad=True)
    assert list(made.texts()) == ["u"]
    reasons = made.rejected()
    for number, part in enumerate(
        ["'command'", "'url'", "'shar'", "'MixedCut'", "transforms", r"channel 0 of [1, 2]",
         "without supervisions", "without text", "start is 'x'", "bad JSON"]
    ):  # fmt: skip
        assert part in reasons[number]
    assert not canary.exists()


def test_something_else_is_refused(made: Made) -> None:
    made.text("other.txt", "")
    with pytest.raises(ValueError, match=r"holds no cuts\*\.jsonl\.gz, nor recordings"):
        made.prepare(Lhotse())


def test_a_bomb_is_refused(made: Made) -> None:
    made.text("cuts.jsonl.gz", gzip.compress(b" " * (1 << 24)))
    with pytest.raises(ValueError, match="expected at most 200 times its size"):
        made.prepare(Lhotse())


def test_cuts_of_shards_are_told(speech_cases: Path, made: Made) -> None:
    with pytest.raises(ValueError, match="is a 'shar'"):
        made.prepare(Lhotse(), source=speech_cases / "import-formats" / "cuts.jsonl")
