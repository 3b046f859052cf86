"""The training state: everything comes back, and a state of something else is refused."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from asr.trainer.state import (
    STATE_VERSION,
    Origin,
    Progress,
    Stateful,
    differences,
    pack_state,
    read_state,
    unpack_state,
)

PROGRESS = Progress(
    epoch=3, group=7, step=55, left_out=1, validations=3, best_wer=0.125, best_cer=0.0625,
    best_step=40, since_best=2, audio_s=1234.5, elapsed_s=99.5, train_s=88.25, recent_steps=4,
    recent_loss=2.5, recent_blanks=3.5, recent_clipped=1,
)  # fmt: skip
PLAN = "0123456789abcdef"
SETTINGS = {"optim.lr": "0.1", "trainer.batch_duration_s": "60"}
ORIGIN = Origin("run", PLAN, {"threads": "2", "device": "AVX2"}, "AdamW", SETTINGS)


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


@pytest.fixture(scope="module")
def content() -> bytes:
    return pack_state(PROGRESS, parts(), ORIGIN)


def test_everything_comes_back(content: bytes) -> None:
    model, optimizer = trained(steps=0)
    found = unpack_state(content, {"model": model, "optimizer": optimizer}, ORIGIN, "here")
    assert found == (PROGRESS, ORIGIN)
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


def refusal(content: bytes, now: Origin = ORIGIN, width: int = 3) -> str:
    with pytest.raises(ValueError, match=r"^here: ") as caught:
        unpack_state(content, parts(width, steps=0), now, "here")
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_another_plan(content: bytes) -> None:
    other = replace(ORIGIN, plan="fedcba9876543210")
    message = refusal(content, other)
    assert "saved by a training on other data or settings (plan 0123456789ab)" in message
    assert "expected plan fedcba987654" in message
    assert message.endswith("settings of the run")
    message = refusal(content, replace(other, settings=SETTINGS | {"optim.lr": "0.2"}))
    assert message.endswith("settings of the run; now: optim.lr 0.1 -> 0.2")


def test_another_optimizer(content: bytes) -> None:
    message = refusal(content, replace(ORIGIN, optimizer="SGD"))
    assert "has the moments of AdamW, expected those of SGD" in message


def test_a_state_from_before_optimizer_and_settings_were_kept(content: bytes) -> None:
    state = torch.load(io.BytesIO(content), weights_only=True)
    origin = {name: state["origin"][name] for name in ("run", "plan", "surroundings")}
    _, found = unpack_state(saved_anew(content, origin=origin), parts(), ORIGIN, "here")
    assert found == replace(ORIGIN, optimizer="", settings={})


def test_another_model(content: bytes) -> None:
    assert "does not fit this model" in refusal(content, width=4)


def saved_anew(content: bytes, **changes: object) -> bytes:
    state = torch.load(io.BytesIO(content), weights_only=True)
    buffer = io.BytesIO()
    torch.save(state | changes, buffer)
    return buffer.getvalue()


def test_a_part_that_is_missing(content: bytes) -> None:
    assert "does not fit this model (parts has no model, expected one)" in refusal(
        saved_anew(content, parts={})
    )


@pytest.mark.parametrize(
    ("entry", "change", "expected"),
    [
        ("progress", {"step": "3"}, "here: progress: step is '3', expected a whole number"),
        ("progress", {"step": True}, "here: progress: step is True, expected a whole number"),
        ("progress", {"step": -1}, "here: progress: step is -1, expected 0 to"),
        ("progress", {"step": 1 << 60}, f"here: progress: step is {1 << 60}, expected 0 to"),
        ("progress", {"step": 10**30}, f"here: progress: step is {10**30}, expected a number of"),
        ("progress", {"audio_s": float("inf")}, "here: progress: audio_s is inf, expected 0 to"),
        ("progress", {"best_wer": float("nan")}, "here: progress: best_wer is nan, expected a num"),
        ("progress", {"best_step": 99}, "here: progress: best_step is 99, expected at most step"),
        ("progress", {"steps": 1}, "here: progress: content has 'steps': did you mean step?"),
        ("origin", {"run": 3}, "here: origin: run is 3, expected a text"),
        ("origin", {"settings": {"lr": 0.1}}, "here: origin: settings['lr'] is 0.1, expected a te"),
        ("origin", {"run": torch.ones(1)}, "here: damaged training state (TypeError)"),
    ],
)
def test_progress_and_origin_of_other_types(
    content: bytes, entry: str, change: dict[str, object], expected: str
) -> None:
    state = torch.load(io.BytesIO(content), weights_only=True)
    message = refusal(saved_anew(content, **{entry: state[entry] | change}))
    assert message.startswith(expected)


def test_progress_without_an_entry(content: bytes) -> None:
    progress = dict(torch.load(io.BytesIO(content), weights_only=True)["progress"])
    del progress["window"]  # which the first states of this version did not have
    assert read_state(saved_anew(content, progress=progress), "here")["progress"] == PROGRESS
    del progress["step"]
    assert refusal(saved_anew(content, progress=progress)) == (
        "here: progress: content has no step, expected one"
    )


def test_what_was_packed_is_not_unpacked(content: bytes) -> None:
    packed = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(content)) as source,
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            target.writestr(name, source.read(name))
        target.writestr("archive/data/999", bytes(1 << 20))
    assert refusal(packed.getvalue()) == "here: damaged training state (ValueError)"


def test_another_version(content: bytes) -> None:
    message = refusal(saved_anew(content, version=STATE_VERSION + 1))
    assert f"training state version {STATE_VERSION + 1}, expected {STATE_VERSION}" in message


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_content_cut_short(content: bytes, share: float) -> None:
    assert "damaged training state" in refusal(content[: int(share * len(content))])


def test_content_of_another_kind() -> None:
    assert "damaged training state" in refusal(b"no state")
    buffer = io.BytesIO()
    torch.save([1, 2, 3], buffer)
    assert "damaged training state" in refusal(buffer.getvalue())


class Canary:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.mark,)


def test_hostile_content_runs_no_code(content: bytes, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    assert "damaged training state" in refusal(saved_anew(content, extra=Canary(mark)))
    assert "damaged training state" in refusal(pickle.dumps(Canary(mark)))
    assert not mark.exists()


def test_differences_are_told_by_name_with_old_and_new() -> None:
    was = {"threads": "2", "device": "AVX2"}
    assert differences(was, {"device": "AVX2", "threads": "2"}) == ""
    assert differences(was, {"threads": "4", "torch": "3"}) == (
        "threads 2 -> 4, torch none -> 3, device AVX2 -> none"
    )


def test_what_a_state_says_of_itself(content: bytes) -> None:
    state = read_state(content, "here")
    assert (state["origin"], state["progress"]) == (ORIGIN, PROGRESS)
