"""A model that writes what letters the tones are, and a server of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from asr.cli.main import main
from tests.cli.conftest import RATE, TINY, tones, write_corpus
from tests.serve.running import Running, running


@pytest.fixture(scope="session")
def tone_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The best model of a training on the tone corpus."""
    folder = tmp_path_factory.mktemp("served")
    corpus = write_corpus(folder)
    status = main(
        ["train", *TINY, f"data.train={corpus}", f"data.dev={corpus}", f"paths.run_dir={folder}",
         "name=tones", "trainer.max_epochs=60", "trainer.validate_every=60"]
    )  # fmt: skip
    assert status == 0
    return folder / "train" / "tones" / "best.safetensors"


@pytest.fixture(scope="session")
def server(tone_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server without keys."""
    with running(tone_model, tmp_path_factory.mktemp("server") / "log.txt") as started:
        yield started


@pytest.fixture(scope="session")
def wav() -> bytes:
    """A recording that says `c a`."""
    import io

    import soundfile

    file = io.BytesIO()
    soundfile.write(file, tones("c a"), RATE, format="WAV")
    return file.getvalue()
