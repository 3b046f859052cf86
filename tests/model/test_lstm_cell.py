"""Every cell against equations written here in NumPy, gate by gate, and each option's meaning; the
plain cell beside those of Keras and Flax, which keep their gates in orders of their own.
"""

from __future__ import annotations

import importlib.util
import itertools
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from asr.model.lstm import LSTM
from asr.model.lstm_cell import CELLS
from tests.model.layers import (
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

Array = NDArray[np.float64]
RAGGED = torch.tensor([6, 1, 4, 2])
PROJECTION = 3


def cell_layer(cell: str, backend: str = "reference", **arguments: Any) -> LSTM:
    proj_size = PROJECTION if cell == "projection" else 0
    return layer_of(backend, cell=cell, proj_size=proj_size, batch_first=True, **arguments)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(21)


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def normed(x: Array, gain: Array) -> Array:
    """Over the whole vector, with the biased variance."""
    return gain * (x - x.mean()) / np.sqrt(((x - x.mean()) ** 2).mean() + 1e-5)


class NumpyCell:
    """One direction of one layer, each gate with matrices of its own.

    Args:
        cell: its name.
        weights: parameters of the direction by name, without the suffix.
        coupled: whether i = 1 - f.
    """

    def __init__(self, cell: str, weights: dict[str, Array], coupled: bool) -> None:
        self.cell = cell
        self.weights = weights
        self.names = "fgo" if coupled else "ifgo"
        self.units = len(weights["weight_ih"]) // len(self.names)

    def _sum(self, gate: str, frame: Array, recurrent: Array) -> Array:
        w = self.weights
        of_input, of_state = w["weight_ih"] @ frame, w["weight_hh"] @ recurrent
        if self.cell == "layer_norm":
            of_input, of_state = normed(of_input, w["norm_ih"]), normed(of_state, w["norm_hh"])
        total = of_input + of_state
        for bias in ("bias_ih", "bias_hh"):
            if bias in w:
                total = total + w[bias]
        start = self.names.index(gate) * self.units
        return total[start : start + self.units]

    def _peephole(self, gate: str, c: Array) -> Array | float:
        if self.cell != "peephole":
            return 0.0
        return self.weights["weight_ch"][self.names.replace("g", "").index(gate)] * c

    def step(self, frame: Array, h: Array, c: Array, mask: Array | float) -> tuple[Array, Array]:
        recurrent = mask * (c if self.cell == "cell_recurrent" else h)
        f = sigmoid(self._sum("f", frame, recurrent) + self._peephole("f", c))
        if "i" in self.names:
            i = sigmoid(self._sum("i", frame, recurrent) + self._peephole("i", c))
        else:
            i = 1 - f
        after = f * c + i * np.tanh(self._sum("g", frame, recurrent))
        o = sigmoid(self._sum("o", frame, recurrent) + self._peephole("o", after))
        seen = after
        if self.cell == "layer_norm":
            seen = normed(after, self.weights["norm_c"]) + self.weights["bias_c"]
        h = o * np.tanh(seen)
        if self.cell == "projection":
            h = self.weights["weight_hr"] @ h
        return h, after

    def run(self, frames: Array, h: Array, c: Array) -> tuple[Array, Array, Array]:
        """Outputs `(T, R)`, h_n and c_n of one sequence `(T, in)`."""
        outputs = []
        for frame in frames:
            h, c = self.step(frame, h, c, 1.0)
            outputs.append(h)
        return np.array(outputs), h, c


def numpy_cell(layer: LSTM, suffix: str) -> NumpyCell:
    weights = {
        name: value.detach().numpy()
        for name, value in layer.weights(suffix)._asdict().items()
        if value is not None
    }
    return NumpyCell(layer.cell, weights, layer.coupled_gates)


@pytest.mark.parametrize("coupled", [False, True])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("cell", CELLS)
def test_equals_numpy_on_ragged_lengths(cell: str, coupled: bool, bias: bool) -> None:
    layer = cell_layer(cell, num_layers=2, bidirectional=True, coupled_gates=coupled, bias=bias)
    x = random_input(layer)
    h_0, c_0 = random_state(layer)
    output, (h_n, c_n) = layer(x, (h_0, c_0), lengths=RAGGED)
    for row, length in enumerate(RAGGED.tolist()):
        frames = x[row, :length].numpy()
        for index in range(2):
            found = []
            for direction, suffix in enumerate((f"l{index}", f"l{index}_reverse")):
                place = 2 * index + direction
                state = h_0[place, row].numpy(), c_0[place, row].numpy()
                ordered = frames[::-1] if direction else frames
                outputs, h, c = numpy_cell(layer, suffix).run(ordered, *state)
                np.testing.assert_allclose(h_n[place, row].detach(), h, atol=1e-12)
                np.testing.assert_allclose(c_n[place, row].detach(), c, atol=1e-12)
                found.append(outputs[::-1] if direction else outputs)
            frames = np.concatenate(found, axis=1)
        np.testing.assert_allclose(output[row, :length].detach(), frames, atol=1e-12)


def test_the_design_documents_cell_written_out() -> None:
    """Every gate and the candidate read the previous cell state, none the previous output."""
    layer = cell_layer("cell_recurrent")
    w_i, w_f, w_c, w_o = layer.weight_ih_l0.chunk(4)
    u_i, u_f, u_c, u_o = layer.weight_hh_l0.chunk(4)
    b_ix, b_fx, b_cx, b_ox = layer.bias_ih_l0.chunk(4)
    b_ic, b_fc, b_cc, b_oc = layer.bias_hh_l0.chunk(4)
    x = random_input(layer)
    output, _ = layer(x)
    c = torch.zeros(BATCH, HIDDEN).double()
    for t in range(FRAMES):
        frame = x[:, t]
        i = torch.sigmoid(frame @ w_i.T + b_ix + c @ u_i.T + b_ic)
        f = torch.sigmoid(frame @ w_f.T + b_fx + c @ u_f.T + b_fc)
        o = torch.sigmoid(frame @ w_o.T + b_ox + c @ u_o.T + b_oc)
        candidate = torch.tanh(frame @ w_c.T + b_cx + c @ u_c.T + b_cc)
        c = f * c + i * candidate
        assert_equal(output[:, t], o * torch.tanh(c), 1e-12)


LAYOUTS = list(itertools.product((1, 2), (False, True), (False, True)))


@pytest.mark.parametrize(("num_layers", "bias", "bidirectional"), LAYOUTS)
@pytest.mark.parametrize("backend", ["reference", "native"])
def test_a_projection_is_torchs(
    backend: str, num_layers: int, bias: bool, bidirectional: bool
) -> None:
    layer = layer_of(
        backend, num_layers=num_layers, bias=bias, bidirectional=bidirectional, batch_first=True,
        proj_size=PROJECTION,
    )  # fmt: skip
    assert layer.cell == "projection"
    x, (h_0, c_0) = random_input(layer).requires_grad_(), random_state(layer)
    output, (h_n, c_n) = layer(x, (h_0, c_0), lengths=RAGGED)
    twin = torch_twin(layer)
    for row, length in enumerate(RAGGED.tolist()):
        state = (h_0[:, row : row + 1].contiguous(), c_0[:, row : row + 1].contiguous())
        expected, (h, c) = twin(alone(x, row, length), state)
        assert_equal(alone(output, row, length), expected, 1e-12)
        assert_equal(h_n[:, row : row + 1], h, 1e-12)
        assert_equal(c_n[:, row : row + 1], c, 1e-12)
        weight = torch.randn(expected.shape).double()
        leaves, twins = ([x, *net.parameters()] for net in (layer, twin))
        found = torch.autograd.grad(
            (alone(output, row, length) * weight).sum(), leaves, retain_graph=True
        )
        for value, other in zip(
            found, torch.autograd.grad((expected * weight).sum(), twins), strict=True
        ):
            assert_equal(value, other, 1e-11)


@pytest.mark.parametrize("coupled", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_gradcheck(cell: str, coupled: bool) -> None:
    layer = cell_layer(
        cell, bidirectional=True, coupled_gates=coupled, recurrent_dropout=0.5, zoneout=0.3
    )
    lengths = torch.tensor([3, 1])
    x = torch.randn(2, 3, INPUT).double().requires_grad_()
    h_0, c_0 = (value.requires_grad_() for value in random_state(layer, batch=2))

    def run(x: Tensor, h_0: Tensor, c_0: Tensor, *_: Tensor) -> tuple[Tensor, ...]:
        torch.manual_seed(3)  # the same draws each time
        output, (h_n, c_n) = layer(x, (h_0, c_0), lengths=lengths)
        return output, h_n, c_n

    assert torch.autograd.gradcheck(run, (x, h_0, c_0, *layer.parameters()), fast_mode=True)


OPTIONS: list[dict[str, Any]] = [
    {},
    {"coupled_gates": True},
    {"bias": False},
    {"recurrent_dropout": 0.5},
    {"zoneout": 0.3},
    {"coupled_gates": True, "recurrent_dropout": 0.3, "zoneout": 0.2, "num_layers": 2},
]


@pytest.mark.parametrize("lengths", [[6, 6, 6, 6], [5, 1, 3, 0]])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("cell", CELLS)
def test_fused_cpu_equals_the_reference(
    cell: str, options: dict[str, Any], bidirectional: bool, lengths: list[int]
) -> None:
    reference = cell_layer(cell, bidirectional=bidirectional, **options)
    x, state = random_input(reference), random_state(reference)
    arguments = {"lengths": torch.tensor(lengths)}
    for training in (True, False):
        reference.train(training)
        twin = twin_of(reference, "fused_cpu").train(training)
        torch.manual_seed(4)
        expected = forward_and_gradients(reference, x, state, **arguments)
        torch.manual_seed(4)  # the same draws
        found = forward_and_gradients(twin, x, state, **arguments)
        for name, value in expected.items():
            assert_equal(found[name], value, 1e-10)


@pytest.mark.parametrize("cell", CELLS)
def test_recurrent_dropout_drops_the_same_units_of_a_sequence_at_all_times(cell: str) -> None:
    # Two frames: what the second reads of the first's state tells the mask.
    layer = cell_layer(cell, recurrent_dropout=0.5)
    plain = cell_layer(cell)
    plain.load_state_dict(layer.state_dict())
    x = random_input(layer)
    torch.manual_seed(1)
    output, _ = layer(x)
    torch.manual_seed(1)
    mask = layer.draw_masks(x).recurrent
    assert mask is not None
    assert set(mask.unique().tolist()) == {0.0, 2.0}
    assert len({tuple(row) for row in mask.tolist()}) > 1  # each sequence its own
    for row in range(BATCH):
        h, c = np.zeros(layer.recurrent_size), np.zeros(HIDDEN)
        twin = numpy_cell(layer, "l0")
        for t in range(FRAMES):
            h, c = twin.step(x[row, t].numpy(), h, c, mask[row].numpy())
            np.testing.assert_allclose(output[row, t].detach(), h, atol=1e-12)
    assert_equal(layer.eval()(x)[0], plain(x)[0], 0.0)  # and none in evaluation


@pytest.mark.parametrize("cell", CELLS)
def test_zoneout_keeps_units_in_training_and_mixes_in_evaluation(cell: str) -> None:
    layer = cell_layer(cell, zoneout=0.25)
    x = random_input(layer)
    torch.manual_seed(2)
    output, _ = layer(x)
    torch.manual_seed(2)
    masks = layer.draw_masks(x)
    assert masks.zone_h is not None
    assert masks.zone_c is not None
    for zone in (masks.zone_h, masks.zone_c):
        assert set(zone.unique().tolist()) == {0.0, 1.0}
        assert zone.mean().item() == pytest.approx(0.25, abs=0.15)
    zones = masks.zone_h.numpy(), masks.zone_c.numpy()
    _check_zoneout(layer, x, output, *zones)
    _check_zoneout(layer.eval(), x, layer(x)[0], *(np.full_like(zone, 0.25) for zone in zones))


def _check_zoneout(layer: LSTM, x: Tensor, output: Tensor, zone_h: Array, zone_c: Array) -> None:
    twin = numpy_cell(layer, "l0")
    for row in range(BATCH):
        h, c = np.zeros(layer.recurrent_size), np.zeros(HIDDEN)
        for t in range(FRAMES):
            h_new, c_new = twin.step(x[row, t].numpy(), h, c, 1.0)
            h = zone_h[row, t] * h + (1 - zone_h[row, t]) * h_new
            c = zone_c[row, t] * c + (1 - zone_c[row, t]) * c_new
            np.testing.assert_allclose(output[row, t].detach(), h, atol=1e-12)


@pytest.mark.parametrize("cell", CELLS)
def test_a_zoneout_of_one_leaves_the_state_as_it_was(cell: str) -> None:
    layer = cell_layer(cell, zoneout=1.0, bidirectional=True)
    h_0, c_0 = random_state(layer)
    output, (h_n, c_n) = layer(random_input(layer), (h_0, c_0), lengths=RAGGED)
    assert torch.equal(h_n, h_0)
    assert torch.equal(c_n, c_0)
    assert torch.equal(output[0, 0], h_0[:, 0].flatten())


@pytest.mark.parametrize("junk", [1e6, float("nan")])
@pytest.mark.parametrize("cell", CELLS)
def test_padding_may_hold_anything(cell: str, junk: float) -> None:
    layer = cell_layer(cell, bidirectional=True, num_layers=2, zoneout=0.2).eval()
    x = random_input(layer)
    dirty = x.clone()
    for row, length in enumerate(RAGGED.tolist()):
        dirty[row, length:] = junk
    found, expected = (_gradients(layer, value) for value in (dirty, x))
    for value, other in zip(found, expected, strict=True):
        assert torch.equal(value, other)


def _gradients(layer: LSTM, x: Tensor) -> list[Tensor]:
    output, (h_n, c_n) = layer(x, lengths=RAGGED)
    total = output.square().sum() + h_n.square().sum() + c_n.square().sum()
    return [output, h_n, c_n, *torch.autograd.grad(total, list(layer.parameters()))]


@pytest.mark.parametrize("cell", CELLS)
def test_coupled_gates_are_the_full_cell_whose_input_gate_is_the_rest(cell: str) -> None:
    # i = 1 - f = sigma(-sum of f): a full cell with the forget gate's rows, negated, as input gate.
    if cell == "layer_norm":
        pytest.skip("its norms run over all gates together, of which there are fewer here")
    coupled = cell_layer(cell, coupled_gates=True)
    full = cell_layer(cell)
    state = {
        name: value if name in ("weight_hr_l0",) else torch.cat((-value[: rows_of_f(name)], value))
        for name, value in coupled.state_dict().items()
    }
    full.load_state_dict(state)
    x, h_and_c = random_input(coupled), random_state(coupled)
    found, expected = (layer(x, h_and_c, lengths=RAGGED) for layer in (coupled, full))
    assert_equal(found[0], expected[0], 1e-12)
    assert_equal(found[1][1], expected[1][1], 1e-12)


def rows_of_f(name: str) -> int:
    return 1 if name.startswith("weight_ch") else HIDDEN


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cell": "gru"}, "cell 'gru', expected one of lstm, cell_recurrent, peephole"),
        ({"cell": "projection"}, "proj_size 0, expected 1 to 4, below the units"),
        ({"proj_size": 5}, "proj_size 5, expected 1 to 4, below the units"),
        ({"cell": "peephole", "proj_size": 2}, "proj_size 2 with cell peephole, expected 0"),
        ({"zoneout": 1.5}, "zoneout 1.5, expected 0 to 1"),
        ({"recurrent_dropout": -1}, "recurrent_dropout -1, expected 0 to 1"),
    ],
)
def test_options_that_make_no_sense(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LSTM(INPUT, HIDDEN, **arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        {"cell": "cell_recurrent"},
        {"cell": "peephole"},
        {"cell": "layer_norm"},
        {"coupled_gates": True},
        {"zoneout": 0.1},
        {"recurrent_dropout": 0.1},
    ],
)
def test_a_backend_that_cannot_serve_is_refused_by_name_and_passed_over_by_auto(
    arguments: dict[str, Any],
) -> None:
    layer = LSTM(INPUT, HIDDEN, backend="native", **arguments)
    with pytest.raises(ValueError, match="LSTM backend native: torch's kernel"):
        layer(torch.zeros(2, 1, INPUT))
    free = LSTM(INPUT, HIDDEN, **arguments)
    free(torch.zeros(2, 1, INPUT))
    assert free.backend not in ("auto", "native")


