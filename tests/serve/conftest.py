"""A model that writes what letters the tones are, and a server of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serve.running import Running, running, trained, wav_of


@pytest.fixture(scope="session")
def tone_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that writes what letters the tones are."""
    return trained(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="session")
def server(tone_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server without keys."""
    with running(tone_model, tmp_path_factory.mktemp("server") / "log.txt") as started:
        yield started


@pytest.fixture(scope="session")
def wav() -> bytes:
    """A recording that says `c a`."""
    return wav_of("c a")
