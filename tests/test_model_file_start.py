"""Starting from a trained model: the same function for what is shared, told in a line each."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from asr.model_file import (
    carry_weights,
    head_rows,
    load_model,
    origin_of,
    save_model,
    transfer_model,
)
from asr.recognizer import ModelSpec, Part, Recognizer

SIZES = {"hidden_size": 6, "num_layers": 2, "channels": 2, "dropout": 0.0}
FEATURES = {"sample_rate": 8000, "n_mels": 10}
TRAINING = {"step": 12, "data_fingerprint": "abc"}


def spec_of(
    alphabet: str = "abc",
    features: dict[str, Any] | None = None,
    text: dict[str, Any] | None = None,
    **model: Any,
) -> ModelSpec:
    return ModelSpec(
        Part("LogMel", FEATURES | (features or {})),
        Part("BiLstmCtc", SIZES | model),
        alphabet,
        text or {},
    )


def trained_of(spec: ModelSpec) -> Recognizer:
    """Weights of order one: a row in another's place must be seen."""
    torch.manual_seed(60)
    recognizer = Recognizer(spec)
    for parameter in recognizer.parameters():
        nn.init.normal_(parameter, std=0.5)
    return recognizer.eval()


def stored(folder: Path, spec: ModelSpec) -> Path:
    path = folder / "old.safetensors"
    save_model(path, trained_of(spec), TRAINING)
    return path


def waveforms() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(61)
    return torch.randn(2, 3000, generator=generator), torch.tensor([3000, 1700])


def log_probs_of(recognizer: Recognizer) -> Tensor:
    with torch.inference_mode():
        log_probs: Tensor = recognizer.eval()(*waveforms())[0]
    return log_probs


# Rows: the blank, a, b, c; with upsampling 2 the same of the second output frame below.
ONE = [[9.0, 8.0], [1.0, 2.0], [3.0, 5.0], [8.0, 2.0]]
TWO = [[7.0, 6.0], [10.0, 20.0], [30.0, 50.0], [80.0, 20.0]]


@pytest.mark.parametrize(
    ("upsampling", "new", "rows", "expected"),
    [
        # d is the mean of a, b and c: (1 + 3 + 8) / 3 and (2 + 5 + 2) / 3.
        (1, "bcd", ONE, [[9.0, 8.0], [3.0, 5.0], [8.0, 2.0], [4.0, 3.0]]),
        (1, "cab", ONE, [ONE[0], ONE[3], ONE[1], ONE[2]]),
        (1, "xy", ONE, [ONE[0], [4.0, 3.0], [4.0, 3.0]]),
        (
            2,
            "bcd",
            ONE + TWO,
            [ONE[0], ONE[2], ONE[3], [4.0, 3.0], TWO[0], TWO[2], TWO[3], [40.0, 30.0]],
        ),
    ],
    ids=["another", "another order", "none shared", "upsampling 2"],
)
def test_head_rows_by_value(
    upsampling: int, new: str, rows: list[list[float]], expected: list[list[float]]
) -> None:
    weight = torch.tensor(rows)
    torch.testing.assert_close(head_rows(weight, upsampling, "abc", new), torch.tensor(expected))
    bias = head_rows(weight[:, 0], upsampling, "abc", new)
    torch.testing.assert_close(bias, torch.tensor(expected)[:, 0])


@pytest.mark.parametrize("upsampling", [1, 2])
def test_shared_characters_keep_their_probabilities(tmp_path: Path, upsampling: int) -> None:
    path = stored(tmp_path, spec_of("abc", upsampling=upsampling))
    before = log_probs_of(load_model(path)[0])
    transfer = transfer_model(path, spec_of("bcd", upsampling=upsampling))
    assert transfer.recognizer.training
    after = log_probs_of(transfer.recognizer)
    shared = before[..., [0, 2, 3]].log_softmax(dim=-1)  # the blank, b, c without a
    torch.testing.assert_close(after[..., :3].log_softmax(dim=-1), shared, rtol=0, atol=1e-5)
    assert before.std() > 0.1