def test_extra_parameters_start_neutral() -> None:
    layer = LSTM(8, 64, cell="layer_norm")
    for name in ("norm_ih_l0", "norm_hh_l0", "norm_c_l0"):
        assert torch.equal(layer.get_parameter(name), torch.ones_like(layer.get_parameter(name)))
    assert not layer.get_parameter("bias_c_l0").any()
    peepholes = LSTM(8, 64, cell="peephole").weight_ch_l0
    assert isinstance(peepholes, nn.Parameter)
    assert peepholes.abs().max() <= 1 / 8


@pytest.fixture
def layer() -> LSTM:
    torch.manual_seed(30)
    return layer_of("reference", batch_first=True)


def gates_of(layer: LSTM, name: str) -> dict[str, Array]:
    """A parameter's part for each gate, transposed where it is a matrix: `(in or H, H)`."""
    parts = getattr(layer, f"{name}_l0").detach().chunk(4)
    return {gate: part.numpy().T for gate, part in zip("ifgo", parts, strict=True)}


def values_of(layer: LSTM) -> tuple[Tensor, Tensor, dict[str, Array]]:
    """Input, weights of the output, and what the layer makes of them: values and gradients."""
    x = torch.randn(BATCH, FRAMES, INPUT, dtype=torch.float64)
    weighting = torch.randn(BATCH, FRAMES, HIDDEN, dtype=torch.float64)
    leaf = x.clone().requires_grad_()
    output, (h_n, c_n) = layer(leaf)
    total = (output * weighting).sum() + c_n.square().sum()
    names = ("x", "weight_ih", "weight_hh")
    leaves = [leaf, layer.weight_ih_l0, layer.weight_hh_l0]
    gradients = torch.autograd.grad(total, leaves)
    values = {"output": output, "h_n": h_n[0], "c_n": c_n[0]}
    values |= dict(zip(names, gradients, strict=True))
    return x, weighting, {name: value.detach().numpy() for name, value in values.items()}


