"""The LSTM layer against torch.nn.LSTM and against equations written here in NumPy; then what is
around its backends: dropout, the choice of one, arguments that do not fit.

Float64 throughout and weights of order one: a wrong gate order with small weights would pass a
loose tolerance.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from asr.model import lstm as lstm_module
from asr.model.lstm import LSTM
from tests.model.layers import (
    BACKENDS,
    BATCH,
    FRAMES,
    HIDDEN,
    INPUT,
    alone,
    assert_equal,
    forward_and_gradients,
    layer_of,
    random_input,
    random_state,
    torch_twin,
    twin_of,
)

RAGGED = torch.tensor([6, 1, 4, 2])
NAN = float("nan")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(20)


LAYOUTS = list(itertools.product((1, 2, 3), (False, True), (False, True), (False, True)))


@pytest.mark.parametrize(("num_layers", "bias", "bidirectional", "batch_first"), LAYOUTS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_equals_torch_in_values_and_gradients(
    backend: str, num_layers: int, bias: bool, bidirectional: bool, batch_first: bool
) -> None:
    layer = layer_of(
        backend,
        num_layers=num_layers,
        bias=bias,
        bidirectional=bidirectional,
        batch_first=batch_first,
    )
    twin = torch_twin(layer)
    h_0, c_0 = random_state(layer)
    x = random_input(layer)
    found = forward_and_gradients(layer, x, (h_0, c_0))
    expected = forward_and_gradients(twin, x, (h_0, c_0))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert_equal(found[name], value, 1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_state_means_zeros(backend: str) -> None:
    layer = layer_of(backend, bidirectional=True, num_layers=2)
    x = random_input(layer)
    zeros = torch.zeros(4, BATCH, HIDDEN).double()
    output, (h_n, c_n) = layer(x)
    expected, (h_expected, c_expected) = torch_twin(layer)(x, (zeros, zeros))
    assert_equal(output, expected, 1e-12)
    assert_equal(h_n, h_expected, 1e-12)
    assert_equal(c_n, c_expected, 1e-12)


@pytest.mark.parametrize("bias", [True, False])
def test_state_dicts_go_both_ways(bias: bool) -> None:
    ours = LSTM(INPUT, HIDDEN, 2, bias=bias, bidirectional=True)
    theirs = nn.LSTM(INPUT, HIDDEN, 2, bias=bias, bidirectional=True)
    assert {n: p.shape for n, p in ours.state_dict().items()} == {
        n: p.shape for n, p in theirs.state_dict().items()
    }
    theirs.load_state_dict(ours.state_dict())
    fresh = LSTM(INPUT, HIDDEN, 2, bias=bias, bidirectional=True)
    fresh.load_state_dict(theirs.state_dict())
    for name, parameter in ours.named_parameters():
        assert torch.equal(fresh.get_parameter(name), parameter)


def test_initial_weights_are_spread_as_in_torch() -> None:
    bound = 1 / 64**0.5  # torch.nn.LSTM: uniform in +- 1 / sqrt(hidden_size)
    for name, parameter in LSTM(64, 64).named_parameters():
        assert parameter.abs().max() <= bound, name
        assert parameter.std().item() == pytest.approx(bound / 3**0.5, rel=0.1), name


def sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-x))


def numpy_direction(
    x: NDArray[np.float64], weights: dict[str, NDArray[np.float64]], suffix: str
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """One sequence `(T, in)` through one direction: outputs `(T, H)`, h_n and c_n.

    Each gate has its own matrices here, cut out of torch's stack in the order i, f, g, o.
    """
    size = weights[f"weight_hh_{suffix}"].shape[1]
    blocks = {gate: slice(k * size, (k + 1) * size) for k, gate in enumerate("ifgo")}

    def gate(name: str, frame: NDArray[np.float64], h: NDArray[np.float64]) -> NDArray[np.float64]:
        rows = blocks[name]
        return (
            weights[f"weight_ih_{suffix}"][rows] @ frame
            + weights[f"bias_ih_{suffix}"][rows]
            + weights[f"weight_hh_{suffix}"][rows] @ h
            + weights[f"bias_hh_{suffix}"][rows]
        )

    h, c = np.zeros(size), np.zeros(size)
    outputs = []
    for frame in x:
        i, f, o = (sigmoid(gate(name, frame, h)) for name in "ifo")
        c = f * c + i * np.tanh(gate("g", frame, h))
        h = o * np.tanh(c)
        outputs.append(h)
    return np.array(outputs), h, c


@pytest.mark.parametrize("backend", BACKENDS)
def test_equals_numpy_on_ragged_lengths(backend: str) -> None:
    layer = layer_of(backend, num_layers=2, bidirectional=True, batch_first=True)
    weights = {name: value.numpy() for name, value in layer.state_dict().items()}
    x = random_input(layer)
    output, (h_n, c_n) = layer(x, lengths=RAGGED)
    for row, length in enumerate(RAGGED.tolist()):
        frames = x[row, :length].numpy()
        for index in range(2):
            ahead = numpy_direction(frames, weights, f"l{index}")
            back = numpy_direction(frames[::-1], weights, f"l{index}_reverse")
            for direction, (_, h, c) in enumerate((ahead, back)):
                np.testing.assert_allclose(h_n[2 * index + direction, row].detach(), h, atol=1e-12)
                np.testing.assert_allclose(c_n[2 * index + direction, row].detach(), c, atol=1e-12)
            frames = np.concatenate((ahead[0], back[0][::-1]), axis=1)
        np.testing.assert_allclose(output[row, :length].detach(), frames, atol=1e-12)


@pytest.fixture(params=list(itertools.product(BACKENDS, (1, 2), (False, True), (False, True))))
def ragged_layer(request: pytest.FixtureRequest) -> LSTM:
    backend, num_layers, bias, bidirectional = request.param
    return layer_of(
        backend, num_layers=num_layers, bias=bias, bidirectional=bidirectional, batch_first=True
    )


def test_every_row_is_what_torch_makes_of_it_alone(ragged_layer: LSTM) -> None:
    x = random_input(ragged_layer)
    h_0, c_0 = random_state(ragged_layer)
    output, (h_n, c_n) = ragged_layer(x, (h_0, c_0), lengths=RAGGED)
    twin = torch_twin(ragged_layer)
    for row, length in enumerate(RAGGED.tolist()):
        state = (h_0[:, row : row + 1].contiguous(), c_0[:, row : row + 1].contiguous())
        expected, (h_expected, c_expected) = twin(alone(x, row, length), state)
        assert_equal(alone(output, row, length), expected, 1e-12)
        assert_equal(h_n[:, row : row + 1], h_expected, 1e-12)
        assert_equal(c_n[:, row : row + 1], c_expected, 1e-12)
        assert torch.count_nonzero(output[row, length:]) == 0


def test_gradients_are_the_sum_of_those_alone(ragged_layer: LSTM) -> None:
    x = random_input(ragged_layer).requires_grad_()
    h_0, c_0 = random_state(ragged_layer)
    output, (h_n, c_n) = ragged_layer(x, (h_0, c_0), lengths=RAGGED)
    weights = [torch.randn(value.shape).double() for value in (output, h_n, c_n)]
    found = _gradients(ragged_layer, x, (output, h_n, c_n), weights)

    twin = torch_twin(ragged_layer)
    expected = [torch.zeros_like(value) for value in found]
    for row, length in enumerate(RAGGED.tolist()):
        state = (h_0[:, row : row + 1].contiguous(), c_0[:, row : row + 1].contiguous())
        single, (h_n, c_n) = twin(alone(x, row, length), state)
        own = [alone(weights[0], row, length), *(w[:, row : row + 1] for w in weights[1:])]
        for total, part in zip(expected, _gradients(twin, x, (single, h_n, c_n), own), strict=True):
            total += part
    for gradient, value in zip(found, expected, strict=True):
        assert_equal(gradient, value, 1e-11)


def _gradients(
    layer: nn.Module, x: Tensor, outputs: tuple[Tensor, ...], weights: list[Tensor]
) -> list[Tensor]:
    total = sum((o * w).sum() for o, w in zip(outputs, weights, strict=True))
    return list(torch.autograd.grad(total, [x, *layer.parameters()]))  # type: ignore[arg-type]


@pytest.mark.parametrize("lengths", [[6, 6, 6, 6], [6, 1, 4, 2], [5, 3, 3, 1], [0, 2, 0, 6]])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("backend", ["native", "fused_cpu"])
def test_equals_the_reference(backend: str, lengths: list[int], bidirectional: bool) -> None:
    reference = layer_of("reference", num_layers=3, bidirectional=bidirectional, batch_first=True)
    x, state = random_input(reference), random_state(reference)
    arguments = {"lengths": torch.tensor(lengths)}
    found = forward_and_gradients(twin_of(reference, backend), x, state, **arguments)
    expected = forward_and_gradients(reference, x, state, **arguments)
    for name, value in expected.items():
        assert_equal(found[name], value, 1e-10)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_empty_sequence_keeps_its_state_and_gives_zeros(backend: str) -> None:
    layer = layer_of(backend, num_layers=2, bidirectional=True, batch_first=True)
    h_0, c_0 = random_state(layer)
    output, (h_n, c_n) = layer(random_input(layer), (h_0, c_0), lengths=torch.tensor([0, 6, 3, 0]))
    assert torch.count_nonzero(output[[0, 3]]) == 0
    assert torch.equal(h_n[:, [0, 3]], h_0[:, [0, 3]])
    assert torch.equal(c_n[:, [0, 3]], c_0[:, [0, 3]])


@pytest.mark.parametrize("junk", [1e6, float("inf"), NAN])
@pytest.mark.parametrize("backend", BACKENDS)
def test_padding_may_hold_anything(backend: str, junk: float) -> None:
    layer = layer_of(backend, num_layers=2, bidirectional=True, batch_first=True)
    clean = random_input(layer)
    dirty = clean.clone()
    for row, length in enumerate(RAGGED.tolist()):
        clean[row, length:] = 0
        dirty[row, length:] = junk
    state = random_state(layer)
    found = forward_and_gradients(layer, dirty, state, lengths=RAGGED)
    expected = forward_and_gradients(layer, clean, state, lengths=RAGGED)
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


@pytest.mark.parametrize("backend", BACKENDS)
def test_time_first_is_the_same_function(backend: str) -> None:
    layer = layer_of(backend, bidirectional=True, batch_first=True)
    x = random_input(layer)
    output, (h_n, c_n) = layer(x, lengths=RAGGED)
    layer.batch_first = False
    time_first, (h_other, c_other) = layer(x.transpose(0, 1), lengths=RAGGED)
    assert torch.equal(time_first.transpose(0, 1), output)
    assert torch.equal(h_other, h_n)
    assert torch.equal(c_other, c_n)


@pytest.mark.parametrize("backend", BACKENDS)
def test_order_in_the_batch_does_not_matter(backend: str) -> None:
    layer = layer_of(backend, num_layers=2, bidirectional=True, batch_first=True)
    x = random_input(layer)
    order = torch.tensor([2, 0, 3, 1])
    output, (h_n, c_n) = layer(x, lengths=RAGGED)
    shuffled, (h_other, c_other) = layer(x[order], lengths=RAGGED[order])
    assert_equal(shuffled, output[order], 1e-12)
    assert_equal(h_other, h_n[:, order], 1e-12)
    assert_equal(c_other, c_n[:, order], 1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_float32_stays_near_float64(backend: str) -> None:
    layer = LSTM(INPUT, HIDDEN, 2, batch_first=True, bidirectional=True, backend=backend)
    x = torch.randn(BATCH, FRAMES, INPUT)
    exact = twin_of(layer, backend).double()
    output, (_, c_n) = layer(x, lengths=RAGGED)
    expected, (_, c_expected) = exact(x.double(), lengths=RAGGED)
    assert output.dtype == torch.float32
    assert_equal(output.double(), expected, 1e-6)
    assert_equal(c_n.double(), c_expected, 1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradcheck(backend: str) -> None:
    layer = layer_of(backend, num_layers=2, bidirectional=True, batch_first=True)
    lengths = torch.tensor([3, 1])
    x = torch.randn(2, 3, INPUT).double().requires_grad_()
    h_0, c_0 = (value.requires_grad_() for value in random_state(layer, batch=2))

    def run(x: Tensor, h_0: Tensor, c_0: Tensor, *_: Tensor) -> tuple[Tensor, ...]:
        output, (h_n, c_n) = layer(x, (h_0, c_0), lengths=lengths)
        return output, h_n, c_n

    assert torch.autograd.gradcheck(run, (x, h_0, c_0, *layer.parameters()), fast_mode=True)


@pytest.mark.cuda
@pytest.mark.parametrize("lengths", [[6, 6, 6, 6], [6, 1, 4, 2], [0, 2, 0, 6]])
def test_native_on_a_gpu_equals_the_reference_on_the_cpu(lengths: list[int]) -> None:
    reference = layer_of("reference", num_layers=2, bidirectional=True, batch_first=True)
    x, state = random_input(reference), random_state(reference)
    on_gpu = twin_of(reference, "native").cuda()
    gpu_state = (state[0].cuda(), state[1].cuda())
    found = forward_and_gradients(on_gpu, x.cuda(), gpu_state, lengths=torch.tensor(lengths).cuda())
    expected = forward_and_gradients(reference, x, state, lengths=torch.tensor(lengths))
    for name, value in expected.items():
        assert_equal(found[name].cpu(), value, 1e-10)


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
    for told in (lstm_module._announce, lstm_module._warn_of_former_backend):
        told.cache_clear()
    yield
    for told in (lstm_module._announce, lstm_module._warn_of_former_backend):
        told.cache_clear()


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


@pytest.mark.usefixtures("_unsaid")
def test_a_backend_of_older_settings_is_taken_as_auto(caplog: pytest.LogCaptureFixture) -> None:
    layers = [LSTM(INPUT, HIDDEN, backend="autograd_function") for _ in range(3)]
    layers[0](torch.zeros(2, 1, INPUT))
    assert [layer.backend for layer in layers] == ["fused_cpu", "auto", "auto"]
    assert [record.getMessage() for record in caplog.records] == [
        'LSTM backend autograd_function is no more, "auto" takes its place'
    ]


def test_the_backend_by_name_is_the_one_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def unavailable(*_: object) -> tuple[Tensor, Tensor, Tensor]:
        raise RuntimeError("this backend ran")

    monkeypatch.setitem(lstm_module.RUNS, "reference", unavailable)
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
@pytest.mark.parametrize("backend", ["native", "fused_cpu"])
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
