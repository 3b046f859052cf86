"""asr lm: train, query, measure and convert n-gram language models."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from asr.cli.options import STDIN, Parser, check_outputs
from asr.cli.terminal import say, track
from asr.cli.texts import SOURCES, Sentences, normalizer, rules_parser

# What needs the decoders is imported in the functions: `--help` and a mistake in the call do not.

FALLBACK = (0.5, 1.0, 1.5)  # discounts of counts 1, 2 and from 3 up, as KenLM's --discount_fallback


def main(arguments: list[str]) -> int:
    """Run one of the subcommands."""
    options = make_parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], None] = options.run
    run(options)
    return 0


def _train(options: argparse.Namespace) -> None:
    from asr.decoder.kneser_ney import encode, train
    from asr.decoder.ngram_file import check_model_name, save_ngram_model

    check_model_name(options.output, quantize=options.quantize)
    if not options.output.parent.is_dir():
        raise NotADirectoryError(
            20, "is no folder, expected one to write to", str(options.output.parent)
        )
    check_outputs([options.output], [*options.text, *options.without, options.rules])
    normalize = normalizer(options)
    sentences = Sentences(options.text, normalize, Sentences(options.without, normalize))
    text = encode(
        track(sentences, "reading", "sentences"),
        min_count=options.min_count,
        max_words=options.max_words,
    )
    trained = train(
        text,
        options.order,
        prune=options.prune,
        fallback=options.discount_fallback,
        progress=lambda levels, count: track(levels, "counting", "orders", count),
    )
    save_ngram_model(options.output, trained.model, quantize=options.quantize)
    say(
        f"text: {text.num_sentences} sentences, {text.num_words} words, "
        f"{len(text.words) - 3} different ones in the vocabulary" + sentences.left_out()
    )
    kept = trained.model.counts
    kept[0] -= 1  # <s> is never predicted
    rows = zip(kept, trained.counted, trained.discounts, strict=True)
    for length, (left, counted, taken) in enumerate(rows, 1):
        pruned = f" of {counted}" if left < counted else ""
        origin = "" if taken.estimated else " (fallback: too few counts to estimate them)"
        say(
            f"{length}-grams: {left}{pruned}, discounts "
            f"{taken.one:.4f} {taken.two:.4f} {taken.more:.4f}{origin}"
        )
    say(f"{options.output}: {options.output.stat().st_size / 1e6:.1f} MB")
    say(f"next: asr lm perplexity {options.output} OTHER_TEXT")


def _query(options: argparse.Namespace) -> None:
    from asr.decoder.ngram import END, LOG10, UNKNOWN, check_words
    from asr.decoder.ngram_file import load_ngram_model

    model = load_ngram_model(options.model)
    normalize = normalizer(options)
    sentences: Iterable[list[str]] = Sentences([STDIN], normalize)
    if options.sentence:
        sentences = [normalize(sentence).split() for sentence in options.sentence]
    for words in sentences:
        check_words(words)
        log_probs, lengths = model.found(words)
        rows = []  # log10 P, length of the n-gram found, and word, of each
        for word, log_prob, length in zip([*words, END], log_probs, lengths, strict=True):
            note = "" if word in model and word != UNKNOWN else f" {UNKNOWN}"
            rows.append(f"{log_prob / LOG10:.6f}\t{length}\t{word}{note}")
        say("\n".join([*rows, f"{sum(log_probs) / LOG10:.6f}\ttotal\t{' '.join(words)}"]))


def _perplexity(options: argparse.Namespace) -> None:
    from asr.decoder.ngram import measure_perplexity
    from asr.decoder.ngram_file import load_ngram_model

    model = load_ngram_model(options.model)
    sentences = Sentences(options.text, normalizer(options))
    found = measure_perplexity(model, track(sentences, "scoring", "sentences"))
    hits = ", ".join(f"{count} of {length}" for length, count in enumerate(found.hits, 1))
    share = found.oov_words / found.words if found.words else 0.0
    say(
        f"perplexity: {found.without_oov:.4f} without unknown words, {found.with_oov:.4f} with\n"
        f"unknown words: {found.oov_words} of {found.words} ({100 * share:.2f} %)\n"
        f"log10 of the probability: {found.log10_total:.4f}, without unknown words "
        f"{found.log10_known:.4f}\n"
        f"n-grams found, by their words: {hits}\n"
        f"sentences: {found.sentences}" + sentences.left_out()
    )


def _convert(options: argparse.Namespace) -> None:
    from asr.decoder.ngram_file import check_model_name, load_ngram_model, save_ngram_model

    check_model_name(options.target, quantize=options.quantize)
    check_outputs([options.target], [options.source])
    model = load_ngram_model(options.source)
    save_ngram_model(options.target, model, quantize=options.quantize)
    say(
        f"{options.target}: order {model.order}, {' + '.join(map(str, model.counts))} n-grams, "
        f"{options.target.stat().st_size / 1e6:.1f} MB"
    )


def make_parser() -> Parser:
    """Define the arguments of the command."""
    parser = Parser(prog="asr lm", description="N-gram language models for the beam search.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    rules = rules_parser()
    _add_train(commands, rules)
    for name, run, what in (
        ("query", _query, "how likely sentences are, word by word"),
        ("perplexity", _perplexity, "how well a model predicts a text"),
    ):
        command = commands.add_parser(name, help=what, description=what, parents=[rules])
        command.set_defaults(run=run)
        command.add_argument("model", type=Path, help="ARPA (plain, gzip, xz or bzip2) or .ngram")
        if name == "query":
            command.add_argument("sentence", nargs="*", help="default: lines of standard input")
        else:
            command.add_argument("text", nargs="+", help="as for asr lm train")
    convert = commands.add_parser("convert", help="ARPA to .ngram or back")
    convert.set_defaults(run=_convert)
    convert.add_argument("source", type=Path, help="ARPA (plain, gzip, xz or bzip2) or .ngram")
    convert.add_argument("target", type=Path, help="ends in .ngram, .arpa or .arpa.gz")
    _add_quantize(convert)
    return parser


def _add_train(commands: argparse._SubParsersAction[Parser], rules: Parser) -> None:
    what = "Estimate a model by interpolated modified Kneser-Ney smoothing."
    command = commands.add_parser(
        "train", help="a model from text", description=what, parents=[rules]
    )
    command.set_defaults(run=_train)
    command.add_argument("text", nargs="+", help=SOURCES)
    command.add_argument(
        "--without", action="append", default=[], metavar="TEXT",
        help="a dev or test set: leave out what shares six words in a row with one of its "
        "sentences, or contains one of four or five; may be repeated",
    )  # fmt: skip
    command.add_argument(
        "--order", type=int, default=3, help="words of the longest n-gram; default: 3"
    )
    command.add_argument(
        "--output", type=Path, required=True, help="ends in .ngram (compact), .arpa or .arpa.gz"
    )
    command.add_argument(
        "--prune", type=int, nargs="+", default=[0], metavar="COUNT",
        help="leave out n-grams that occur at most so often, for 1, 2, ... words; the first is 0, "
        "the last also holds for longer ones; default: 0",
    )  # fmt: skip
    command.add_argument(
        "--min-count", type=int, default=1,
        help="words that occur less often become <unk>; default: 1",
    )  # fmt: skip
    command.add_argument(
        "--max-words", type=int, help="keep so many words, the most frequent; others become <unk>"
    )
    _add_quantize(command)
    command.add_argument(
        "--discount-fallback", type=float, nargs="*", action=_Fallback, metavar="D",
        help="for texts too small or too regular to estimate discounts: use these three for "
        f"counts of 1, 2, and 3 or more; without numbers {' '.join(map(str, FALLBACK))}",
    )  # fmt: skip


def _add_quantize(command: Parser) -> None:
    command.add_argument(
        "--quantize", action="store_true",
        help="a byte for each number of n-grams of two words and more: a smaller .ngram file",
    )  # fmt: skip


class _Fallback(argparse.Action):
    """Takes three discounts, or none for the usual ones."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        discounts = tuple(values) or FALLBACK
        if len(discounts) != 3 or not all(0 < d <= count for count, d in enumerate(discounts, 1)):
            parser.error(
                f"{option_string} {' '.join(map(str, values))}: expected nothing, or three "
                "numbers above 0 and at most 1, 2 and 3"
            )
        setattr(namespace, self.dest, discounts)
