"""asr tune-decoder: search the weights of the beam search on dev."""

from __future__ import annotations

import argparse
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asr.atomic_file import replace_bytes, replace_text
from asr.cli.options import Parser, check_outputs
from asr.cli.terminal import say, track
from asr.report.wording import RATE_NAMES
from asr.starter_model import model_path
from asr.text import printable

if TYPE_CHECKING:
    from asr.data.manifest import Utterance
    from asr.decoder import BeamSearch
    from asr.decoder.ngram import NgramModel
    from asr.metrics.error_rate import ErrorCounts
    from asr.report.plots import Trial
    from asr.speech_model import LogProbs
    from asr.transcriber import Decoder, Transcriber

TUNED_FILE, TRIALS_FILE, PICTURE_FILE = "decoder.yaml", "tuning.json", "tuning.png"
# The weights of BeamSearch that are searched: the usual one, the least and the most.
SEARCHED = {
    "lm_weight": (0.5, 0.0, 2.0),
    "word_bonus": (1.0, -4.0, 5.0),  # [nats]
    "unk_score": (-5.0, -20.0, 0.0),  # [nats]
    "prior_weight": (0.0, 0.0, 1.0),
}


@dataclass(frozen=True)
class DevUtterance:
    """A model's output for an utterance.

    Attributes:
        log_probs: `(T, V)` float32 [nats].
        reference: its text by the model's rules.
    """

    log_probs: LogProbs
    reference: str


def main(arguments: list[str]) -> int:
    """Search, and write the best decoder's settings, all trials and a picture.

    Raises:
        ValueError: an output that exists, a manifest without a word, no optuna.
        OSError: a model or manifest that cannot be read, or an output that cannot be written.
    """
    options = make_parser().parse_args(arguments)
    if options.trials < 1:
        raise ValueError(f"--trials {options.trials}, expected 1 or more")
    if not options.batch_duration_s > 0:
        raise ValueError(f"--batch-duration-s {options.batch_duration_s}, expected above 0")
    if (options.output / TUNED_FILE).exists() and not options.overwrite:
        raise ValueError(
            f"{options.output / TUNED_FILE} exists, expected a new --output or --overwrite"
        )
    for path in (options.model, options.lm):
        path.stat()  # what is missing is told at once
    # Imported here: `--help` and a mistake in the call need none of it.
    from rich.console import Console

    from asr.data.manifest import read_manifest
    from asr.decoder import Greedy
    from asr.decoder.ngram_file import load_ngram_model
    from asr.report.plots import best
    from asr.transcriber import Transcriber

    console = Console(stderr=True)
    dev = read_manifest(options.manifest)
    check_outputs(
        [options.output / name for name in (TUNED_FILE, TRIALS_FILE, PICTURE_FILE)],
        [options.model, options.manifest, options.lm, *(each.audio_filepath for each in dev)],
    )
    transcriber = Transcriber.load(options.model, options.device, Greedy())
    language_model = load_ngram_model(options.lm)
    utterances = emit(transcriber, dev, options.batch_duration_s)
    words = sum(len(utterance.reference.split()) for utterance in utterances)
    if not words:
        raise ValueError(f"{options.manifest}: no word in its texts, expected at least one")
    search = Search(transcriber, language_model, options.lm, options.beam_size, utterances)
    decoders: dict[str, Decoder] = {"greedy": Greedy(), "beam": search.beam()}
    if transcriber.recognizer.lexicon is not None:
        del decoders["greedy"]  # which finds no words
    baselines = {name: search.errors(decoder)[0].rate for name, decoder in decoders.items()}
    trials = []
    tried = search.trials(options.trials, options.seed)
    for trial in track(tried, "tuning", "trials", options.trials):
        trials.append(trial)
        if not console.is_terminal and len(trials) % 10 == 0:
            console.print(f"trial {len(trials)}: best {100 * best(trials).words.rate:.2f} %")
    rate_name = RATE_NAMES[search.unit]
    _write(options, search, trials, baselines, rate_name)
    _tell(options.output, trials, baselines, rate_name)
    return 0


