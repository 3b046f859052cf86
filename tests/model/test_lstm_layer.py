"""The LSTM layer around its backends: dropout, the choice of a backend, arguments that fit not."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from asr.model import lstm as lstm_module
from asr.model.kernels import reference
from asr.model.lstm import LSTM
from tests.model.layers import (
    BACKENDS,
    HIDDEN,
    INPUT,
    assert_equal,
    forward_and_gradients,
    layer_of,
    random_input,
    random_state,
)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(20)


@pytest.mark.parametrize("backend", BACKENDS)
def test_dropout_acts_between_layers_and_only_in_training(backend: str) -> None:
    layer = layer_of(backend, num_layers=2, batch_first=True)
    x = random_input(layer)
    plain, _ = layer(x)
    layer.dropout = 1.0
    assert torch.equal(layer.eval()(x)[0], plain)
    # With everything dropped, the second layer sees zeros whatever the input is.
    dropped, (h_n, _) = layer.train()(x)
    _, (h_first, _) = layer(-x)
    assert torch.equal(dropped, layer(-x)[0])
    assert not torch.equal(h_n[0], h_first[0])
    assert torch.count_nonzero(dropped) == dropped.numel()  # none after the last layer


def test_dropout_keeps_the_mean_and_drops_its_share() -> None:
    layer = LSTM(1, 1, num_layers=2, dropout=0.25, batch_first=True, backend="reference")
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
        # The second layer's output tells whether the first one's unit was dropped.
        layer.bias_ih_l0.fill_(2.0)
        layer.weight_ih_l1.copy_(torch.tensor([[0.0], [0.0], [1.0], [0.0]]))
        alive = layer.train()(torch.zeros(4000, 1, 1))[0].flatten()
    assert (alive == 0).float().mean() == pytest.approx(0.25, abs=0.03)
    unit = torch.tanh(torch.tensor(2.0)) * 0.8807970779778823  # sigmoid(2)
    unit = 0.8807970779778823 * torch.tanh(unit)
    expected = 0.5 * torch.tanh(0.5 * torch.tanh(unit / 0.75))
    assert_equal(alive[alive != 0], expected.expand(int((alive != 0).sum())), 1e-6)


def test_dropout_of_one_layer_does_nothing() -> None:
    layer = layer_of("native", num_layers=1, batch_first=True)
    x = random_input(layer)
    plain, _ = layer(x)
    layer.dropout = 1.0
    assert torch.equal(layer.train()(x)[0], plain)


@pytest.fixture
def _unsaid() -> Iterator[None]:
    """The choice is logged once a process; start as a fresh one does."""
    lstm_module._announce.cache_clear()
    yield
    lstm_module._announce.cache_clear()


@pytest.mark.usefixtures("_unsaid")
def test_auto_chooses_at_the_first_forward_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="asr")
    layer = LSTM(INPUT, HIDDEN)
    assert layer.backend == "auto"
    layer(torch.zeros(2, 1, INPUT))
    assert layer.backend == "fused_cpu"
    assert [record.getMessage() for record in caplog.records] == [
        "LSTM cell lstm, backend fused_cpu: compiled for this CPU, skips padding"
    ]


@pytest.mark.usefixtures("_unsaid")
def test_a_backend_by_name_is_kept_and_needs_no_word(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="asr")
    layer = LSTM(INPUT, HIDDEN, backend="reference")
    layer(torch.zeros(2, 1, INPUT))
    assert layer.backend == "reference"
    assert not caplog.records


def test_the_backend_by_name_is_the_one_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def unavailable(*_: object) -> tuple[Tensor, Tensor, Tensor]:
        raise RuntimeError("this backend ran")

    monkeypatch.setattr(reference, "run", unavailable)
    with pytest.raises(RuntimeError, match="this backend ran"):
        LSTM(INPUT, HIDDEN, backend="reference")(torch.zeros(2, 1, INPUT))
    LSTM(INPUT, HIDDEN, backend="native")(torch.zeros(2, 1, INPUT))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"backend": "cudnn"},
            "backend 'cudnn', expected one of auto, reference, native, fused_cpu, fused_triton",
        ),
        ({"dropout": 1.5}, "dropout 1.5, expected 0 to 1"),
        ({"dropout": -0.1}, "dropout -0.1, expected 0 to 1"),
        ({"num_layers": 0}, "num_layers 0, expected 1 or more"),
        ({"hidden_size": 0}, "hidden_size 0, expected 1 or more"),
        ({"input_size": 0}, "input_size 0, expected 1 or more"),
    ],
)
def test_arguments_that_make_no_sense(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LSTM(**{"input_size": INPUT, "hidden_size": HIDDEN, **arguments})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([3, 3, 3], r"lengths of shape \(3,\), expected \(2,\)"),
        ([3, 4], "lengths from 3 to 4, expected 0 to T = 3 frames"),
        ([-1, 3], "lengths from -1 to 3, expected 0 to T = 3 frames"),
    ],
)
def test_lengths_that_do_not_fit(lengths: list[int], message: str) -> None:
    layer = LSTM(INPUT, HIDDEN, batch_first=True)
    with pytest.raises(ValueError, match=message):
        layer(torch.zeros(2, 3, INPUT), lengths=torch.tensor(lengths))


@pytest.mark.parametrize("shape", [(2, INPUT), (2, 3, INPUT + 1), (2, 0, INPUT), (0, 3, INPUT)])
def test_an_input_of_another_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"input of shape .*, expected batch, frames and 3 values"):
        LSTM(INPUT, HIDDEN, batch_first=True)(torch.zeros(shape))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("h_shape", "c_shape", "message"),
    [
        ((2, 1, HIDDEN), (2, 2, HIDDEN), r"h_0 of shape \(2, 1, 5\), expected \(2, 2, 5\)"),
        ((2, 2, HIDDEN), (3, 2, HIDDEN), r"c_0 of shape \(3, 2, 5\), expected \(2, 2, 5\)"),
    ],
)
def test_a_state_of_another_shape(
    backend: str, h_shape: tuple[int, ...], c_shape: tuple[int, ...], message: str
) -> None:
    layer = LSTM(INPUT, HIDDEN, bidirectional=True, batch_first=True, backend=backend)
    with pytest.raises(ValueError, match=message):
        layer(torch.zeros(2, 3, INPUT), (torch.zeros(h_shape), torch.zeros(c_shape)))


@pytest.mark.parametrize("coupled", [False, True])
def test_a_forget_bias_lets_c_stay_longer(coupled: bool) -> None:
    layers = []
    for bias in (0.0, 2.0):
        torch.manual_seed(1)
        layers.append(LSTM(INPUT, HIDDEN, num_layers=2, coupled_gates=coupled, forget_bias=bias))
    for (name, plain), (_, biased) in zip(*(x.named_parameters() for x in layers), strict=True):
        added = torch.zeros_like(plain)
        if name.startswith("bias_ih"):
            forget = 0 if coupled else 1  # its place among the gates
            added.unflatten(0, (-1, HIDDEN))[forget] = 2.0
        assert torch.equal(plain + added, biased), name
    # Without input and output there is the forget gate alone: c shrinks by it at every frame.
    for layer, bias in zip(layers, (0.0, 2.0), strict=True):
        for name, parameter in layer.named_parameters():
            if name.startswith("weight"):
                torch.nn.init.zeros_(parameter)
            elif name.startswith("bias"):
                parameter.data.copy_(torch.where(parameter > 1, bias, 0.0))
        zeros = torch.zeros(2, 1, HIDDEN)
        _, (_, c_n) = layer(torch.zeros(3, 1, INPUT), (zeros, zeros + 1))
        assert_equal(c_n, torch.full_like(c_n, torch.tensor(bias).sigmoid().item() ** 3), 1e-6)


@pytest.mark.parametrize(("forget_bias", "bias"), [(float("nan"), True), (1.0, False)])
def test_a_forget_bias_that_cannot_be(forget_bias: float, bias: bool) -> None:
    with pytest.raises(ValueError, match=f"forget_bias {forget_bias} with bias={bias}"):
        LSTM(INPUT, HIDDEN, bias=bias, forget_bias=forget_bias)


# torch's tracer makes an instance of every autograd function that it meets.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("backend", ["native", "fused_cpu", "autograd_function"])
def test_compiles_to_one_graph(backend: str) -> None:
    layer = layer_of(backend, batch_first=True, bidirectional=True)
    x, state, lengths = random_input(layer), random_state(layer), torch.tensor([6, 2, 0, 5])
    expected = forward_and_gradients(layer, x, state, lengths=lengths)
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    found = forward_and_gradients(compiled, x, state, lengths=lengths)
    for name, value in expected.items():
        assert_equal(
            found[
                name.replace("of weight", "of _orig_mod.weight").replace(
                    "of bias", "of _orig_mod.bias"
                )
            ],
            value,
            1e-12,
        )
    with pytest.raises(RuntimeError, match="expected 0 to T = 6 frames"):
        compiled(x, lengths=torch.tensor([7, 1, 1, 1]))
