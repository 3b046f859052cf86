"""A manifest of short noises, and its shards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr.data.manifest import Utterance
from asr.data.shar import SharFolder, read_index
from asr.data.shar_writer import SharSettings, SharWriter
from asr.data.shards import SharSource
from asr.text import TextNormalizer

RATE = 8000  # [Hz]
COUNT = 47

MakeSource = Callable[..., SharSource]


@pytest.fixture(scope="session")
def utterances(tmp_path_factory: pytest.TempPathFactory) -> list[Utterance]:
    """Of 0.1 to 0.8 s, 16 bits; some are a part of their file, some have awkward ids."""
    folder = tmp_path_factory.mktemp("noises")
    generator = np.random.default_rng(0)
    made = []
    for number in range(COUNT):
        path = folder / f"{number}.wav"
        num_samples = int(generator.integers(800, 6400))
        samples = generator.integers(-30000, 30000, num_samples).astype(np.int16)
        soundfile.write(path, samples, RATE, subtype="PCM_16")
        is_part = number % 5 == 0
        text = "".join(generator.choice(list("abcd"), int(generator.integers(1, 5))))
        made.append(
            Utterance(
                path,
                text.upper() if number % 3 == 0 else text,
                (num_samples - (80 if is_part else 0)) / RATE,
                {0: "/abs/u0.wav", 1: "../u1", 2: "a//b@0.5", 3: "ü/ö 3"}.get(number, f"u{number}"),
                speaker=f"s{number % 4}" if number % 2 else None,
                offset=0.01 if is_part else 0.0,
                extra={"lang": "xx"} if number % 7 == 0 else {},
            )
        )
    return made


@pytest.fixture(scope="session")
def shards(utterances: list[Utterance], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve shards of them, with an index."""
    folder = tmp_path_factory.mktemp("shards") / "flac"
    list(SharWriter(utterances, folder, SharSettings(shard_size=4, seed=1)).write())
    return folder


@pytest.fixture
def make_source() -> MakeSource:
    """Opens a folder that has an index."""

    def make(folder: Path, **arguments: object) -> SharSource:
        place = SharFolder(folder)
        index = read_index(place)
        assert index is not None
        return SharSource(place, index, TextNormalizer(), **arguments)  # type: ignore[arg-type]

    return make