class Search:
    """Decodes the same utterances again and again.

    Args:
        transcriber: of the model that made them.
        language_model: words' probabilities.
        path: of the language model, for the settings that are written.
        beam_size: of every trial.
        utterances: of dev.
    """

    def __init__(
        self,
        transcriber: Transcriber,
        language_model: NgramModel,
        path: Path,
        beam_size: int,
        utterances: Sequence[DevUtterance],
    ) -> None:
        self.transcriber = transcriber
        self.unit = transcriber.recognizer.unit
        self.language_model = language_model
        self.path = path
        self.beam_size = beam_size
        self.references = [utterance.reference for utterance in utterances]
        # Of like length together: a batch is padded to its longest.
        self.order = sorted(range(len(utterances)), key=lambda n: len(utterances[n].log_probs))
        self.log_probs = [utterances[number].log_probs for number in self.order]

    def beam(self, **settings: Any) -> BeamSearch:
        """Make a beam search for the model, with these settings."""
        from asr.decoder import BeamSearch

        recognizer = self.transcriber.recognizer
        return BeamSearch(
            self.beam_size,
            alphabet=recognizer.tokenizer.alphabet,
            lexicon=recognizer.spellings,
            **settings,
        )

    def errors(self, decoder: Decoder) -> tuple[ErrorCounts, ErrorCounts]:
        """Count the word and character errors of a decoder, as `unit_errors` does."""
        import numpy as np

        from asr.metrics.error_rate import unit_errors
        from asr.threads import num_threads

        texts = [""] * len(self.references)
        size = 2 * num_threads()  # each of which decodes an utterance at a time
        for start in range(0, len(self.order), size):
            part = self.log_probs[start : start + size]
            lengths = np.array([len(row) for row in part])
            padded = np.stack(
                [np.pad(row, ((0, lengths.max() - len(row)), (0, 0))) for row in part]
            )
            found = decoder(padded, lengths)
            for number, hypotheses in zip(self.order[start:], found, strict=False):
                texts[number] = self.transcriber.text_of(hypotheses[0])
        return unit_errors(self.references, texts, self.unit)

    def trials(self, count: int, seed: int) -> Iterator[Trial]:
        """Try weights that the tree-structured Parzen estimator asks for, the usual ones first.

        Raises:
            ValueError: optuna is not installed.
        """
        from asr.report.plots import Trial

        try:
            import optuna
        except ImportError as error:
            needed = "asr tune-decoder needs optuna: pip install 'lstm-asr[sweep]'"
            raise ValueError(needed) from error
        optuna.logging.set_verbosity(logging.WARNING)
        study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.enqueue_trial({name: usual for name, (usual, _, _) in SEARCHED.items()})
        for _ in range(count):
            asked = study.ask()
            weights = {
                name: asked.suggest_float(name, least, most)
                for name, (_, least, most) in SEARCHED.items()
            }
            decoder = self.beam(language_model=self.language_model, **weights)
            trial = Trial(weights, *self.errors(decoder))
            # A character error weighs little: it decides where word errors are equal.
            study.tell(asked, trial.words.rate + 1e-3 * trial.characters.rate)
            yield trial


def emit(
    transcriber: Transcriber, utterances: Sequence[Utterance], batch_duration_s: float
) -> list[DevUtterance]:
    """Find a model's log-probabilities for every utterance, in their order.

    Args:
        transcriber: with the model and its text rules.
        utterances: of dev.
        batch_duration_s: largest padded batch [s of audio].
    """
    from asr.cli.evaluate import plan
    from asr.data.dataset import load_utterance

    found: dict[int, DevUtterance] = {}
    batches = plan(utterances, batch_duration_s)
    for batch in track(batches, "running the model", "batches"):
        members = [utterances[position] for position in batch]
        waveforms = [load_utterance(each, transcriber.sample_rate) for each in members]
        log_probs, lengths = transcriber.recognizer.log_probs(waveforms)
        for position, each, rows, length in zip(
            batch, members, log_probs, lengths.tolist(), strict=True
        ):
            text = transcriber.recognizer.text(each.text)
            found[position] = DevUtterance(rows[:length].copy(), text)
    return [found[position] for position in range(len(utterances))]


