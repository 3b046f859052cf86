"""The plain cell beside those of Keras and Flax, which keep their gates in orders of their own."""

from __future__ import annotations

import importlib.util
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from asr.model.lstm import LSTM
from tests.model.layers import BATCH, FRAMES, HIDDEN, INPUT, layer_of

Array = NDArray[np.float64]


@pytest.fixture
def layer() -> LSTM:
    torch.manual_seed(30)
    return layer_of("reference", batch_first=True)


def gates_of(layer: LSTM, name: str) -> dict[str, Array]:
    """A parameter's part for each gate, transposed where it is a matrix: `(in or H, H)`."""
    parts = getattr(layer, f"{name}_l0").detach().chunk(4)
    return {gate: part.numpy().T for gate, part in zip("ifgo", parts, strict=True)}


def run(layer: LSTM) -> tuple[Tensor, Tensor, dict[str, Array]]:
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


def assert_equal(found: dict[str, Any], expected: dict[str, Array]) -> None:
    for name, value in expected.items():
        np.testing.assert_allclose(np.asarray(found[name]), value, atol=1e-12, rtol=1e-12)


def test_equals_keras(layer: LSTM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras")
    x, weighting, expected = run(layer)
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
    assert_equal(found, expected)


def flax_layer(parameters: dict[str, Any], x: Array, weighting: Array) -> dict[str, Array]:
    """Values and gradients as in `run`, of Flax's layer of the same weights."""
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
    x, weighting, expected = run(layer)
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
    assert_equal(found, expected)
