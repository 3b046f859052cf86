"""The compiled layer where it differs from the other backends: sizes, threads, torch's registry.

That it equals them in values and gradients is shown in test_lstm.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from asr.model.kernels import memory
from asr.model.kernels.cpu_tile import compiled, tanh
from asr.model.kernels.fused_cpu import to_list
from asr.model.kernels.memory import Pool
from asr.model.lstm import LSTM
from asr.model.lstm_cell import CELLS

LENGTHS = torch.tensor([9, 3, 0, 14, 14, 1, 8, 9, 2, 11, 5, 14, 6])
FRAMES = 16  # two more than the longest has


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    torch.manual_seed(5)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def layer_of(hidden: int, backend: str, dtype: torch.dtype, bidirectional: bool = True) -> LSTM:
    layer = LSTM(7, hidden, batch_first=True, bidirectional=bidirectional, backend=backend)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    return layer.to(dtype)


def run(layer: LSTM, x: Tensor) -> list[Tensor]:
    """Output, final states and the gradients of a random weighting of them."""
    x = x.clone().requires_grad_()
    output, (h_n, c_n) = layer(x, lengths=LENGTHS)
    generator = torch.Generator().manual_seed(1)
    total = sum(
        (value * torch.randn(value.shape, generator=generator)).sum()
        for value in (output, h_n, c_n)
    )
    return [output, h_n, c_n, *torch.autograd.grad(total, [x, *layer.parameters()])]


@pytest.mark.parametrize("hidden", [1, 2, 4, 5, 16, 50, 67])  # whole panels of 16 columns and not
@pytest.mark.parametrize("bidirectional", [False, True])
def test_any_number_of_units(hidden: int, bidirectional: bool) -> None:
    reference = layer_of(hidden, "reference", torch.float64, bidirectional)
    fused = layer_of(hidden, "fused_cpu", torch.float64, bidirectional)
    fused.load_state_dict(reference.state_dict())
    x = torch.randn(len(LENGTHS), FRAMES, 7, dtype=torch.float64)
    for found, expected in zip(run(fused, x), run(reference, x), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


class _FullOfNaN(Pool):
    """What is left in memory, at its worst."""

    def array(self, count: int, dtype: np.dtype[np.generic]) -> np.ndarray:
        array = super().array(count, dtype)
        array.fill(math.nan)
        return array


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("coupled", [False, True])
def test_room_may_hold_anything(cell: str, coupled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = LSTM(
        7, 21, batch_first=True, bidirectional=True, cell=cell, coupled_gates=coupled,
        proj_size=9 if cell == "projection" else 0, backend="fused_cpu",
    ).double()  # fmt: skip
    x = torch.randn(len(LENGTHS), FRAMES, 7, dtype=torch.float64)
    expected = run(layer, x)
    monkeypatch.setattr(memory, "LARGE", 1)
    monkeypatch.setattr(memory, "POOL", _FullOfNaN())
    for found, value in zip(run(layer, x), expected, strict=True):
        assert torch.equal(found, value)
    with torch.no_grad():
        assert torch.isfinite(layer(x, lengths=LENGTHS)[0]).all()


def test_float32_stays_near_float64_where_sums_are_large() -> None:
    exact = layer_of(50, "fused_cpu", torch.float64)
    for parameter in exact.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x = 20 * torch.randn(len(LENGTHS), FRAMES, 7, dtype=torch.float64)
    rough = layer_of(50, "fused_cpu", torch.float32)
    rough.load_state_dict(exact.state_dict())
    for found, expected in zip(run(rough, x.float()), run(exact, x), strict=True):
        scale = float(expected.detach().abs().max())
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=2e-5 * scale)


@pytest.mark.parametrize("threads", [2, 3, 4, 7])
def test_threads_share_the_work_and_change_no_bit_of_the_recurrence(threads: int) -> None:
    layer = layer_of(20, "fused_cpu", torch.float32)
    x = torch.randn(len(LENGTHS), FRAMES, 7)
    torch.set_num_threads(1)
    expected = layer(x, lengths=LENGTHS)[0]
    torch.set_num_threads(threads)
    assert torch.equal(layer(x, lengths=LENGTHS)[0], expected)


def test_without_gradients_the_same_but_for_rounding() -> None:
    layer = layer_of(4, "fused_cpu", torch.float32)
    x = torch.randn(len(LENGTHS), FRAMES, 7)
    with torch.no_grad():
        quiet, _ = layer(x, lengths=LENGTHS)
    output, _ = layer(x, lengths=LENGTHS)
    assert quiet.grad_fn is None
    assert output.grad_fn is not None
    torch.testing.assert_close(quiet, output, atol=1e-6, rtol=0)


def test_a_second_backward_pass_over_the_same_graph() -> None:
    layer = layer_of(4, "fused_cpu", torch.float64)
    output, _ = layer(torch.randn(3, 5, 7, dtype=torch.float64))
    first = torch.autograd.grad(output.square().sum(), layer.weight_hh_l0, retain_graph=True)
    second = torch.autograd.grad(output.square().sum(), layer.weight_hh_l0)
    assert torch.equal(first[0], second[0])


def test_nan_inside_an_utterance_stays_with_it_and_is_not_hidden() -> None:
    layer = layer_of(4, "fused_cpu", torch.float32)
    x = torch.randn(len(LENGTHS), FRAMES, 7)
    expected = layer(x, lengths=LENGTHS)[0]
    x[3, 5] = math.nan
    output = layer(x, lengths=LENGTHS)[0]
    assert output[3, :14].isnan().any(dim=1).all()
    others = [row for row in range(len(LENGTHS)) if row != 3]
    assert torch.equal(output[others], expected[others])


def test_a_wrong_device_or_dtype_is_refused() -> None:
    layer = layer_of(4, "fused_cpu", torch.bfloat16)
    with pytest.raises(ValueError, match=r"fused_cpu: torch\.bfloat16 on cpu, expected"):
        layer(torch.zeros(1, 1, 7, dtype=torch.bfloat16))


def test_half_precision_weights_leave_the_choice_to_torch() -> None:
    layer = layer_of(4, "auto", torch.bfloat16)
    layer(torch.zeros(1, 1, 7, dtype=torch.bfloat16))
    assert layer.backend == "native"


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("cell", CELLS)
def test_torch_knows_its_shapes_and_gradients(cell: str, keep: bool) -> None:
    layer = LSTM(
        7, 5, proj_size=3 if cell == "projection" else 0, cell=cell, bidirectional=True
    ).double()  # fmt: skip
    weights = to_list([layer.weights("l0"), layer.weights("l0_reverse")])
    width = layer.recurrent_size
    sizes = [(3, 5, 7), (2, 3, width), (2, 3, 5), (2, 3, width), (2, 3, 5, width), (2, 3, 5, 5)]
    x, h_0, c_0, *masks = (torch.rand(size, dtype=torch.float64) for size in sizes)
    tensors = [*weights, x, h_0, c_0]
    *weights, x, h_0, c_0 = (tensor.detach().requires_grad_(keep) for tensor in tensors)
    lengths = torch.tensor([5, 2, 0])
    operator = torch.ops.asr.lstm_fused_cpu.default
    arguments = (x, lengths, weights, masks, h_0, c_0, cell == "cell_recurrent", keep)
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(operator, arguments, test_utils=tests)
    output, h_n, c_n, _ = operator(*arguments)
    assert output.shape == (3, 5, 2 * width)
    assert h_n.shape == h_0.shape
    assert c_n.shape == c_0.shape


@compiled
def _tanh_of_all(values):
    for j in range(len(values)):
        values[j] = tanh(values[j])


def test_tanh_in_float32() -> None:
    x = np.concatenate([np.linspace(-12, 12, 100_001), [0.0, -0.0, 1e-30, np.inf, -np.inf, np.nan]])
    found = x.astype(np.float32)
    _tanh_of_all(found)
    expected = np.tanh(x.astype(np.float32).astype(np.float64))
    np.testing.assert_allclose(found, expected, rtol=0, atol=3e-7)
    small = np.abs(x) < 0.1
    np.testing.assert_allclose(found[small], expected[small], rtol=1e-6)
