"""On a GPU: the same bits each time and after a resume, and memory that really is too small."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from asr.data.dataset import Batch, batch_loader
from asr.data.splits import Splits
from asr.recognizer import Recognizer
from asr.trainer.distributed import join_world
from asr.trainer.step import Stepper, StepResult
from tests.data.loading import requests_of
from tests.trainer.fitting import (
    RATE,
    MakeRecognizer,
    MakeSplits,
    MakeUtterance,
    digest,
    rows_of,
    trainer_of,
    varied_recipe,
)
from tests.trainer.test_resume import Interrupted, final_weights

pytestmark = pytest.mark.cuda

PRECISIONS = ["32-true", "bf16-mixed", "16-mixed"]


@pytest.fixture(scope="session")
def long_splits(make_splits: MakeSplits, make_utterance: MakeUtterance) -> Splits:
    """With utterances of up to 8 s, and letters that come back in them."""
    draw = random.Random(0)
    texts = ["".join(draw.choices("abcd", k=20 + 5 * number)) for number in range(8)]
    return make_splits([make_utterance(f"long{number}", text) for number, text in enumerate(texts)])


def gpu_trainer(precision: str, **settings: Any) -> Any:
    quick = {"accelerator": "cuda", "precision": precision, "batch_duration_s": 40.0}
    return trainer_of(**{**quick, "save_every_s": 0, **settings})


@pytest.mark.parametrize("precision", PRECISIONS)
def test_two_runs_and_an_interrupted_one_are_the_same_bit_for_bit(
    make_recognizer: MakeRecognizer, long_splits: Splits, tmp_path: Path, precision: str
) -> None:
    finals = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        gpu_trainer(precision, num_workers=2 * (name == "second"), max_epochs=8).fit(
            varied_recipe(make_recognizer, long_splits), tmp_path / name
        )
        finals.append(final_weights(tmp_path / name))
    folder = tmp_path / "again"
    folder.mkdir()
    for step in (5, 3):
        recipe = varied_recipe(make_recognizer, long_splits, schedule=Interrupted(step))
        with pytest.raises(KeyboardInterrupt):
            gpu_trainer(precision, max_epochs=8).fit(recipe, folder, resume=step == 3)
    recipe = varied_recipe(make_recognizer, long_splits)
    gpu_trainer(precision, max_epochs=8).fit(recipe, folder, resume=True)
    finals.append(final_weights(folder))
    assert finals[0] == finals[1] == finals[2]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_it_learns_and_leaves_a_model_for_a_cpu(
    make_recognizer: MakeRecognizer, make_splits: MakeSplits, run_dir: Path, precision: str
) -> None:
    recipe = varied_recipe(make_recognizer, make_splits())
    gpu_trainer(precision, max_epochs=60, batch_duration_s=3.0, log_every=1).fit(recipe, run_dir)
    losses = [float(row["loss"]) for row in rows_of(run_dir / "steps.csv")]
    assert sum(losses[-5:]) < 0.2 * sum(losses[:5])
    assert digest(run_dir / "best.safetensors")


@pytest.fixture
def _all_memory_afterwards() -> Iterator[None]:
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


def large_recognizer(make_recognizer: MakeRecognizer) -> Recognizer:
    return make_recognizer(hidden_size=512, num_layers=2, channels=32)


def step_on(recognizer: Recognizer, precision: str, batch: Batch) -> tuple[Stepper, StepResult]:
    world = join_world("cuda", 1, 1, precision)
    recognizer = recognizer.to(world.device).train()
    optimizer = torch.optim.SGD(recognizer.model.parameters(), lr=0.1)
    stepper = Stepper(world, recognizer, optimizer, None, 0.0)
    torch.cuda.reset_peak_memory_stats()
    return stepper, stepper.step([batch], int(batch.token_lengths.sum()))


@pytest.mark.usefixtures("_all_memory_afterwards")
def test_a_batch_that_memory_is_too_small_for_is_split_and_the_step_is_the_same(
    make_recognizer: MakeRecognizer, long_splits: Splits
) -> None:
    utterances = list(long_splits.train[:8]) * 8
    tokens = [make_recognizer().tokenizer.encode(utterance.text) for utterance in utterances]
    plan = [range(len(utterances))]
    (batch,) = batch_loader(RATE).load(requests_of(utterances, tokens, 0, plan))

    stepper, result = step_on(large_recognizer(make_recognizer), "32-true", batch)
    assert not result.incidents.notes
    peak, total = torch.cuda.max_memory_reserved(), torch.cuda.mem_get_info()[1]
    whole = {name: value.cpu() for name, value in stepper.model.state_dict().items()}
    del stepper
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.7 * peak / total)
    stepper, result = step_on(large_recognizer(make_recognizer), "32-true", batch)
    assert result.incidents.notes[0].startswith("out of memory, batch split in two: ")
    assert result.incidents.left_out == []
    assert torch.cuda.max_memory_reserved() <= 0.7 * peak
    for name, value in stepper.model.state_dict().items():
        torch.testing.assert_close(value.cpu(), whole[name], rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("_all_memory_afterwards")
def test_memory_is_tried_before_the_first_step(
    make_recognizer: MakeRecognizer,
    long_splits: Splits,
    run_dir: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    recipe = varied_recipe(make_recognizer, long_splits)
    gpu_trainer("bf16-mixed", max_epochs=1).fit(recipe, run_dir)
    (line,) = [r.getMessage() for r in caplog.records if "largest batch" in r.getMessage()]
    total = torch.cuda.get_device_properties(0).total_memory
    assert f"of {total / (1 << 30):.1f} GiB" in line
