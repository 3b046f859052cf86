"""The search with a large lexicon on a model's own log-probabilities: WER, and processor time.

    OMP_NUM_THREADS=1 python -m benchmarks.lexicon MODEL LEXICON LM MANIFEST [--limit 60]

The model writes phones; the lexicon has a word and its phones a line. Each utterance is decoded by
all settings one after the other, so that what else the machine does meets all of them; the ratio is
that of the processor times to those of the first row, its median over the utterances.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from asr.data.dataset import load_utterance
from asr.data.manifest import read_manifest
from asr.decoder import BeamSearch
from asr.decoder.ngram_file import load_ngram_model
from asr.lexicon import read_lexicon
from asr.metrics.error_rate import word_errors
from asr.model_file import load_model
from asr.starter_model import model_path

BEAMS = (50, 20, 100)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=model_path)
    parser.add_argument("lexicon", type=Path)
    parser.add_argument("lm", type=Path)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--limit", type=int, default=60, help="utterances, drawn; default: 60")
    parser.add_argument("--lm-weight", type=float, default=0.5)
    parser.add_argument("--word-bonus", type=float, default=1.0, help="[nats]")
    options = parser.parse_args()
    recognizer, _ = load_model(options.model)
    alphabet = recognizer.tokenizer.alphabet
    # A model whose characters are phones, without a lexicon of its own, has no other names.
    phones = recognizer.spec.phones or {each: each for each in alphabet if each != " "}
    lexicon = read_lexicon(options.lexicon, phones)
    language_model = load_ngram_model(options.lm)
    words = lexicon.under(recognizer.text).pronunciations
    weights = {"lm_weight": options.lm_weight, "word_bonus": options.word_bonus}
    decoders = {
        **{
            f"3-gram and lexicon, beam {beam}": BeamSearch(
                beam, alphabet=alphabet, lexicon=words, language_model=language_model, **weights
            )
            for beam in BEAMS
        },
        "lexicon alone, beam 50": BeamSearch(alphabet=alphabet, lexicon=words),
        "neither, beam 50": BeamSearch(alphabet=alphabet),
    }
    utterances = read_manifest(options.manifest)
    order = np.random.default_rng(0).permutation(len(utterances))[: options.limit]
    references = [recognizer.text(utterances[k].text) for k in order]
    found: dict[str, list[str]] = {name: [] for name in decoders}
    seconds: dict[str, list[float]] = {name: [] for name in decoders}
    for number, k in enumerate([order[0], *order]):
        waveform = load_utterance(utterances[k], recognizer.sample_rate)
        log_probs, lengths = recognizer.log_probs([waveform])
        for name, decoder in decoders.items():
            start = time.process_time()
            hypothesis = decoder(log_probs, lengths)[0][0]
            if number:  # the first was for what is compiled
                seconds[name].append(time.process_time() - start)
                found[name].append(" ".join(hypothesis.words or ()))
    print(f"{len(order)} utterances, {len(words):,} words, {language_model.counts} n-grams")
    print(f"{'':32}{'WER':>9}{'s an utterance: half, most':>30}{'times the first':>18}")
    first = np.array(next(iter(seconds.values())))
    for name, taken in seconds.items():
        wer = "" if "neither" in name else f"{word_errors(references, found[name]).rate:.1%}"
        ratio = np.median(np.array(taken) / first)
        print(f"{name:32}{wer:>9}{np.median(taken):22.4f} {max(taken):.4f}{ratio:18.2f}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
