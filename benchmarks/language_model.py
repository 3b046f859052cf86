"""N-gram models: training, files and queries, beside the Python module kenlm where it is there.

    python benchmarks/language_model.py [TEXT ...] [--words 1000000] [--order 3] [--repeat 3]

Trains on a made-up text (words by Zipf's law, half of them drawn by the word before), or on the
text files and manifests named, and measures on one core, best of --repeat: encoding, estimating,
writing and reading both forms, and scoring another text of the same kind. kenlm reads the same
ARPA file and scores the same sentences in the same run; the ratios are ours over its. Compiling,
at the first call on a machine, is not in the times. Also says how far both programs' perplexities
are apart, and the most memory that was in use. Times are the processor's, which other work on the
machine hardly changes.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
from rich.console import Console
from rich.table import Table

from asr.cli.lm import FALLBACK, Sentences
from asr.decoder.kneser_ney import encode, train
from asr.decoder.ngram import NgramModel, measure_perplexity
from asr.decoder.ngram_file import load_ngram_model, save_ngram_model
from asr.text import TextNormalizer

VOCABULARY = 50_000
MEAN_LENGTH = 15  # words a sentence
HELD_OUT = 10  # every tenth sentence is scored, not trained on

_T = TypeVar("_T")


def made_up(num_words: int, seed: int = 0) -> Iterator[list[str]]:
    """Sentences by Zipf's law; a word decides half of those that follow it, within 8 choices."""
    draws = np.random.default_rng(seed)
    weights = 1 / np.arange(1, VOCABULARY + 1)
    ids = draws.choice(VOCABULARY, num_words, p=weights / weights.sum())
    after = draws.permutation(VOCABULARY)
    follows = draws.random(num_words - 1) < 0.5
    near = (after[ids[:-1]] // 50 + draws.integers(0, 8, num_words - 1)) % VOCABULARY
    ids[1:] = np.where(follows, near, ids[1:])
    words = np.char.add("w", ids.astype(str)).tolist()
    start = 0
    for length in draws.poisson(MEAN_LENGTH, num_words):
        if start >= num_words:
            return
        yield words[start : start + length + 1]
        start += length + 1


def timed(repeat: int, run: Callable[[], _T]) -> tuple[float, _T]:
    """The least processor time [s] of several runs, and the last result."""
    times = []
    for _ in range(repeat):
        start = time.process_time()
        result = run()
        times.append(time.process_time() - start)
    return min(times), result


def warm_up(folder: Path) -> None:
    """Compile everything, on a text of a few words."""
    model = train(encode([["a", "b"]]), 2, fallback=FALLBACK).model
    for name in ("small.arpa", "small.ngram"):
        save_ngram_model(folder / name, model)
        measure_perplexity(load_ngram_model(folder / name), [["a"]])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="N-gram models, beside kenlm.")
    parser.add_argument("text", nargs="*", help="files and manifests instead of made-up text")
    parser.add_argument("--words", type=int, default=1_000_000)
    parser.add_argument("--order", type=int, default=3)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    if options.text:
        everything = list(Sentences(options.text, TextNormalizer()))
    else:
        everything = list(made_up(options.words * HELD_OUT // (HELD_OUT - 1)))
    held_out = everything[::HELD_OUT]
    trained_on = [words for k, words in enumerate(everything) if k % HELD_OUT]
    with tempfile.TemporaryDirectory() as folder:
        warm_up(Path(folder))
        compare(Path(folder), trained_on, held_out, options)


def compare(
    folder: Path,
    trained_on: list[list[str]],
    held_out: list[list[str]],
    options: argparse.Namespace,
) -> None:
    """Time each step, ours and kenlm's, and print the table."""
    table = Table("step", "time [s]", "kenlm [s]", "ours / kenlm")

    def row(step: str, ours: float, theirs: float | None = None) -> None:
        ratio = [f"{theirs:.3f}", f"{ours / theirs:.2f}"] if theirs else []
        table.add_row(step, f"{ours:.3f}", *ratio)

    spent, text = timed(options.repeat, lambda: encode(trained_on))
    row("words to ids", spent)
    spent, trained = timed(options.repeat, lambda: train(text, options.order, fallback=FALLBACK))
    row(f"estimating, order {options.order}", spent)
    arpa, compact = folder / "model.arpa", folder / "model.ngram"
    row("writing ARPA", timed(1, lambda: save_ngram_model(arpa, trained.model))[0])
    row("writing .ngram", timed(1, lambda: save_ngram_model(compact, trained.model))[0])
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    other = Other(arpa, held_out, options.repeat)
    row("reading ARPA", timed(options.repeat, lambda: load_ngram_model(arpa))[0], other.loading)
    spent, model = timed(options.repeat, lambda: load_ngram_model(compact))
    row("reading .ngram", spent, other.loading)
    spent, log10_total = timed(options.repeat, lambda: total(model, held_out))
    row("scoring the held-out text", spent, other.scoring)
    console = Console()
    console.print(table)
    found = measure_perplexity(model, held_out)
    tokens = found.words + found.sentences
    console.print(
        f"{text.num_words} words, {len(text.words)} different; n-grams "
        f"{' + '.join(map(str, model.counts))}; ARPA {arpa.stat().st_size / 1e6:.1f} MB, .ngram "
        f"{compact.stat().st_size / 1e6:.1f} MB; most memory {memory:.0f} MiB"
    )
    console.print(
        f"held out: {tokens} words and sentence ends, {tokens / spent:.0f} a second; perplexity "
        f"{found.without_oov:.3f} without {found.oov_words} unknown words, {found.with_oov:.3f} "
        f"with" + other.difference(log10_total, tokens)
    )


def total(model: NgramModel, sentences: list[list[str]]) -> float:
    """log P of a text [nats]."""
    return sum(float(model.found(words)[0].sum()) for words in sentences)


class Other:
    """kenlm's times for the same file and text; None where it is not installed."""

    def __init__(self, arpa: Path, sentences: list[list[str]], repeat: int) -> None:
        self.loading: float | None = None
        self.scoring: float | None = None
        try:
            import kenlm
        except ImportError:
            return
        config = kenlm.Config()
        config.show_progress = False
        self.loading, model = timed(repeat, lambda: kenlm.Model(str(arpa), config))
        lines = [" ".join(words) for words in sentences]
        self.scoring, self.log10_total = timed(repeat, lambda: sum(map(model.score, lines)))

    def difference(self, log_total: float, tokens: int) -> str:
        """How far the perplexities with unknown words are apart."""
        if self.scoring is None:
            return "; kenlm is not installed"
        ours, theirs = np.exp(-log_total / tokens), 10 ** (-self.log10_total / tokens)
        return f"; kenlm's {theirs:.3f}, {abs(ours / theirs - 1):.1e} of it apart"


if __name__ == "__main__":
    main()