def _write(
    options: argparse.Namespace,
    search: Search,
    trials: Sequence[Trial],
    baselines: dict[str, float],
    rate_name: str,
) -> None:
    from asr.report.plots import best, draw_tuning

    found = best(trials)
    options.output.mkdir(parents=True, exist_ok=True)
    language_model = search.path.resolve()
    if language_model.parent == options.output.resolve():  # a model's folder, which may be moved
        language_model = Path(language_model.name)
    lines = [
        f"# Weights with the lowest {rate_name} on {printable(options.manifest.name)}, "
        f"{len(trials)} trials: {100 * found.words.rate:.2f} % "
        f"(without the language model {100 * baselines['beam']:.2f} %)",
        f"# asr evaluate decoder={printable(str(options.output / TUNED_FILE))} model_file=... "
        "manifest=...",
        "_target_: asr.decoder.BeamSearch",
        f"beam_size: {search.beam_size}",
        f"language_model: {json.dumps(str(language_model))}",
        *(f"{name}: {value:.4f}" for name, value in found.weights.items()),
    ]
    replace_text(options.output / TUNED_FILE, "\n".join(lines) + "\n")
    record: dict[str, Any] = {
        "model": str(options.model),
        "manifest": str(options.manifest),
        "language_model": str(options.lm),
        "beam_size": search.beam_size,
        "seed": options.seed,
        "baselines": baselines,
        "trials": [
            {**trial.weights, "words": asdict(trial.words), "characters": asdict(trial.characters)}
            | dict(zip(("wer", "cer"), trial.cost, strict=True))
            for trial in trials
        ],
    }
    replace_text(options.output / TRIALS_FILE, json.dumps(record, indent=1) + "\n")
    replace_bytes(options.output / PICTURE_FILE, draw_tuning(trials, baselines["beam"], rate_name))


def _tell(
    folder: Path, trials: Sequence[Trial], baselines: dict[str, float], rate_name: str
) -> None:
    from asr.report.plots import best

    found = best(trials)
    for name, wer in baselines.items():
        say(f"{name:<8} dev {rate_name} {100 * wer:.2f} %")
    say(
        f"tuned    dev {rate_name} {100 * found.words.rate:.2f} %  "
        + "  ".join(f"{name} {value:.3f}" for name, value in found.weights.items())
    )
    for name, (_, least, most) in SEARCHED.items():
        value, near = found.weights[name], 0.02 * (most - least)
        at_end = value < least + near or value > most - near
        if at_end and name != "prior_weight":  # which has no more
            say(f"note: {name} is at the edge of what was searched, {least} to {most}")
    say(f"settings: {folder / TUNED_FILE}; picture: {folder / PICTURE_FILE}")


def make_parser() -> Parser:
    """Define the arguments of the command."""
    parser = Parser(
        prog="asr tune-decoder",
        description="Search the weights of language model, words and unknown words that give the "
        "lowest WER (or CER, where the unit is the character) on a dev manifest. The "
        "model runs once; every trial decodes anew.",
    )
    parser.add_argument(
        "--model", required=True, type=model_path, help="model file, a run's folder, or a name"
    )
    parser.add_argument("--manifest", required=True, type=Path, help="dev, never test")
    parser.add_argument("--lm", required=True, type=Path, help="language model, .arpa or .ngram")
    parser.add_argument("--output", required=True, type=Path, help="folder for what is found")
    parser.add_argument("--beam-size", type=int, default=50, help="prefixes kept (50)")
    parser.add_argument("--trials", type=int, default=60, help="weights that are tried (60)")
    parser.add_argument("--seed", type=int, default=0, help="of the search (0)")
    parser.add_argument("--batch-duration-s", type=float, default=120.0, help="padded batch (120)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--overwrite", action="store_true", help="replace settings that exist")
    return parser
