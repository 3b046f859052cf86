"""Check 4: asked to stop at any time, all ranks stop at the same step and nothing is lost."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.reliability.driver import STOPPED_STATUS
from tests.reliability.training import Training, descendants

LIMIT_S = 25.0  # torchrun kills after 30
# What the training is at when the signal comes, in how many processes, and who gets it.
MOMENTS = {
    "first batch": ("learning", 1, {}),
    "validation": ("validating", 1, {}),
    "in a save": ("saving", 1, {}),
    "loading workers": ("step", 1, {"num_workers": 2}),
    "one rank only": ("step", 2, {}),
}


@pytest.mark.slow
@pytest.mark.parametrize("again", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1], ids=lambda n: n.name)
@pytest.mark.parametrize("moment", MOMENTS)
def test_it_saves_and_leaves(
    corpus: Callable[..., Path],
    tmp_path: Path,
    survived: Callable[[str, int, int], None],
    moment: str,
    number: signal.Signals,
    again: int,
) -> None:
    event, ranks, settings = MOMENTS[moment]
    training = Training(
        tmp_path / "run", corpus(60), corpus(12, "dev"), ranks=ranks,
        pause={event: 0.2 * again},  # so that the signal falls into it
        settings={"max_epochs": 500, "save_every_steps": 3, "batch_duration_s": 1.45, **settings},
    )  # fmt: skip
    process = training.start()
    told = (2 * again) if event in ("step", "saving") else again
    last = ranks - 1
    training.wait_for(process, lambda: len(training.events(event, last)) >= told)
    workers = descendants(process.pid)
    asked = time.monotonic()
    if ranks == 1:
        for pid in [process.pid, *workers]:  # a scheduler tells every process of the job
            os.kill(pid, number)
    else:
        os.kill(training.events(event, last)[-1]["pid"], number)
    status, output = training.finish(process)
    took_s = time.monotonic() - asked
    steps = (
        [training.events("step", rank)[-1]["step"] for rank in range(ranks)]
        if training.events("step")
        else [0]
    )
    stopped = training.events("stopped")
    state = training.state().progress
    checks = {
        "exit status": status == (STOPPED_STATUS if ranks == 1 else 1),  # torchrun's own is 1
        "time": took_s < LIMIT_S,
        "told": len(stopped) == 1 and "saved: go on with resume=" in stopped[0]["message"],
        "same step": len(set(steps)) == 1,
        "nothing lost": state.step == steps[0],
    }
    assert all(checks.values()), (checks, output, state, steps)
    training.spec["settings"]["max_epochs"] = state.epoch + 1
    training.spec["pause"] = {}
    assert training.finish()[0] == 0
    survived(f"preemption, {moment}, {number.name}", 1, 1)
