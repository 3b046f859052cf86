"""The training state: everything comes back, and a state of something else is refused."""

from __future__ import annotations

import errno
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from asr.trainer.state import STATE_VERSION, Progress, Stateful, load_state, save_state

PROGRESS = Progress(
    epoch=3, group=7, step=55, validations=3, best_wer=0.125, best_cer=0.0625, best_step=40,
    since_best=2, audio_s=1234.5, elapsed_s=99.5, train_s=88.25,
)  # fmt: skip
PLAN = "0123456789abcdef"


def trained(width: int = 3, steps: int = 2) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A model with moments and running statistics that are not their first ones."""
    torch.manual_seed(70)
    model = nn.Sequential(nn.Linear(width, 2), nn.BatchNorm1d(2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for _ in range(steps):
        model(torch.randn(5, width)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, optimizer


def parts(width: int = 3, steps: int = 2) -> dict[str, Stateful]:
    model, optimizer = trained(width, steps)
    return {"model": model, "optimizer": optimizer}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "state.pt"
    save_state(path, PROGRESS, parts(), PLAN)
    return path


def test_everything_comes_back(path: Path) -> None:
    model, optimizer = trained(steps=0)
    assert load_state(path, {"model": model, "optimizer": optimizer}, PLAN) == PROGRESS
    expected_model, expected_optimizer = trained()
    for name, value in expected_model.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    for _ in range(2):  # moments and step counts too: the next steps are the same
        for one, other in ((model, optimizer), (expected_model, expected_optimizer)):
            one(torch.ones(5, 3).cumsum(0)).square().sum().backward()
            other.step()
            other.zero_grad()
    for name, value in expected_model.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


def refusal(path: Path, plan: str = PLAN, width: int = 3) -> str:
    with pytest.raises(ValueError, match=r".") as caught:
        load_state(path, parts(width, steps=0), plan)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


def test_another_plan(path: Path) -> None:
    message = refusal(path, plan="fedcba9876543210")
    assert "saved by a training on other data or settings (plan 0123456789ab)" in message
    assert "expected plan fedcba987654" in message


def test_another_model(path: Path) -> None:
    assert "does not fit this model" in refusal(path, width=4)


def test_another_version(path: Path) -> None:
    content = torch.load(path, weights_only=True)
    torch.save(content | {"version": STATE_VERSION + 1}, path)
    assert f"training state version {STATE_VERSION + 1}, expected {STATE_VERSION}" in refusal(path)


@pytest.mark.parametrize(
    "share",
    [0.0, 0.01, 0.5, 0.99],
)
def test_a_file_cut_short(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert "damaged training state" in refusal(path)


def test_files_of_another_kind(path: Path) -> None:
    path.write_text("no state")
    assert "damaged training state" in refusal(path)
    torch.save([1, 2, 3], path)
    assert "damaged training state" in refusal(path)


class Canary:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.mark,)


def test_a_hostile_file_runs_no_code(path: Path, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    content = torch.load(path, weights_only=True)
    torch.save(content | {"extra": Canary(mark)}, path)
    assert "damaged training state" in refusal(path)
    path.write_bytes(pickle.dumps(Canary(mark)))
    assert "damaged training state" in refusal(path)
    assert not mark.exists()


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"gone\.pt"):
        load_state(tmp_path / "gone.pt", parts(steps=0), PLAN)


@pytest.mark.parametrize("function", ["replace", "fsync"])
def test_a_former_state_survives_a_full_disk(
    path: Path, function: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    former = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, function, full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        save_state(path, Progress(step=99), parts(), PLAN)
    monkeypatch.undo()
    assert caught.value.filename == str(path)
    assert path.read_bytes() == former
    assert list(path.parent.iterdir()) == [path]