def assert_all_equal(found: dict[str, Any], expected: dict[str, Array]) -> None:
    for name, value in expected.items():
        np.testing.assert_allclose(np.asarray(found[name]), value, atol=1e-12, rtol=1e-12)


def test_equals_keras(layer: LSTM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras")
    x, weighting, expected = values_of(layer)
    theirs = keras.layers.LSTM(HIDDEN, return_sequences=True, return_state=True, dtype="float64")
    theirs.build(x.shape)
    ih, hh = gates_of(layer, "weight_ih"), gates_of(layer, "weight_hh")
    bias = (layer.bias_ih_l0 + layer.bias_hh_l0).detach().numpy()
    order = "ifgo"  # Keras calls the candidate c
    theirs.set_weights([np.hstack([part[gate] for gate in order]) for part in (ih, hh)] + [bias])
    leaf = x.clone().requires_grad_()
    output, h_n, c_n = theirs(leaf)
    kernel, recurrent = (variable.value for variable in theirs.trainable_variables[:2])
    total = (output * weighting).sum() + c_n.square().sum()
    d_x, d_kernel, d_recurrent = torch.autograd.grad(total, [leaf, kernel, recurrent])
    found = {
        "output": output.detach(), "h_n": h_n.detach(), "c_n": c_n.detach(), "x": d_x,
        "weight_ih": d_kernel.T, "weight_hh": d_recurrent.T,
    }  # fmt: skip
    assert_all_equal(found, expected)


def flax_layer(parameters: dict[str, Any], x: Array, weighting: Array) -> dict[str, Array]:
    """Values and gradients as in `values_of`, of Flax's layer of the same weights."""
    import jax
    from flax import linen

    jax.config.update("jax_enable_x64", True)
    cell = linen.LSTMCell(HIDDEN, dtype="float64", param_dtype="float64")

    def total(parameters: Any, x: Any) -> Any:
        runner = linen.RNN(cell, return_carry=True)
        (c_n, h_n), output = runner.apply({"params": {"cell": parameters}}, x)
        return (output * weighting).sum() + (c_n**2).sum(), (output, h_n, c_n)

    both = jax.grad(total, argnums=(0, 1), has_aux=True)
    (d_parameters, d_x), (output, h_n, c_n) = both(parameters, x)
    found = {"output": output, "h_n": h_n, "c_n": c_n, "x": d_x}
    for name, letter in (("weight_ih", "i"), ("weight_hh", "h")):
        kernels = [np.asarray(d_parameters[f"{letter}{gate}"]["kernel"]).T for gate in "ifgo"]
        found[name] = np.vstack(kernels)
    return {name: np.asarray(value) for name, value in found.items()}


def test_equals_flax(layer: LSTM) -> None:
    for package in ("jax", "flax"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    x, weighting, expected = values_of(layer)
    ih, hh = gates_of(layer, "weight_ih"), gates_of(layer, "weight_hh")
    biases = [gates_of(layer, name) for name in ("bias_ih", "bias_hh")]
    parameters = {f"i{gate}": {"kernel": ih[gate]} for gate in "ifgo"}
    parameters |= {
        f"h{gate}": {"kernel": hh[gate], "bias": biases[0][gate] + biases[1][gate]}
        for gate in "ifgo"
    }
    # JAX starts threads, after which this process could not be forked by other tests.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        found = pool.submit(flax_layer, parameters, x.numpy(), weighting.numpy()).result()
    assert_all_equal(found, expected)