def test_a_new_character_is_no_likelier_than_an_average_one(tmp_path: Path) -> None:
    path = stored(tmp_path, spec_of("abc"))
    probs = log_probs_of(transfer_model(path, spec_of("abcxy")).recognizer).exp()
    old, new = probs[..., 1:4], probs[..., 4:]
    assert (new <= old.mean(dim=-1, keepdim=True) * (1 + 1e-5)).all()
    geometric = old.log().mean(dim=-1).exp()
    torch.testing.assert_close(new[..., 0], geometric)
    torch.testing.assert_close(new[..., 1], geometric)
    assert old.mean() > 1.05 * geometric.mean()  # else the bound would say nothing


def test_the_same_alphabet_gives_the_same_model(tmp_path: Path) -> None:
    path = stored(tmp_path, spec_of(norm="batch"))
    transfer = transfer_model(path, spec_of(norm="batch"))
    weights = load_model(path)[0].state_dict()
    found = transfer.recognizer.state_dict()
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[name], value) for name, value in weights.items())
    assert transfer.training == TRAINING
    told = "old.safetensors: characters: 3 kept ('abc'), none added, none dropped"
    assert transfer.notes == (told,)


def test_stored_feature_statistics_stay(tmp_path: Path) -> None:
    spec = spec_of(features={"normalizer": "stored"})
    trained = trained_of(spec)
    trained.features.normalizer.measure([trained.features.log_mel(*waveforms())])  # type: ignore[operator]
    path = tmp_path / "old.safetensors"
    save_model(path, trained, TRAINING)
    recognizer = transfer_model(path, spec_of("abx")).recognizer  # which asks for "utterance"
    found, expected = (each.features.normalizer.state_dict() for each in (recognizer, trained))
    assert bool(found["is_measured"])
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert found["mean"].abs().min() > 0.1


def test_the_file_decides_what_weights_depend_on_and_the_settings_the_rest(tmp_path: Path) -> None:
    path = stored(tmp_path, spec_of(text={"lowercase": False}))
    acts = {"dropout": 0.25, "recurrent_dropout": 0.5, "zoneout": 0.125, "backend": "reference"}
    transfer = transfer_model(path, spec_of("bcd", {"n_mels": 20}, hidden_size=9, **acts))
    spec = transfer.recognizer.spec
    assert spec.features.arguments["n_mels"] == 10
    decided = {name: spec.model.arguments[name] for name in ("hidden_size", "num_layers")}
    assert decided == {"hidden_size": 6, "num_layers": 2}
    layer = transfer.recognizer.model.layers[0]
    assert (layer.recurrent_dropout, layer.zoneout, layer.backend) == (0.5, 0.125, "reference")
    assert transfer.recognizer.model.dropout.p == 0.25
    assert transfer.recognizer.text("A") == "a"
    assert transfer.notes == (
        "old.safetensors: n_mels 10 of the model file, not 20 of the settings; "
        "hidden_size 6 of the model file, not 9 of the settings",
        "old.safetensors: zoneout 0.125 of the settings, not 0.0 of the model file: evaluation "
        "keeps that share of the state too, so the start is not quite that model",
        "old.safetensors: text rules: lowercase True of the settings, not False of the model file",
        "old.safetensors: characters: 2 kept ('bc'), 1 added ('d'), 1 dropped ('a')",
    )


