"""WER against minutes of one's own recordings, from fresh weights and from a starter.

    python -m benchmarks.own_recordings TRAIN TEST OUT --starter MODEL [--minutes 0 5 15 45 120]

TRAIN and TEST are manifests; of TEST `-`, the last 20 minutes of TRAIN are the test. What a row has
is drawn from TRAIN, the smaller inside the larger, and a tenth of it is dev, which chooses nothing:
the model is that of the last epoch. Fresh weights learn by `asr train` with the settings of
--fresh, those of the starter with `experiment=few_recordings` and --tuned. Each is evaluated
greedily, and with the decoder of --decoder. The table goes to OUT/table.md after each row; rows
that are there are not run again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from asr.data.manifest import Utterance, read_manifest, write_manifest

TEST_MINUTES = 20.0
DEV_SHARE = 0.1
FRESH, STARTER = "fresh weights", "the starter"
STARTS = {"fresh": FRESH, "starter": STARTER}
MOST_EPOCHS = {FRESH: 200, STARTER: 20}
HEAD = ("| minutes | from | greedy | with the language model | training |", "|---|---|---|---|---|")


@dataclass(frozen=True)
class Row:
    """What one training brought.

    Attributes:
        minutes: of own recordings, dev among them.
        start: FRESH or STARTER.
        training_s: what it took [s].
        wer: with the language model, as a ratio with its interval.
        greedy: without.
    """

    minutes: float
    start: str
    training_s: float
    wer: tuple[float, float, float]
    greedy: tuple[float, float, float]

    def __str__(self) -> str:
        cells = (
            f"{100 * rate:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
            for rate, low, high in (self.greedy, self.wer)
        )
        took = f"{self.training_s / 60:.1f} min" if self.training_s else ""
        return f"| {self.minutes:g} | {self.start} | {' | '.join(cells)} | {took} |"


def main() -> None:
    """Print the table, row by row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("train", type=Path)
    parser.add_argument("test", help="a manifest; - for the last minutes of the first")
    parser.add_argument("out", type=Path, help="folder of the trainings")
    parser.add_argument("--starter", required=True, help="a model file")
    parser.add_argument(
        "--minutes", type=float, nargs="+", default=[0, 5, 15, 45, 120],
        help="of own recordings, a row each; 0 is the starter as it is; default: 0 5 15 45 120",
    )  # fmt: skip
    parser.add_argument(
        "--starts", nargs="+", choices=STARTS, default=list(STARTS),
        help="what a row begins with; default: both",
    )  # fmt: skip
    parser.add_argument(
        "--hours", type=float, nargs=2, default=[30, 10], metavar=("FRESH", "TUNED"),
        help="of audio that a training sees at most, in 200 and 20 epochs at most; default: 30 10",
    )  # fmt: skip
    parser.add_argument("--fresh", nargs="*", default=[], metavar="OVERRIDE", help="of asr train")
    parser.add_argument("--tuned", nargs="*", default=[], metavar="OVERRIDE", help="of asr train")
    parser.add_argument("--decoder", nargs="*", default=[], metavar="OVERRIDE", help="of evaluate")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    test = prepared(options)
    rows = list[Row]()
    starts = [start for name, start in STARTS.items() if name in options.starts]
    jobs = [(m, s) for m in options.minutes for s in (starts if m else [STARTER])]
    for minutes, start in jobs:
        rows.append(measured(minutes, start, test, options))
        (options.output / "table.md").write_text("\n".join([*HEAD, *map(str, rows)]) + "\n")
        print(rows[-1], flush=True)


def prepared(options: argparse.Namespace) -> Path:
    """Draw the recordings of each row, the smaller inside the larger; returns the test's."""
    utterances = read_manifest(options.train)
    test = options.output / "test.jsonl"
    if options.test == "-":
        count = len(taken(utterances[::-1], TEST_MINUTES))
        write_manifest(test, utterances[-count:])
        utterances = utterances[:-count]
    else:
        write_manifest(test, read_manifest(Path(options.test)))
    order = np.random.default_rng(0).permutation(len(utterances))
    drawn = [utterances[k] for k in order]
    for minutes in filter(None, options.minutes):
        own = taken(drawn, minutes)
        dev = taken(own, DEV_SHARE * minutes)
        write_manifest(options.output / f"{minutes:g}-dev.jsonl", dev)
        write_manifest(options.output / f"{minutes:g}-train.jsonl", own[len(dev) :])
    return test


def taken(utterances: Sequence[Utterance], minutes: float) -> list[Utterance]:
    """Take the first of them, until they last so long."""
    ends = np.cumsum([utterance.duration for utterance in utterances])
    return list(utterances[: int(np.searchsorted(ends, 60 * minutes)) + 1])


def measured(minutes: float, start: str, test: Path, options: argparse.Namespace) -> Row:
    """Train and evaluate, or read what is there."""
    name = f"{minutes:g}-{'fresh' if start == FRESH else 'tuned'}"
    done = options.output / f"{name}.json"
    if done.exists():
        return Row(**json.loads(done.read_text()))
    model, took = options.starter, 0.0
    if minutes:
        hours = dict(zip((FRESH, STARTER), options.hours, strict=True))[start]
        epochs = max(1, min(MOST_EPOCHS[start], round(60 * hours / minutes)))
        tuned = ["experiment=few_recordings", f"init_from={options.starter}", *options.tuned]
        began = time.monotonic()
        asr(
            "train", *(options.fresh if start == FRESH else tuned), f"name={name}",
            f"paths.run_dir={options.output}/runs", "overwrite=true",
            f"data.train={options.output}/{minutes:g}-train.jsonl",
            f"data.dev={options.output}/{minutes:g}-dev.jsonl",
            f"trainer.max_epochs={epochs}", f"trainer.validate_every={max(1, epochs // 5)}",
        )  # fmt: skip
        took = time.monotonic() - began
        model = f"{options.output}/runs/train/{name}/last.safetensors"
    rates = []
    for suffix, decoder in (("greedy", ["decoder=greedy"]), ("lm", options.decoder)):
        where = f"paths.run_dir={options.output}/runs"
        asr(
            "evaluate", f"model_file={model}", f"manifest={test}", f"name={name}-{suffix}", where,
            "report.listen=0", *decoder,
        )  # fmt: skip
        report = options.output / "runs" / "evaluate" / f"{name}-{suffix}" / "evaluation.json"
        found = json.loads(report.read_text())
        interval = found["wer_interval"] or {"low": found["wer"], "high": found["wer"]}
        rates.append((found["wer"], interval["low"], interval["high"]))
    row = Row(minutes, start, took, rates[1], rates[0])
    done.write_text(json.dumps(asdict(row)))
    return row


def asr(*arguments: str) -> None:
    """Run a command; its output goes to the terminal's error stream."""
    subprocess.run([sys.executable, "-m", "asr", *arguments], check=True, stdout=sys.stderr)


if __name__ == "__main__":
    main()
