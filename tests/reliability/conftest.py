"""What the reliability checks share: a count of what survived, printed with its seed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

SEED = 20261126


@pytest.fixture
def survived(capsys: pytest.CaptureFixture[str]) -> Callable[[str, int, int], None]:
    """Prints `name survived/tried (seed ...)`, captured or not, and fails where one did not."""

    def report(name: str, survivors: int, tried: int) -> None:
        with capsys.disabled():
            print(f"\n{name} {survivors}/{tried} (seed {SEED})")
        assert survivors == tried, f"{name}: {tried - survivors} of {tried} did not survive"

    return report


@pytest.fixture
def seed() -> int:
    """The fixed seed of every reliability check."""
    return SEED
