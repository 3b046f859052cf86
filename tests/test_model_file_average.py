"""Averages of model files, by hand, and what cannot be averaged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch

from asr.model_file import average_models, load_model, save_model
from asr.recognizer import ModelSpec, Part, Recognizer

SPEC = ModelSpec(
    Part("LogMel", {"sample_rate": 8000, "n_mels": 10, "normalizer": "stored"}),
    Part("BiLstmCtc", {"hidden_size": 3, "num_layers": 1, "channels": 2, "norm": "batch"}),
    "ab",
    {},
)
MEAN, STEPS = "model.norms.0.norm.running_mean", "model.norms.0.norm.num_batches_tracked"
Save = Callable[..., Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Writes a model of one value everywhere, with measured feature statistics."""

    def write(
        name: str,
        value: float,
        spec: ModelSpec = SPEC,
        steps: int = 0,
        feature_mean: float = 2.0,
        training: dict[str, Any] | None = None,
    ) -> Path:
        recognizer = Recognizer(spec)
        for key, tensor in recognizer.state_dict().items():
            tensor.fill_(feature_mean if key.startswith("features") else value)
            if key == STEPS:
                tensor.fill_(steps)
        path = tmp_path / f"{name}.safetensors"
        save_model(path, recognizer, training or {})
        return path

    return write


def test_the_mean_by_hand(save: Save) -> None:
    paths = [save("a", 1.0, steps=10), save("b", 2.0, steps=20), save("c", 6.0, steps=25)]
    average, _ = average_models(paths)
    assert not average.training
    for name, tensor in average.state_dict().items():
        if name == "features.normalizer.is_measured":
            assert bool(tensor)
        else:
            expected = 2.0 if name.startswith("features") else 18 if name == STEPS else 3.0
            assert torch.equal(tensor, torch.full_like(tensor, expected)), name
    assert MEAN in average.state_dict()


def test_sums_are_taken_in_float64(save: Save) -> None:
    # In float32 each of the ones is lost beside 2 ** 25.
    big = float(1 << 25)
    paths = [save("a", big), *(save(name, 1.0) for name in "bcde")]
    bias = average_models(paths)[0].model.head.bias.detach()
    assert torch.equal(bias, torch.full((3,), (big + 4) / 5))
    single = torch.tensor(big) + 1 + 1 + 1 + 1
    assert float(single / 5) != float(bias[0])


def test_equal_models_have_themselves_as_average(save: Save) -> None:
    paths = [save(name, 0.1) for name in "abcdefg"]  # no binary fraction
    average, _ = average_models(paths)
    for name, tensor in load_model(paths[0])[0].state_dict().items():
        assert torch.equal(average.state_dict()[name], tensor), name


def test_the_summary_names_the_sources(save: Save) -> None:
    data = {"data_fingerprint": "abc", "dev_wer": 0.5}
    one = save("model-10", 1.0, training=data | {"step": 10})
    two = save("model-20", 2.0, training=data | {"step": 20})
    digests = [sha256(path.read_bytes()).hexdigest()[:12] for path in (one, two)]
    assert average_models([one, two])[1] == {
        "average_of": f"model-10.safetensors (step 10, sha256 {digests[0]}), "
        f"model-20.safetensors (step 20, sha256 {digests[1]})",
        "data_fingerprint": "abc",
    }
    other = save("other", 2.0, training={"data_fingerprint": "xyz"})
    summary = average_models([one, other])[1]
    assert summary.keys() == {"average_of"}
    assert "other.safetensors (step unknown, " in summary["average_of"]


def changed(part: str, **arguments: Any) -> ModelSpec:
    old = getattr(SPEC, part)
    return replace(SPEC, **{part: Part(old.name, old.arguments | arguments)})


@pytest.mark.parametrize(
    ("spec", "difference"),
    [
        (changed("model", hidden_size=4), "model.hidden_size is 4, expected 3"),
        (changed("model", dropout=0.5), "model.dropout is 0.5, expected 0.1"),
        (changed("features", f_min=50.0), "features.f_min is 50.0, expected 20.0"),
        (replace(SPEC, alphabet="ba"), "alphabet is 'ba', expected 'ab'"),
        (
            replace(SPEC, text={"lowercase": False}),
            "text.lowercase is False, expected True",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_another_description_is_named(save: Save, spec: ModelSpec, difference: str) -> None:
    paths = [save("a", 1.0), save("b", 2.0), save("c", 3.0, spec)]
    with pytest.raises(ValueError, match=r".") as caught:
        average_models(paths)
    assert str(caught.value) == f"{paths[2]}: {difference} as in {paths[0]}"


def test_other_feature_statistics_are_named(save: Save) -> None:
    paths = [save("a", 1.0), save("b", 1.0, feature_mean=3.0)]
    with pytest.raises(ValueError, match=r"b\.safetensors: features\.normalizer\.mean has other"):
        average_models(paths)


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two(save: Save, count: int) -> None:
    paths = [save("a", 1.0)] * count
    with pytest.raises(ValueError, match=f"^{count} model to average, expected 2 or more$"):
        average_models(paths)


def test_one_given_twice(save: Save) -> None:
    first, second = save("a", 1.0), save("b", 2.0)
    with pytest.raises(
        ValueError, match=r"a\.safetensors is given twice, expected each model once"
    ):
        average_models([first, second, first])


def test_a_missing_file(save: Save, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"gone\.safetensors"):
        average_models([save("a", 1.0), tmp_path / "gone.safetensors"])
