"""Decoding to phrases: how many are right, and what is none of them but is taken for one.

    python -m benchmarks.phrases MODEL MANIFEST... [--max-shortfall 0.7]

For the corpus of `make demo`, in which texts are digits or commands: the phrases are all texts with
a word that is no digit. The shortfall is by how much the best phrase is behind the path that the
model itself takes [nats a frame]; a phrase is taken up to --max-shortfall.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import torch

from asr.data.dataset import load_utterance
from asr.data.manifest import read_manifest
from asr.decoder import BeamSearch
from asr.decoder.beam_search import MAX_SHORTFALL
from asr.model_file import load_model
from asr.starter_model import model_path

DIGITS = {"zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"}
IMPOSSIBLE = 100.0  # [nats a frame] beyond which no phrase was left in the beam


def main() -> None:
    """Print counts and shortfalls of phrases and of other texts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=model_path)
    parser.add_argument("manifests", type=Path, nargs="+")
    parser.add_argument("--max-shortfall", type=float, default=MAX_SHORTFALL)
    options = parser.parse_args()
    recognizer, _ = load_model(options.model)
    utterances = [each for manifest in options.manifests for each in read_manifest(manifest)]
    texts = [recognizer.text(each.text) for each in utterances]
    phrases = sorted({text for text in texts if not set(text.split()) <= DIGITS})
    decoder = BeamSearch(
        alphabet=recognizer.tokenizer.alphabet, phrases=phrases, word_bonus=0.0,
        max_shortfall=math.inf,
    )  # fmt: skip
    found, shortfalls = [], []
    for utterance in utterances:
        log_probs, lengths = recognizer.log_probs(
            [load_utterance(utterance, recognizer.sample_rate)]
        )
        ((best, *_),) = decoder(log_probs, lengths)
        own = float(log_probs[0].max(axis=1).sum(dtype=np.float64))
        shortfall = (own - best.score) / int(lengths[0])
        shortfalls.append(shortfall if shortfall < IMPOSSIBLE else math.inf)
        found.append(" ".join(best.words or ()))
    is_phrase = np.array([text in phrases for text in texts])
    is_right = np.array(texts) == np.array(found)
    behind = np.array(shortfalls)
    is_taken = behind <= options.max_shortfall
    print(
        f"{len(phrases)} phrases, said {is_phrase.sum()} times, and {sum(~is_phrase)} other texts"
    )
    print(
        f"at most {options.max_shortfall:g}: {(is_right & is_taken & is_phrase).sum()} phrases "
        f"right, {(~is_right & is_taken & is_phrase).sum()} wrong, "
        f"{(~is_taken & is_phrase).sum()} missed; {(is_taken & ~is_phrase).sum()} others taken"
    )
    for name, chosen in (("phrases", is_phrase), ("others", ~is_phrase)):
        shares = np.quantile(behind[chosen], [0, 0.01, 0.5, 0.99, 1], method="nearest")
        columns = ("least", "1 %", "half", "99 %", "most")
        told = "  ".join(f"{c} {s:.2f}" for c, s in zip(columns, shares, strict=True))
        print(f"shortfall of {name} [nats a frame]: {told}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