def test_a_started_model_can_be_saved_and_started_from_again(tmp_path: Path) -> None:
    path = stored(tmp_path, spec_of("abc", upsampling=2))
    first = transfer_model(path, spec_of("bcd", dropout=0.5))
    again = tmp_path / "start.safetensors"
    save_model(again, first.recognizer, origin_of(path))
    second = transfer_model(again, spec_of("bcd", dropout=0.5))
    assert second.recognizer.spec == first.recognizer.spec
    for name, value in first.recognizer.state_dict().items():
        assert torch.equal(second.recognizer.state_dict()[name], value)
    assert second.training == {
        "init_from": "old.safetensors",
        "init_from_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }


def test_a_weight_that_does_not_fit_is_named_and_nothing_is_copied() -> None:
    fresh = trained_of(spec_of("bcd", num_layers=3))
    before = {name: value.clone() for name, value in fresh.state_dict().items()}
    other = spec_of("abc", hidden_size=7, num_layers=3)
    message = r"^weight model\.head\.weight has shape \[4, 14\], expected \[4, 12\]$"
    with pytest.raises(ValueError, match=message):
        carry_weights(trained_of(other), fresh)
    with pytest.raises(ValueError, match=r"weight model\.layers\.2\.\w+ has shape None, expected"):
        carry_weights(trained_of(spec_of("abc")), fresh)
    assert all(torch.equal(fresh.state_dict()[name], value) for name, value in before.items())


def test_no_model_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"gone\.safetensors"):
        transfer_model(tmp_path / "gone.safetensors", spec_of())
    (tmp_path / "text.safetensors").write_text("no model")
    with pytest.raises(ValueError, match=r"text\.safetensors: not a model file or damaged"):
        transfer_model(tmp_path / "text.safetensors", spec_of())


def test_settings_that_the_model_of_the_file_refuses(tmp_path: Path) -> None:
    path = stored(tmp_path, spec_of())
    with pytest.raises(ValueError, match=r"dropout 1\.5, expected 0 to 1"):
        transfer_model(path, spec_of(dropout=1.5))


def test_a_bidirectional_model_runs_forward_in_time(tmp_path: Path) -> None:
    """Side by side: the forward units of the first layer do what they did, and hear no others."""
    path = stored(tmp_path, spec_of(features={"normalizer": "stored", "n_mels": 12}))
    trained = load_model(path)[0]
    live = {"normalizer": "pcen", "remove_mean": False, "remove_dc_offset": True}
    asked = spec_of("abx", features=live, bidirectional=False, lookahead=3, hidden_size=50)
    transfer = transfer_model(path, asked)
    assert transfer.notes[0] == "old.safetensors: both directions run forward in time, 12 units"
    recognizer = transfer.recognizer
    assert recognizer.is_live
    arguments = recognizer.spec.features.arguments
    assert {name: arguments[name] for name in live} == live
    assert arguments["n_mels"] == 12
    assert not recognizer.features.normalizer.is_measured
    generator = torch.Generator().manual_seed(62)
    before, after = trained.model.layers[0].double(), recognizer.model.layers[0].double()
    x = torch.randn(2, 9, before.input_size, generator=generator, dtype=torch.float64)
    lengths = torch.tensor([9, 9])
    old, new = before(x, lengths=lengths)[0], after(x, lengths=lengths)[0]
    turned = before(x.flip(1), lengths=lengths)[0].flip(1)  # the backward units, forward in time
    torch.testing.assert_close(new[..., :6], old[..., :6])
    torch.testing.assert_close(new[..., 6:], turned[..., 6:])
    for name in ("model.head.weight", "model.norms.0.norm.weight"):
        weights, own = trained.state_dict()[name], recognizer.state_dict()[name]
        assert torch.equal(own[:3], weights[:3])
    with torch.inference_mode():
        seen = torch.randn(1, 5, 12, generator=generator)
        assert torch.equal(recognizer.model.lookahead(seen, torch.tensor([5])), seen)


def test_what_runs_forward_in_time_has_a_plain_cell(tmp_path: Path) -> None:
    path = stored(tmp_path, spec_of(cell="peephole"))
    with pytest.raises(
        ValueError, match=r"old\.safetensors: .* of the cell peephole, expected the cell lstm"
    ):
        transfer_model(path, spec_of(bidirectional=False))
