"""A training from shards: all utterances, in windows, gone on with to the last bit."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from asr.data.manifest import Utterance
from asr.data.shar import SharFolder, read_index
from asr.data.shar_writer import SharSettings, SharWriter
from asr.data.shards import SharSource, StreamedSplits
from asr.data.splits import Splits
from tests.trainer.fitting import (
    MakeRecognizer,
    MakeSplits,
    MakeUtterance,
    digest,
    recipe_of,
    rows_of,
    state_of,
    trainer_of,
    varied_recipe,
)

SHARDS = 6  # of two utterances each


def write(utterances: tuple[Utterance, ...], folder: Path) -> Path:
    list(SharWriter(utterances, folder, SharSettings("wav", shard_size=2)).write())
    return folder


def streamed(splits: Splits, folder: Path, **settings: float) -> StreamedSplits:
    place = SharFolder(folder)
    index = read_index(place)
    assert index is not None
    source = SharSource(place, index, splits.text, **settings)  # type: ignore[arg-type]
    return StreamedSplits(source, splits.dev, splits.text, splits.alphabet)


@pytest.fixture(scope="module")
def splits(make_splits: MakeSplits) -> Splits:
    return make_splits()


@pytest.fixture(scope="module")
def shards(splits: Splits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(splits.train, tmp_path_factory.mktemp("shards") / "s")


def final(run_dir: Path) -> tuple[str, str, str]:
    """Both model files, and the state's weights and moments."""
    state = state_of(run_dir)
    parts = [*state.parts["model"].values()]
    for moments in state.parts["optimizer"]["state"].values():
        parts += moments.values()
    joined = b"".join(part.numpy().tobytes() for part in parts)
    models = digest(run_dir / "best.safetensors"), digest(run_dir / "last.safetensors")
    return (*models, hashlib.sha256(joined).hexdigest())


class Interrupted:
    """A schedule that notes how far the training is, and interrupts it before a step."""

    def __init__(self, step: int | None = None) -> None:
        self.left = step
        self.seen: list[float] = []

    def __call__(self, progress: float) -> float:
        if self.left is not None and len(self.seen) == self.left:
            raise KeyboardInterrupt
        self.seen.append(progress)
        return 1.0


@pytest.mark.parametrize("workers", [0, 2])
def test_gone_on_with_after_any_step_it_is_the_same_to_the_last_bit(
    make_recognizer: MakeRecognizer, splits: Splits, shards: Path, tmp_path: Path, workers: int
) -> None:
    trained = streamed(splits, shards, shards_per_window=2)
    schedule = Interrupted()
    whole = tmp_path / "whole"
    whole.mkdir()
    recipe = varied_recipe(make_recognizer, trained, schedule=schedule)
    progress = trainer_of(save_every_steps=1).fit(recipe, whole)
    assert progress.step == len(schedule.seen) > 2 * SHARDS / 2
    assert schedule.seen == sorted(schedule.seen)
    assert 0 < schedule.seen[0] < schedule.seen[-1] < 1
    assert progress.audio_s == pytest.approx(2 * trained.train.index.duration_s)
    steps = (1, 4, progress.step - 1) if workers == 0 else (3,)
    for step in steps:
        folder = tmp_path / f"interrupted_{step}"
        folder.mkdir()
        stopped = varied_recipe(make_recognizer, trained, schedule=Interrupted(step))
        trainer = trainer_of(save_every_steps=1, num_workers=workers)
        with pytest.raises(KeyboardInterrupt):
            trainer.fit(stopped, folder)
        assert state_of(folder).progress.step == step
        trainer.fit(varied_recipe(make_recognizer, trained, schedule=Interrupted()), folder, True)
        assert final(folder) == final(whole)


def test_one_window_of_all_shards_learns_as_from_the_manifest(
    make_recognizer: MakeRecognizer, splits: Splits, shards: Path, tmp_path: Path
) -> None:
    """One batch a step and one step an epoch: order apart, the same sums."""
    found = {}
    for name, data in {
        "manifest": splits,
        "shards": streamed(splits, shards, shards_per_window=SHARDS),
    }.items():
        folder = tmp_path / name
        folder.mkdir()
        trainer_of(batch_duration_s=99.0).fit(recipe_of(make_recognizer(), data), folder)
        found[name] = [float(row["loss"]) for row in rows_of(folder / "validations.csv")]
    assert found["shards"] == pytest.approx(found["manifest"], rel=1e-3)  # 16 bits a sample


