"""The documented example: the layer learns a time series, and just as torch's layer does."""

from __future__ import annotations

import importlib.util
from copy import deepcopy
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from asr.model.lstm import LSTM
from asr.model.lstm_cell import CELLS
from tests.model.layers import BACKENDS

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "time_series.py"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("time_series", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_it_learns_along_the_same_curve_as_torchs_layer(example: ModuleType) -> None:
    torch.manual_seed(0)
    windows, values = example.cut_windows(example.make_series())
    model = example.Forecaster(LSTM(1, 50, batch_first=True)).double()
    theirs = nn.LSTM(1, 50, batch_first=True).double()
    theirs.load_state_dict(model.recurrent.state_dict())
    twin = example.Forecaster(theirs).double()
    twin.dense = deepcopy(model.dense)
    curve = example.train(model, windows, values)
    assert curve == pytest.approx(example.train(twin, windows, values), rel=1e-6)
    # The noise, 0.05 ** 2, is what cannot be foreseen; the series' own variance is 0.6.
    assert values.var().item() > 0.5
    assert curve[0] > 0.1
    assert curve[-1] < 0.01


@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "native"])
@pytest.mark.parametrize("cell", [name for name in CELLS if name != "projection"])
def test_every_cell_and_backend_learns_it(example: ModuleType, cell: str, backend: str) -> None:
    torch.manual_seed(1)
    windows, values = example.cut_windows(example.make_series(170))
    layer = LSTM(1, 50, batch_first=True, cell=cell, backend=backend)
    curve = example.train(example.Forecaster(layer).double(), windows, values, epochs=25)
    # Of an input of one feature, the normalised cell sees little more than the sign.
    assert curve[-1] < (0.4 if cell == "layer_norm" else 0.15) * curve[0]
