"""The LSTM layer outside speech: the next value of a time series from the ten before it.

    python docs/examples/time_series.py

An LSTM of 50 units reads windows of ten values, a dense layer makes the next value of its last
output, and Adam minimises the mean squared error. Nothing of asr but the layer is used; put
torch.nn.LSTM in its place and the curve is the same.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from asr import LSTM

WINDOW, UNITS, BATCH, EPOCHS = 10, 50, 32, 100


def make_series(length: int = 530, seed: int = 0) -> Tensor:
    """Two waves whose periods do not fit, and a little noise: `(length,)` float64."""
    t = np.arange(length)
    noise = np.random.default_rng(seed).normal(scale=0.05, size=length)
    return torch.from_numpy(np.sin(0.3 * t) + 0.5 * np.sin(0.131 * t + 1) + noise)


def cut_windows(series: Tensor) -> tuple[Tensor, Tensor]:
    """Windows `(N, 10, 1)` and the value after each, `(N, 1)`."""
    windows = series.unfold(0, WINDOW + 1, 1)
    return windows[:, :WINDOW, None], windows[:, WINDOW:]


class Forecaster(nn.Module):
    """A recurrent layer and a dense layer on its last output.

    Args:
        recurrent: gives output `(B, T, units)` and its state, batch first.
        units: width of that output.
    """

    def __init__(self, recurrent: nn.Module, units: int = UNITS) -> None:
        super().__init__()
        self.recurrent = recurrent
        self.dense = nn.Linear(units, 1)

    def forward(self, windows: Tensor) -> Tensor:
        """Windows `(B, T, 1)` to the next values, `(B, 1)`."""
        output, _ = self.recurrent(windows)
        forecast: Tensor = self.dense(output[:, -1])
        return forecast


def train(model: nn.Module, windows: Tensor, values: Tensor, epochs: int = EPOCHS) -> list[float]:
    """Fit; gives the mean squared error of each epoch."""
    optimizer = torch.optim.Adam(model.parameters())
    order = torch.Generator().manual_seed(0)
    curve = []
    for _ in range(epochs):
        total = 0.0
        for rows in torch.randperm(len(windows), generator=order).split(BATCH):
            loss = nn.functional.mse_loss(model(windows[rows]), values[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(rows)
        curve.append(total / len(windows))
    return curve


def main() -> None:
    """Train and show the curve."""
    torch.manual_seed(0)
    windows, values = cut_windows(make_series())
    model = Forecaster(LSTM(1, UNITS, batch_first=True)).double()
    curve = train(model, windows, values)
    for epoch in (1, 2, 5, 10, 20, 50, EPOCHS):
        print(f"epoch {epoch:3}  mean squared error {curve[epoch - 1]:.4f}")


if __name__ == "__main__":
    main()
