"""Decoding to phrases: how many are right, and what is none of them but is taken for one.

    python -m benchmarks.phrases MODEL MANIFEST... [--phrases FILE] [--beam-size 50]
      [--words LOW HIGH] [--max-duration S]

An utterance whose text is one of the phrases should be taken for it, any other for none. Without a
file the phrases are all texts that are no digits alone: in the corpus of `make demo` texts are
digits or commands. Of the manifests utterances with so many words and of such a duration are taken.
The shortfall is by how much the best phrase is behind the path that the model itself takes [nats a
label]; a phrase is taken up to --max-shortfall.
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
from asr.decoder.beam_search import MAX_SHORTFALL, shortfall
from asr.decoder.phrases import read_phrases
from asr.model_file import load_model
from asr.pronounce import completed
from asr.starter_model import model_path

DIGITS = {"zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"}
IMPOSSIBLE = 1000.0  # [nats a label] beyond which no phrase was left in the beam


def main() -> None:
    """Print counts and shortfalls of phrases and of other texts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=model_path)
    parser.add_argument("manifests", type=Path, nargs="+")
    parser.add_argument("--phrases", type=Path)
    parser.add_argument("--beam-size", type=int, default=50)
    parser.add_argument("--max-shortfall", type=float, nargs="+", default=[MAX_SHORTFALL])
    parser.add_argument("--words", type=int, nargs=2, default=[1, 1000])
    parser.add_argument("--max-duration", type=float, default=math.inf)
    options = parser.parse_args()
    recognizer, _ = load_model(options.model)
    low, high = options.words
    utterances = [
        each
        for manifest in options.manifests
        for each in read_manifest(manifest)
        if low <= len(each.text.split()) <= high and each.duration <= options.max_duration
    ]
    texts = [recognizer.text(each.text) for each in utterances]
    if options.phrases:
        phrases = read_phrases(options.phrases, recognizer.text)
    else:
        phrases = sorted({text for text in texts if not set(text.split()) <= DIGITS})
    lexicon = recognizer.lexicon
    decoder = BeamSearch(
        options.beam_size, alphabet=recognizer.tokenizer.alphabet, phrases=phrases,
        lexicon=lexicon and completed(lexicon, phrases)[0].pronunciations, max_shortfall=math.inf,
    )  # fmt: skip
    found, behind = [], []
    for utterance in utterances:
        log_probs, lengths = recognizer.log_probs(
            [load_utterance(utterance, recognizer.sample_rate)]
        )
        ((best, *_),) = decoder(log_probs, lengths)
        found.append(" ".join(best.words or ()))
        behind.append(shortfall(log_probs[0], best.score, len(best.tokens)))
    report(phrases, texts, found, np.array(behind), options.max_shortfall)


def report(
    phrases: list[str], texts: list[str], found: list[str], behind: np.ndarray, limits: list[float]
) -> None:
    """Print what is taken for a phrase, rightly or not, up to each limit."""
    is_phrase = np.isin(texts, phrases)
    is_right = np.array(texts) == np.array(found)
    print(
        f"{len(phrases)} phrases, said {is_phrase.sum()} times, and {sum(~is_phrase)} other texts"
    )
    for limit in limits:
        is_taken = behind <= limit
        print(
            f"at most {limit:g}: {(is_right & is_taken & is_phrase).sum()} phrases "
            f"right, {(~is_right & is_taken & is_phrase).sum()} wrong, "
            f"{(~is_taken & is_phrase).sum()} missed; {(is_taken & ~is_phrase).sum()} others taken"
        )
    for name, chosen in (
        ("phrases, right ones", is_phrase & is_right),
        ("phrases, wrong ones", is_phrase & ~is_right),
        ("others", ~is_phrase),
    ):
        if chosen.any():
            shown = np.where(behind[chosen] < IMPOSSIBLE, behind[chosen], math.inf)
            shares = np.quantile(shown, [0, 0.01, 0.5, 0.99, 1], method="nearest")
            columns = ("least", "1 %", "half", "99 %", "most")
            told = "  ".join(f"{c} {s:.2f}" for c, s in zip(columns, shares, strict=True))
            print(f"shortfall of {name} [nats a label]: {told}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