def test_what_cannot_be_learnt_is_named_and_counted(
    make_recognizer: MakeRecognizer,
    make_utterance: MakeUtterance,
    splits: Splits,
    tmp_path: Path,
) -> None:
    short = replace(make_utterance("short", "a"), text="abcdabcdabcdabcd")
    strange = replace(make_utterance("strange", "b"), text="xyz")
    long = make_utterance("long", "abcd", 0.5)
    folder = write((*splits.train, short, strange, long), tmp_path / "s")
    data = streamed(splits, folder, max_duration_s=1.0, shards_per_window=3)
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    progress = trainer_of(max_left_out=0.25).fit(recipe_of(make_recognizer(), data), run_dir)
    seconds = sum(utterance.duration or 0.0 for utterance in splits.train)
    assert progress.audio_s == pytest.approx(2 * seconds)
    rows = [json.loads(line) for line in (run_dir / "left_out.jsonl").read_text().splitlines()]
    assert len(rows) == 3, "each once, though every epoch leaves them out"
    found = {row["id"]: (row["kind"], row["reason"]) for row in rows}
    assert found.keys() == {"short", "strange", "long"}
    assert found["short"][0] == "infeasible"
    assert "expected at least 16 for its 16 characters" in found["short"][1]
    assert found["strange"][0] == "unknown_character"
    assert "'x' (U+0078" in found["strange"][1]
    assert found["long"] == ("too_long", "2.15 s, expected 0.1 to 1 s")
    message = (
        r"^\d of 15 training utterances cannot be used, expected at most 14% "
        r"\(trainer\.max_left_out\): 1 \w.*, all in \S+left_out\.jsonl; last: \w+: "
    )
    with pytest.raises(ValueError, match=message):
        trainer_of(max_left_out=0.14).fit(recipe_of(make_recognizer(), data), run_dir)


def test_the_worst_are_heard_from_their_shards(
    make_recognizer: MakeRecognizer, splits: Splits, shards: Path, run_dir: Path
) -> None:
    data = streamed(splits, shards)
    trainer_of(max_epochs=12).fit(recipe_of(make_recognizer(), data), run_dir)
    rows = [json.loads(line) for line in (run_dir / "worst.jsonl").read_text().splitlines()]
    assert {row["id"] for row in rows} == {utterance.id for utterance in splits.train}
    assert any(row["hypothesis"] for row in rows)
    assert all("/recording.00000" in row["audio"] for row in rows)


def test_statistics_are_measured_before_the_first_step(
    make_recognizer: MakeRecognizer, splits: Splits, shards: Path, run_dir: Path
) -> None:
    means = []
    for data in (splits, streamed(splits, shards, shards_per_window=SHARDS)):
        recognizer = make_recognizer(features={"normalizer": "stored"})
        trainer_of(max_epochs=1).fit(recipe_of(recognizer, data), run_dir)
        means.append(recognizer.features.normalizer.state_dict())
    for one, other in zip(*(mean.values() for mean in means), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


def test_an_utterance_beyond_the_budget_is_found_before_the_first_step(
    make_recognizer: MakeRecognizer, splits: Splits, shards: Path, run_dir: Path
) -> None:
    recipe = recipe_of(make_recognizer(), streamed(splits, shards))
    message = r"the longest training utterance lasts 0\.5\d s, expected at most batch_duration_s"
    with pytest.raises(ValueError, match=message):
        trainer_of(batch_duration_s=0.3).fit(recipe, run_dir)


def test_other_shards_are_another_training(
    make_recognizer: MakeRecognizer, splits: Splits, shards: Path, run_dir: Path
) -> None:
    trainer_of(max_epochs=1).fit(recipe_of(make_recognizer(), streamed(splits, shards)), run_dir)
    other = streamed(splits, shards, shards_per_window=2)
    with pytest.raises(ValueError, match="was saved by a training on other data or settings"):
        trainer_of(max_epochs=2).fit(recipe_of(make_recognizer(), other), run_dir, resume=True)
