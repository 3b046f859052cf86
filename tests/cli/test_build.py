"""Every option of every group is built into the object it stands for, and the object works."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from asr.augment import Augment
from asr.cli.build import build_recognizer, build_trainer, construct, plain
from asr.cli.conf import conf_dir
from asr.data.splits import Splits
from asr.decoder.ngram_file import save_ngram_model
from asr.decoder_file import build_decoder
from asr.recognizer import ModelSpec, Part, Recognizer
from asr.text import TextNormalizer
from tests.decoder.searches import bigram_model


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))


def composed(command: str, *overrides: str) -> DictConfig:
    given = ["data.train=x", "data.dev=x"] if command == "train" else ["model_file=x", "manifest=x"]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose(command, [*given, *overrides])


@pytest.mark.parametrize(
    "choice",
    [*(f"features={name}" for name in options("features")),
     *(f"model={name}" for name in options("model")),
     "features.normalizer=none", "model.norm=batch", "model.backend=reference"],
)  # fmt: skip
def test_features_and_model(choice: str) -> None:
    config = composed("train", choice)
    splits = Splits((), (), TextNormalizer(), "ab")
    recognizer = build_recognizer(config, splits).eval()
    num_samples = torch.tensor([recognizer.features.sample_rate])
    waveform = torch.randn(1, int(num_samples))
    if hasattr(recognizer.features.normalizer, "measure"):  # what a training does first
        recognizer.features.normalizer.measure([recognizer.features.log_mel(waveform, num_samples)])
    log_probs, lengths = recognizer(waveform, num_samples)
    assert log_probs.shape == (1, int(lengths[0]), 3)
    torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(1, int(lengths[0])))


def test_the_same_seed_gives_the_same_weights() -> None:
    splits = Splits((), (), TextNormalizer(), "ab")
    first, again, other = (
        build_recognizer(composed("train", f"seed={seed}"), splits).model.head.weight
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("name", options("optim"))
def test_optimisers_descend(name: str) -> None:
    parameter = torch.nn.Parameter(torch.full((4,), 3.0))
    optimizer = construct(composed("train", f"optim={name}"), "optim")([{"params": [parameter]}])
    for _ in range(20):
        optimizer.zero_grad()
        parameter.square().sum().backward()
        optimizer.step()
    assert bool((parameter < 3.0).all())


@pytest.mark.parametrize("name", options("schedule"))
def test_schedules_are_factors(name: str) -> None:
    schedule = construct(composed("train", f"schedule={name}"), "schedule")
    factors = [schedule(progress) for progress in np.linspace(0, 1, 101)]
    assert min(factors) >= 0
    assert max(factors) == pytest.approx(1)


@pytest.mark.parametrize("name", options("augment"))
def test_augmentations(name: str) -> None:
    augment = construct(composed("train", f"augment={name}"), "augment")
    assert isinstance(augment, Augment)
    assert (augment.spec is None) == (name == "none")
    assert (augment.waveform is not None) == (name != "none")


@pytest.mark.parametrize("name", options("augment/pauses"))
def test_pauses(name: str) -> None:
    waveform = construct(composed("train", f"augment/pauses={name}"), "augment").waveform
    assert (waveform.pauses is None) == (name == "none")


@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, name) for kind in ("noise", "room") for name in options(f"augment/{kind}")],
)
def test_noises_and_rooms(kind: str, name: str, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "hiss.wav", np.random.default_rng(0).uniform(-1, 1, 4000), 8000)
    choice = ["augment=full", f"augment/{kind}={name}"]
    if name == "folder":
        choice.append(f"augment.waveform.{kind}.source.folder={tmp_path}")
    part = getattr(construct(composed("train", *choice), "augment").waveform, kind)
    assert (part is None) == (name == "none")
    if part is not None:
        part.probability = 1.0
        waveform = np.ones(8000, np.float32)
        assert not np.array_equal(part(waveform, 8000, np.random.default_rng(0)), waveform)


@pytest.mark.parametrize("kind", ["noise", "room"])
def test_a_folder_that_is_missing_is_told_before_the_training(kind: str) -> None:
    config = composed(
        "train", "augment=noisy", f"augment/{kind}=folder",
        f"augment.waveform.{kind}.source.folder=no/such/folder",
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"^no/such/folder: missing, expected a folder of audio"):
        construct(config, "augment")


@pytest.mark.parametrize("name", options("trainer"))
def test_trainers(name: str) -> None:
    config = composed("train", f"trainer={name}", "trainer.accelerator=cpu", "seed=5")
    trainer = build_trainer(config)
    assert trainer.seed == 5
    assert trainer.world.size == 1


@pytest.mark.parametrize("name", options("decoder"))
def test_decoders(name: str, tmp_path: Path) -> None:
    save_ngram_model(tmp_path / "lm.arpa", bigram_model(("ab", "b")))
    overrides = [f"decoder={name}"]
    if name in ("beam_ngram", "beam_phones"):
        overrides += [f"decoder.language_model={tmp_path}/lm.arpa", "decoder.word_bonus=1"]
    spec = ModelSpec(
        Part("LogMel", {"sample_rate": 8000}),
        Part("BiLstmCtc", {"hidden_size": 4, "num_layers": 1}),
        "ab ",
        {},
    )
    decoder = build_decoder(
        plain(composed("evaluate", *overrides), "decoder"), Recognizer(spec), pytest.fail
    )
    rows = [[0.1, 0.7, 0.1, 0.1], [0.7, 0.1, 0.1, 0.1], [0.1, 0.1, 0.7, 0.1]]
    assert decoder(torch.tensor([rows]).log(), torch.tensor([3]))[0][0].tokens == (1, 2)


def test_what_a_constructor_refuses_is_a_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="gain_db"):
        construct(composed("train", "augment=full", "augment.waveform.gain_db=[3,-3]"), "augment")
    with pytest.raises(ValueError, match="needs a GPU"):
        build_trainer(composed("train", "trainer.accelerator=cpu", "trainer.precision=16-mixed"))


def test_settings_of_an_augmentation_that_is_not_there_are_refused() -> None:
    config = composed("train", "experiment=digits_demo", "augment=none")
    message = (
        r"augment\.spec has settings \(freq_width, time_width\) of nothing, expected an augment="
    )
    with pytest.raises(ValueError, match=message):
        construct(config, "augment")
    without = composed("train", "experiment=digits_demo", "augment=none", "augment.spec=null")
    assert construct(without, "augment") == Augment()
