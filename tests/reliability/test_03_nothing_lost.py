"""Check 3: one of two processes is killed; all the same each utterance is learnt once an epoch."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from asr.data.manifest import read_manifest
from asr.data.shar_writer import SharSettings, SharWriter
from tests.reliability.training import Training

UTTERANCES, EPOCHS = 200, 2
KILLS = (3, 17, 31)  # steps; an epoch has about 20
LIMIT_S = 120.0


def learnt(training: Training) -> dict[int, list[str]]:
    """The utterances of each step, of both ranks, as it was last taken."""
    steps: dict[int, list[str]] = {}
    for rank in (0, 1):
        last: dict[int, list[str]] = {}
        ids: list[str] = []
        for row in training.events(rank=rank):
            if row["event"] == "learning":
                ids = row["ids"]
            elif row["event"] == "step":
                last[row["step"]] = ids
        for step, taken in last.items():
            steps.setdefault(step, []).extend(taken)
    return steps


@pytest.mark.slow
@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_killed_rank_costs_no_utterance(
    corpus: Callable[..., Path],
    tmp_path: Path,
    survived: Callable[[str, int, int], None],
    rank: str,
) -> None:
    training = Training(
        tmp_path / "run", corpus(UTTERANCES), corpus(6, "dev"), ranks=2, max_restarts=len(KILLS),
        kill_at={rank: list(KILLS)},
        settings={"max_epochs": EPOCHS, "batch_duration_s": 2.0, "save_every_steps": 5},
    )  # fmt: skip
    start = time.monotonic()
    status, output = training.finish()
    took_s = time.monotonic() - start
    assert status == 0, output
    assert took_s < LIMIT_S
    assert [row["step"] for row in training.events("killed", int(rank))] == list(KILLS)
    times = Counter(name for ids in learnt(training).values() for name in ids)
    survived(f"nothing lost, rank {rank}", sum(n == EPOCHS for n in times.values()), UTTERANCES)
    assert_once_an_epoch(training, UTTERANCES)


@pytest.mark.slow
@pytest.mark.parametrize("kills", [(), (2, 9)], ids=["whole", "killed"])
def test_two_ranks_learn_each_utterance_of_shards_once_an_epoch(
    corpus: Callable[..., Path], tmp_path: Path, kills: tuple[int, ...]
) -> None:
    # Seven shards: two windows of one a rank, and a last one where a rank has twice as much.
    manifest = corpus(65)
    shards = tmp_path / "shards"
    writer = SharWriter(read_manifest(manifest), shards, SharSettings("wav", shard_size=10))
    list(writer.write())
    assert len(list(shards.glob("recording.*.tar"))) == 7
    training = Training(
        tmp_path / "run", shards, corpus(6, "dev"), ranks=2, max_restarts=len(kills),
        kill_at={"1": list(kills)},
        settings={"max_epochs": EPOCHS, "batch_duration_s": 2.0, "save_every_steps": 3},
    )  # fmt: skip
    status, output = training.finish()
    assert status == 0, output
    assert [row["step"] for row in training.events("killed", 1)] == list(kills)
    assert_once_an_epoch(training, 65)
    for rank in (0, 1):
        assert any(row["ids"] for row in training.events("learning", rank))


def assert_once_an_epoch(training: Training, count: int) -> None:
    """Both ranks together learnt from each of so many utterances once in each epoch."""
    epochs = {row["step"]: row["epoch"] for row in training.events("step")}
    assert set(epochs.values()) == set(range(EPOCHS))
    for epoch in range(EPOCHS):
        taken = [ids for step, ids in learnt(training).items() if epochs[step] == epoch]
        names = [name for ids in taken for name in ids]
        assert len(names) == len(set(names)) == count
