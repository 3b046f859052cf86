"""How time and memory of a training grow: with processes, batches, utterances and parameters.

    python benchmarks/scale.py processes --rounds 3 experiment=read_english
    python benchmarks/scale.py batches --rounds 3 experiment=read_english
    python benchmarks/scale.py loading --rounds 3 experiment=read_english
    python benchmarks/scale.py strangers --rounds 3 experiment=read_english
    python benchmarks/scale.py corpus
    python benchmarks/scale.py model

`processes`, `batches`, `loading` and `strangers` run short trainings of `asr train` (any of its
overrides may follow), each
alternative once a round, and print medians over the rounds; ratios are of neighbours in one round.
`corpus` makes manifests of up to a million utterances and reads and plans them; `model` saves
states of models of several sizes, and exchanges their gradients between two processes.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console
from rich.table import Table

CONSOLE = Console()
WARMUP = 8  # steps that are not counted
MIB = 1 << 20


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=[*TASKS, "child"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each short training")
    arguments, overrides = parser.parse_known_args()
    TASKS[arguments.what](arguments, overrides)


# -- trainings ---------------------------------------------------------------------------------


def train(overrides: Sequence[str], duration_s: float) -> list[dict[str, float]]:
    """The steps of a training that is stopped after a time, without the first ones."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "-m", "asr", "train", *overrides, f"paths.run_dir={folder}", "name=run",
            "trainer.log_every=1", "trainer.validate_every=1000", "trainer.max_epochs=1000",
            "trainer.sort_first_epoch=false", "trainer.scan_memory=false",
        ]  # fmt: skip
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        steps = Path(folder) / "train" / "run" / "steps.csv"
        while len(rows := read_rows(steps)) <= WARMUP:
            if process.poll() is not None:
                raise SystemExit(f"{' '.join(command)} ended with status {process.returncode}")
            time.sleep(0.5)
        time.sleep(duration_s)
        rows = read_rows(steps)
        process.terminate()
        process.wait()
    return rows[WARMUP:]


def read_rows(path: Path) -> list[dict[str, float]]:
    """The steps recorded so far."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        lines = [line for line in file if line.endswith("\n")]
    return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(lines)]


def speed(rows: list[dict[str, float]]) -> float:
    """Hours of audio an hour, over all steps."""
    audio_s = sum(row["audio_h_per_h"] * row["step_s"] for row in rows)
    return audio_s / sum(row["step_s"] for row in rows)


def compare(alternatives: dict[str, list[str]], arguments: argparse.Namespace) -> None:
    """Print speed, waiting and step of each alternative, and its ratio to the first."""
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in alternatives}
    for number in range(arguments.rounds):
        order = list(alternatives)
        for name in order if number % 2 else reversed(order):
            rows = train(alternatives[name], arguments.seconds)
            times = [row["step_s"] for row in rows]
            waited = sum(row["wait_share"] * row["step_s"] for row in rows) / sum(times)
            found[name].append((speed(rows), waited, statistics.median(times)))
    table = Table("", "audio h/h", "to the first", "waiting", "median step")
    base = found[next(iter(alternatives))]
    for name, rounds in found.items():
        ratios = [one[0] / other[0] for one, other in zip(rounds, base, strict=True)]
        medians = [statistics.median(values) for values in zip(*rounds, strict=True)]
        table.add_row(
            name, f"{medians[0]:.0f}", f"{statistics.median(ratios):.2f}",
            f"{100 * medians[1]:.1f} %", f"{1000 * medians[2]:.0f} ms",
        )  # fmt: skip
    CONSOLE.print(table)


def processes(arguments: argparse.Namespace, overrides: list[str]) -> None:
    """One and two processes of a thread each; batches loaded in the process or by a worker."""
    os.environ["OMP_NUM_THREADS"] = "1"
    alternatives = {
        f"{devices} process{'es' if devices > 1 else ''}, {workers} loading": [
            *overrides, f"trainer.devices={devices}", f"trainer.num_workers={workers}",
        ]
        for devices in (1, 2)
        for workers in (0, 1)
    }  # fmt: skip
    compare(alternatives, arguments)


def batches(arguments: argparse.Namespace, overrides: list[str]) -> None:
    """Batches of several durations, in one process of one thread."""
    os.environ["OMP_NUM_THREADS"] = "1"
    compare(
        {f"{s} s": [*overrides, f"trainer.batch_duration_s={s}"] for s in (40, 80, 160, 320)},
        arguments,
    )


def loading(arguments: argparse.Namespace, overrides: list[str]) -> None:
    """Numbers of loading processes, in one training process on the device that the config names."""
    compare(
        {f"{n} loading": [*overrides, f"trainer.num_workers={n}"] for n in (1, 0, 2, 4, 8)},
        arguments,
    )


def strangers(arguments: argparse.Namespace, overrides: list[str]) -> None:
    """A training alone, and two at once that know nothing of each other, of a thread each."""
    os.environ["OMP_NUM_THREADS"] = "1"
    table = Table("audio h/h, alone", "first of two", "second of two", "their sum to alone")
    for _ in range(arguments.rounds):
        alone = speed(train(overrides, arguments.seconds))
        with ThreadPoolExecutor(2) as pool:
            rows = pool.map(lambda _: train(overrides, arguments.seconds), range(2))
            both = [speed(found) for found in rows]
        table.add_row(*(f"{found:.0f}" for found in (alone, *both)), f"{sum(both) / alone:.2f}")
    CONSOLE.print(table)


# -- the corpus --------------------------------------------------------------------------------


def corpus(arguments: argparse.Namespace, overrides: list[str]) -> None:
    """Reading and planning manifests, each in a process of its own."""
    table = Table("utterances", "hours", "read", "memory", "an utterance", "plan of an epoch")
    for count in (10_000, 100_000, 1_000_000):
        with tempfile.TemporaryDirectory() as folder:
            write_manifest(Path(folder) / "train.jsonl", count)
            write_manifest(Path(folder) / "dev.jsonl", 10)
            found = child(CORPUS, folder)
        table.add_row(
            f"{count:,}", f"{found['hours']:.0f}", f"{found['read_s']:.1f} s",
            f"{found['memory'] / MIB:.0f} MiB", f"{found['memory'] / count:.0f} B",
            f"{found['plan_s']:.1f} s",
        )  # fmt: skip
    CONSOLE.print(table)


def write_manifest(path: Path, count: int) -> None:
    """Utterances of 2 to 20 s with 14 characters a second; all share one audio file."""
    words = "the quick brown fox jumps over the lazy dog and runs away into the wide green wood "
    (path.parent / "audio.wav").touch()
    with path.open("w") as file:
        for number in range(count):
            duration = 2 + 18 * ((number * 7919) % 1000) / 1000
            text = (words * 4)[: int(14 * duration)].strip()
            row = {"audio_filepath": "audio.wav", "duration": duration, "text": text}
            row |= {
                "id": f"speaker{number % 1000}/utterance{number}",
                "speaker": str(number % 1000),
            }
            file.write(json.dumps(row) + "\n")


CORPUS = """
import sys, time
from asr.data.plan import plan_epoch
from asr.data.dataset import label_manifest
from asr.data.manifest import seconds
from asr.data.splits import load_splits
from asr.text import TextNormalizer, CharTokenizer
from benchmarks.scale import resident
before, start = resident(), time.perf_counter()
splits = load_splits(sys.argv[1] + "/train.jsonl", sys.argv[1] + "/dev.jsonl", TextNormalizer())
tokenizer = CharTokenizer(splits.alphabet)
windows = label_manifest(splits.train, tokenizer, lambda some, _: [None] * len(some))
durations = [seconds(u) for u in splits.train]
read_s, memory, start = time.perf_counter() - start, resident() - before, time.perf_counter()
plan_epoch(durations, seed=0, epoch=1, batch_duration_s=160, world_size=8)
plan_s = time.perf_counter() - start
found = {"hours": sum(durations) / 3600, "read_s": read_s, "memory": memory, "plan_s": plan_s}
"""


def resident() -> int:
    """Memory of this process [bytes]."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


