"""Check 28: what was wrong in silence, or ended the process, is one line."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from asr.trainer.state import Progress
from tests.reliability.driver import recipe
from tests.trainer.fitting import trainer_of

Survived = Callable[[str, int, int], None]
STATES = 30  # mutants


# --- states -------------------------------------------------------------------------------------


def places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where in a state something stands that a resume depends on, as keys from the top."""
    if path and path[-1] not in ("settings", "surroundings", "window"):
        yield path
    if isinstance(tree, dict):
        for key, value in tree.items():
            if path[-1:] not in (("settings",), ("surroundings",)):
                yield from places(value, (*path, key))
    elif isinstance(tree, list) and path[-1] == "param_groups":
        for number in range(len(tree)):
            yield (*path, number, "params")


def mutations(value: Any) -> list[Any]:
    """Values of another shape or kind."""
    if isinstance(value, Tensor):
        return [
            value.new_zeros(()) if value.ndim else value.new_zeros(3),
            value.new_zeros((*value.shape, 1)), value.new_zeros(1 << 20), value.double(),
            value.new_zeros(0), value.to("meta"), torch.zeros(1).expand(1 << 40), 3, None, "x",
        ]  # fmt: skip
    if isinstance(value, bool | int | float):
        return ["3", None, -5, True, [], torch.zeros(2), 10**30, float("nan")]
    return [None, 3, "\x1b[31m", [], torch.zeros(3)]


def mutant(content: bytes, generator: np.random.Generator) -> tuple[str, bytes]:
    """A state with one thing changed, and what it is."""
    state = torch.load(io.BytesIO(content), weights_only=True)
    known = sorted(places(state), key=repr)
    *above, key = path = known[generator.integers(len(known))]
    holder = state
    for name in above:
        holder = holder[name]
    if generator.random() < 0.2 and isinstance(holder, dict):
        what = "gone"
        del holder[key]
    else:
        choices = mutations(holder[key])
        what = str(number := int(generator.integers(len(choices))))
        holder[key] = choices[number]
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return f"{'.'.join(map(str, path))} ({what})", buffer.getvalue()


@pytest.mark.slow
def test_no_state_of_another_shape_reaches_torch(
    corpus: Callable[..., Path], tmp_path: Path, seed: int, survived: Survived
) -> None:
    spec = {"train": str(corpus(60)), "dev": str(corpus(6, "dev"))}
    (tmp_path / "run").mkdir()
    trainer_of(max_epochs=1, scan_memory=False, keep_states=1).fit(recipe(spec), tmp_path / "run")
    generator = np.random.default_rng(seed)
    good = 0
    for number in range(STATES):
        folder = tmp_path / f"case{number}"
        shutil.copytree(tmp_path / "run", folder)
        (path,) = (folder / "state").glob("*.pt")
        what, content = mutant(path.read_bytes(), generator)
        path.write_bytes(content)
        index = json.loads((folder / "state" / "index.json").read_text())
        index["states"][0] |= {
            "size": len(content), "sha256": hashlib.sha256(content).hexdigest(),
        }  # fmt: skip
        (folder / "state" / "index.json").write_text(json.dumps(index))
        outcome = gone_on(folder, spec)
        fine = isinstance(outcome, str) and "\n" not in outcome and str(folder) in outcome
        assert fine, (what, outcome)
        good += fine
        shutil.rmtree(folder)
    survived("states of other shapes and kinds", good, STATES)


def gone_on(folder: Path, spec: dict[str, str]) -> Progress | str:
    """Where a training ends that goes on, or why it does not."""
    trainer = trainer_of(max_epochs=2, scan_memory=False)
    try:
        return trainer.fit(recipe(spec), folder, resume=True)
    except ValueError as error:
        return str(error)


@pytest.mark.parametrize("entry", ["window", "group"])
def test_no_place_beyond_the_data_is_gone_on_from(
    corpus: Callable[..., Path], tmp_path: Path, entry: str
) -> None:
    spec = {"train": str(corpus(60)), "dev": str(corpus(6, "dev"))}
    trainer_of(max_epochs=1, scan_memory=False, keep_states=1).fit(recipe(spec), tmp_path)
    (path,) = (tmp_path / "state").glob("*.pt")
    state = torch.load(io.BytesIO(path.read_bytes()), weights_only=True)
    state["progress"][entry] = 10**6
    torch.save(state, path.with_name("999999-step-9.pt"))
    outcome = gone_on(tmp_path, spec)
    assert isinstance(outcome, str)
    assert f" {10**6}" in outcome
    assert "\n" not in outcome
