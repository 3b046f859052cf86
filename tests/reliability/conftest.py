"""What the reliability checks share: a count of what survived, printed with its seed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.reliability.corpus import write_corpus
from tests.serve.running import trained

SEED = 20261126
Corpus = Callable[..., Path]


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


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Tone corpora of a size, each written once."""
    folder = tmp_path_factory.mktemp("corpus")
    written: dict[Path, Path] = {}

    def write(count: int, name: str = "train", letters: tuple[int, int] = (2, 4)) -> Path:
        target = folder / f"{name}_{count}_{letters[0]}_{letters[1]}"
        if target not in written:
            written[target] = write_corpus(target, count, SEED + count, name, letters)
        return written[target]

    return write


@pytest.fixture(scope="session")
def tone_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that writes what letters the tones are."""
    return trained(tmp_path_factory.mktemp("served"))