# -- the model ---------------------------------------------------------------------------------


def model(arguments: argparse.Namespace, overrides: list[str]) -> None:
    """States and exchanged gradients of models of several sizes."""
    table = Table("hidden units x layers", "parameters", "state", "save", "exchange of 2 processes")
    for hidden_size, num_layers in ((128, 2), (192, 3), (320, 4), (640, 5)):
        with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
            found = child(MODEL, folder, str(hidden_size), str(num_layers), ranks=2)
        table.add_row(
            f"{hidden_size} x {num_layers}", f"{found['parameters'] / 1e6:.1f} M",
            f"{found['bytes'] / MIB:.0f} MiB", f"{found['save_s']:.2f} s",
            f"{1000 * found['exchange_s']:.1f} ms",
        )  # fmt: skip
    CONSOLE.print(table)


MODEL = """
import statistics, sys, time
from pathlib import Path
import torch
from asr.recognizer import ModelSpec, Part, Recognizer
from asr.trainer.distributed import join_world
from asr.trainer.checkpoint import Origin, Progress, StateStore, pack_state
from asr.trainer.step import Gradients
folder, hidden_size, num_layers = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(1)
world = join_world("cpu", 2, 1, "32-true")
arguments = {"hidden_size": hidden_size, "num_layers": num_layers}
model = Part("BiLstmCtc", arguments)
spec = ModelSpec(Part("LogMel", {}), model, "abcdefghijklmnopqrstuvwxyz '", {})
recognizer = Recognizer(spec)
optimizer = torch.optim.AdamW(recognizer.model.parameters())
gradients = Gradients(recognizer.model.parameters())
optimizer.step()
times = []
for _ in range(30):
    start = time.perf_counter()
    world.sum(gradients.flat)
    times.append(time.perf_counter() - start)
saves, store = [], StateStore(Path(folder) / f"state{world.rank}")
for step in range(5):
    start = time.perf_counter()
    parts = {"model": recognizer, "optimizer": optimizer}
    content = pack_state(Progress(), parts, Origin("", "", {}))
    store.save(step, "", content)
    saves.append(time.perf_counter() - start)
found = {
    "parameters": sum(p.numel() for p in recognizer.model.parameters()), "bytes": len(content),
    "save_s": statistics.median(saves), "exchange_s": statistics.median(times),
}
"""


TELL = """
import json, os
if os.environ.get("RANK", "0") == "0":
    open({answer!r}, "w").write(json.dumps(found))
"""


def child(code: str, *words: str, ranks: int = 1) -> dict[str, float]:
    """Run code in a process of its own, or in several; what the first one found."""
    with tempfile.TemporaryDirectory() as folder:
        script, answer = Path(folder) / "child.py", Path(folder) / "found.json"
        script.write_text(code + TELL.format(answer=str(answer)))
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
        command = [sys.executable, *(launcher if ranks > 1 else []), str(script), *words]
        root = str(Path(__file__).parents[1])
        path = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
        environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        subprocess.run(command, check=True, env=environment, stderr=subprocess.DEVNULL)
        found: dict[str, float] = json.loads(answer.read_text())
    return found


TASKS: dict[str, Callable[[argparse.Namespace, list[str]], None]] = {
    "processes": processes, "batches": batches, "loading": loading, "strangers": strangers,
    "corpus": corpus, "model": model,
}  # fmt: skip

if __name__ == "__main__":
    main()
