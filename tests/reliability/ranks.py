"""Scores made-up transcripts in one or several processes; rank 0 writes the totals.

torchrun --nproc-per-node=3 ranks.py RANKS SEED COUNT FILE
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from asr.cli.processes import leave_together
from asr.data.dataset import Batch
from asr.data.manifest import Utterance
from asr.recognizer import ModelSpec, Part, Recognizer
from asr.trainer.distributed import join_world
from asr.trainer.validation import validate
from tests.metrics.noisy_texts import noisy_pairs

BATCH = 16
FRAMES = 320  # two for each character of the longest text
SPEC = ModelSpec(
    Part("LogMel", {"sample_rate": 8000, "n_mels": 20}),
    Part("BiLstmCtc", {"subsampling": 2, "channels": 2, "hidden_size": 4, "num_layers": 1}),
    " abcdefghijklmnopqrstuvwxyz",
    {},
)


class Scripted(Recognizer):
    """A recogniser that writes a given text for each utterance, told apart by its length."""

    def __init__(self, texts: list[str]) -> None:
        super().__init__(SPEC)
        self.texts = texts

    def forward(self, waveforms: Tensor, num_samples: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probs `(B, FRAMES, V)` whose best path is the text of the row's length."""
        log_probs = torch.full((len(num_samples), FRAMES, self.tokenizer.vocab_size), -9.0)
        log_probs[:, :, 0] = -5.0
        for row, place in enumerate(num_samples.tolist()):
            for position, token in enumerate(self.tokenizer.encode(self.texts[place])):
                log_probs[row, 2 * position, token] = 0.0
        return log_probs.log_softmax(-1), torch.full_like(num_samples, FRAMES)


def batches_of(
    recognizer: Recognizer, pairs: list[tuple[str, str]], places: list[int]
) -> Iterator[Batch]:
    """The references of some places as batches; the place is the number of samples."""
    for start in range(0, len(places), BATCH):
        members = places[start : start + BATCH]
        tokens = [torch.tensor(recognizer.tokenizer.encode(pairs[place][0])) for place in members]
        yield Batch(
            waveforms=torch.zeros(len(members), 1),
            num_samples=torch.tensor(members),
            tokens=torch.nn.utils.rnn.pad_sequence(tokens, batch_first=True),
            token_lengths=torch.tensor([len(each) for each in tokens]),
            seeds=(0,) * len(members),
            rows=tuple((Utterance(Path(), pairs[k][0], None, str(k)),) for k in members),
        )


def main() -> None:
    """Validate this rank's share: every so many of the pairs."""
    torch.set_num_threads(1)
    ranks, seed, count = map(int, sys.argv[1:4])
    pairs = noisy_pairs(seed, count)
    world = join_world("cpu", ranks, 1, "32-true")
    recognizer = Scripted([hypothesis for _, hypothesis in pairs])
    places = list(range(world.rank, count, ranks))
    result = validate(recognizer, batches_of(recognizer, pairs, places), world)
    if world.rank == 0:
        totals = {"words": asdict(result.words), "characters": asdict(result.characters)}
        Path(sys.argv[4]).write_text(json.dumps(totals | {"loss": result.loss}))
    leave_together()


if __name__ == "__main__":
    main()
