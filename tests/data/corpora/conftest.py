"""A small copy of a corpus's layout, made by the test, and what preparing it gives."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr.data.corpora.layout import Layout, prepare_layout
from asr.data.manifest import Utterance, read_manifest
from asr.data.prepare import PreparedCorpus

RATE = 8_000  # [Hz]


class Made:
    """A corpus in a folder of its own.

    Attributes:
        source: the folder.
        data: of the prepared corpora.
    """

    def __init__(self, root: Path) -> None:
        self.source, self.data = root / "source", root / "data"
        self.source.mkdir()

    def audio(self, *names: str, seconds: float = 0.3) -> None:
        """Write noise, another for each name."""
        for name in names:
            path = self.source / name
            path.parent.mkdir(parents=True, exist_ok=True)
            noise = np.random.default_rng(len(name)).uniform(-0.1, 0.1, round(seconds * RATE))
            soundfile.write(path, noise, RATE)

    def text(self, name: str, content: str | bytes) -> Path:
        """Write a file."""
        path = self.source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def prepare(self, layout: Layout, **arguments: object) -> PreparedCorpus:
        """Prepare it as `made`, without draws unless they are asked for."""
        settings = {"source": self.source, "dev_fraction": 0.0, "test_fraction": 0.0}
        settings |= {"sample_rate": RATE, "num_workers": 1, **arguments}
        return prepare_layout("made", self.data, layout=layout, **settings)  # type: ignore[arg-type]

    def written(self, split: str = "train") -> dict[str, Utterance]:
        """The utterances of a split, by id."""
        return {each.id: each for each in read_manifest(self.data / "made" / f"{split}.jsonl")}

    def texts(self, split: str = "train") -> dict[str, str]:
        """Texts by id."""
        return {name: each.text for name, each in self.written(split).items()}

    def rejected(self) -> list[str]:
        """Why what is left out was left out."""
        lines = (self.data / "made" / "rejected.jsonl").read_text().splitlines()
        return [json.loads(line)["reason"] for line in lines]


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path)
