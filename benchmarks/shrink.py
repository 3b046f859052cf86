"""What fewer bytes for a model's weights cost: size, error rates, distance of the output.

    python -m benchmarks.shrink MODEL MANIFEST [--limit N]

A row each for float32, float16 and int8, as `asr shrink` writes them, on the same utterances,
decoded greedily. The distance is between log-probabilities: their largest absolute difference from
float32's, of all labels and of those above 0.001 alone, and the share of frames whose best label is
another.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from asr.data.dataset import load_utterance
from asr.data.manifest import read_manifest
from asr.decoder import Greedy
from asr.metrics.error_rate import character_errors, word_errors
from asr.model_file import load_model, save_model
from asr.quantization import EXPANSION
from asr.starter_model import model_path

LIKELY = 1e-3  # probability


class Outcome(NamedTuple):
    """What a model made of utterances: log-probabilities `(T, V)`, and texts."""

    log_probs: list[np.ndarray]
    texts: list[str]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=model_path)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--limit", type=int, help="utterances, drawn")
    options = parser.parse_args()
    recognizer, training = load_model(options.model)
    utterances = read_manifest(options.manifest)
    order = np.random.default_rng(0).permutation(len(utterances))[: options.limit]
    waveforms = [load_utterance(utterances[k], recognizer.sample_rate) for k in order]
    references = [recognizer.text(utterances[k].text) for k in order]
    print(f"{len(order)} utterances, {sum(map(len, references))} characters")
    print(f"{'':9}{'bytes':>10}{'WER':>9}{'CER':>9}{'largest':>9}{'likely':>9}{'frames':>9}")
    first: Outcome | None = None
    for storage in EXPANSION:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "model.safetensors"
            save_model(file, recognizer, training, storage)
            size = file.stat().st_size
            found = outcome(file, waveforms)
        first = first or found
        pairs = list(zip(found.log_probs, first.log_probs, strict=True))
        largest = max(float(np.abs(one - other).max()) for one, other in pairs)
        likely = max(
            float(np.abs(one - other)[other > np.log(LIKELY)].max()) for one, other in pairs
        )
        changed = np.concatenate([one.argmax(1) != other.argmax(1) for one, other in pairs])
        wer, cer = (
            count(references, found.texts).rate for count in (word_errors, character_errors)
        )
        print(
            f"{storage:9}{size:10,}{wer:9.2%}{cer:9.2%}{largest:9.4f}{likely:9.4f}"
            f"{changed.mean():9.3%}"
        )


def outcome(model: Path, waveforms: list[np.ndarray]) -> Outcome:
    """Run a model file over waveforms, one by one."""
    recognizer, _ = load_model(model)
    decode = Greedy()
    log_probs, texts = [], []
    for waveform in waveforms:
        rows, lengths = recognizer.log_probs([waveform])
        (hypotheses,) = decode(rows, lengths)
        log_probs.append(rows[0])
        texts.append(recognizer.tokenizer.decode(hypotheses[0].tokens))
    return Outcome(log_probs, texts)


if __name__ == "__main__":
    main()
