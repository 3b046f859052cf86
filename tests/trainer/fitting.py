"""What the tests of a training share: a quick trainer, its recipe, and a look at what it wrote."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Iterable
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from asr.audio import load_audio
from asr.augment import Augment, Pauses, SpecAugment, WaveformAugment
from asr.data.manifest import Utterance
from asr.data.splits import Splits
from asr.model.ctc import ctc_loss
from asr.model_file import load_model
from asr.recognizer import Recognizer
from asr.trainer import Recipe, Trainer
from asr.trainer.checkpoint import State, StateStore, read_state
from asr.trainer.optim import Constant

CONF = Path(__file__).parents[2] / "conf"
RATE = 8000  # [Hz]
STEPS_AN_EPOCH = 5  # of `trainer_of` on `make_splits`
PLAIN = Augment()
VARIED = Augment(
    WaveformAugment(
        speeds=(0.95, 1.0, 1.05),
        pauses=Pauses(around=0.3, joined=0.3, empty=0.3, longest_s=0.3, joined_s=2.0),
        gain_db=(-3.0, 3.0),
    ),
    SpecAugment(freq_width=3, time_width=3),
)
ADAM = partial(torch.optim.AdamW, lr=0.01)
Optimizer = Callable[[Iterable[Any]], torch.optim.Optimizer]
MakeSplits = Callable[..., Splits]
MakeRecognizer = Callable[..., Recognizer]
MakeUtterance = Callable[..., Utterance]


def trainer_of(**settings: Any) -> Trainer:
    """A quick one; what is not given is as in conf/."""
    usual = yaml.safe_load((CONF / "trainer" / "default.yaml").read_text())
    del usual["_target_"]
    quick = {"max_epochs": 2, "batch_duration_s": 1.5, "num_workers": 0, "accelerator": "cpu"}
    return Trainer(**{**usual, "seed": 0, **quick, **settings})


def recipe_of(
    recognizer: Recognizer,
    splits: Splits,
    optimizer: Optimizer = ADAM,
    augment: Augment = PLAIN,
    schedule: Any = Constant(warmup=0.0),  # noqa: B008 -- it has no state
) -> Recipe:
    return Recipe(recognizer, splits, optimizer, schedule, augment)


def varied_recipe(make_recognizer: MakeRecognizer, splits: Splits, **other: Any) -> Recipe:
    """With every draw there is, in waveforms, features and model; and running statistics."""
    recognizer = make_recognizer(dropout=0.3, norm="batch")
    return recipe_of(recognizer, splits, augment=VARIED, **other)


def state_of(run_dir: Path) -> State:
    """The newest training state of a run."""
    content, path = StateStore(run_dir / "state").load()
    return read_state(content, path)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def assert_weights(model_file: Path, expected: dict[str, Tensor], tolerance: float) -> None:
    found = load_model(model_file)[0].state_dict()
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=tolerance, atol=tolerance)


def step_by_hand(
    recognizer: Recognizer, utterances: Iterable[Utterance], lr: float
) -> dict[str, Tensor]:
    """Weights after a step of SGD on all utterances, each run alone."""
    copy = deepcopy(recognizer).train()
    total, characters = torch.zeros(()), 0
    for utterance in utterances:
        waveform = torch.from_numpy(load_audio(utterance.audio_filepath, RATE))[None]
        tokens = torch.tensor([copy.tokenizer.encode(utterance.text)])
        output = copy(waveform, torch.tensor([waveform.shape[1]]))
        total = total + ctc_loss(*output, tokens, torch.tensor([tokens.shape[1]])).sum()
        characters += tokens.shape[1]
    (total / characters).backward()
    with torch.no_grad():
        for parameter in copy.parameters():
            assert parameter.grad is not None
            parameter -= lr * parameter.grad
    return copy.state_dict()
