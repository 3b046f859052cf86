"""A model run by torch beside its exports: WER, size, real-time factor, memory, first text.

    python -m benchmarks.export MODEL MANIFEST [--limit N] [--rounds N]
    python -m benchmarks.export --cells

Each runs in turn on the same recordings, ROUNDS times, one thread: utterances one by one (whole),
LONG_S of them in a row with pauses (long), and utterances in blocks of 80 ms (live). Real-time
factors are processor time over audio, medians; memory is the most that `asr transcribe` of the long
recording takes, and first text what it takes for the first utterance: seconds on the clock, and of
the processor, which other programs do not lengthen. Each decodes as the decoder.yaml of the model's
folder says, greedily without one.

With --cells, both runtimes on CELL_S of noise by a fresh model of each cell.
"""

from __future__ import annotations

import argparse
import statistics
import string
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
import torch
import yaml

from asr.data.dataset import load_utterance
from asr.data.manifest import Utterance, read_manifest
from asr.decoder_file import build_decoder, read_decoder_file, read_own_decoder
from asr.exporter import exported
from asr.metrics.error_rate import word_errors
from asr.model.lstm_cell import CELLS
from asr.model_file import load_model
from asr.model_spec import ModelSpec, Part
from asr.onnx_model import OnnxModel
from asr.recognizer import Recognizer
from asr.starter_model import DECODER, decoder_file, model_path
from asr.transcriber import Transcriber
from benchmarks.live import BLOCK_S, PAUSE_DBFS, PAUSE_S
from benchmarks.one_process import Cost, cost
from benchmarks.pauses import noise

LONG_S = 300.0  # [s]
LIVE_S = 60.0  # [s] of utterances, in blocks
CELL_S = 8  # [s]
PRECISIONS = ("float32", "float16", "int8")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=model_path, nargs="?")
    parser.add_argument("manifest", type=Path, nargs="?")
    parser.add_argument("--cells", action="store_true")
    parser.add_argument("--limit", type=int, help="utterances, drawn")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.cells:
        cells(options.rounds)
        return
    utterances = read_manifest(options.manifest)
    order = np.random.default_rng(0).permutation(len(utterances))[: options.limit]
    with tempfile.TemporaryDirectory() as folder:
        table(options.model, [utterances[k] for k in order], options.rounds, Path(folder))


def table(model: Path, utterances: list[Utterance], rounds: int, folder: Path) -> None:
    """Print a row for the model and for each of its exports, which the folder takes."""
    recognizer, training = load_model(model)
    rate = recognizer.sample_rate
    files = {"torch": model}
    for precision in PRECISIONS:
        files[f"onnx {precision}"] = folder / f"{precision}.onnx"
        files[f"onnx {precision}"].write_bytes(exported(recognizer, training, precision))
    waveforms = [load_utterance(each, rate) for each in utterances]
    references = [recognizer.text(each.text) for each in utterances]
    long = joined(waveforms, np.random.default_rng(0), rate)
    clip, recording = folder / "clip.wav", folder / "long.wav"
    soundfile.write(clip, waveforms[0], rate)
    soundfile.write(recording, long, rate)
    settings = own_decoder(model, folder / DECODER)
    decoder = settings and build_decoder(read_decoder_file(settings), recognizer, print)
    transcribers = {n: Transcriber.load(file, decoder=decoder) for n, file in files.items()}
    ways: dict[str, tuple[Callable[[Transcriber], object], int]] = {
        "whole": (lambda t: [t.transcribe(each) for each in waveforms], sum(map(len, waveforms))),
        "long": (lambda t: t.transcribe(long), len(long)),
        "live": (lambda t: live(t, waveforms), int(LIVE_S * rate)),
    }
    factors = {}
    for way, (run, _) in ways.items():
        works = {n: lambda t=t, run=run: cpu(lambda: run(t)) for n, t in transcribers.items()}
        factors[way] = in_turn(works, rounds)
    firsts, peaks = (
        in_turn({n: lambda f=f, a=audio: command(f, a, settings) for n, f in files.items()}, times)
        for audio, times in ((clip, rounds), (recording, 1))
    )
    print(
        f"{len(waveforms)} utterances, {ways['whole'][1] / rate:.0f} s; long "
        f"{len(long) / rate:.0f} s\n{'':13}{'bytes':>11}{'WER':>9}{'whole':>9}{'long':>9}"
        f"{'live':>9}{'memory':>10}{'first text':>12}{'of it CPU':>11}"
    )
    for name, file in files.items():
        texts = [each.text for each in transcribers[name].transcribe(waveforms)]
        rows = [
            statistics.median(factors[way][name]) / (samples / rate)
            for way, (_, samples) in ways.items()
        ]
        wall, used, _ = (statistics.median(each) for each in zip(*firsts[name], strict=True))
        print(
            f"{name:13}{file.stat().st_size:11,}{word_errors(references, texts).rate:9.2%}"
            + "".join(f"{row:9.4f}" for row in rows)
            + f"{peaks[name][0].peak_mb:7.0f} MB{wall:10.2f} s{used:9.2f} s"
        )


def cells(rounds: int) -> None:
    """Print a row a cell."""
    noise_s = np.random.default_rng(0).standard_normal(CELL_S * 16_000).astype(np.float32)
    for cell in CELLS:
        size = {"hidden_size": 256, "cell": cell} | (
            {"proj_size": 64} if cell == "projection" else {}
        )
        spec = ModelSpec(Part("LogMel"), Part("BiLstmCtc", size), string.ascii_lowercase, {})
        recognizer = Recognizer(spec)
        both = {"torch": recognizer, "onnx": OnnxModel(exported(recognizer, {}))}
        works = {
            name: lambda m=model: cpu(lambda: m.log_probs([noise_s]))
            for name, model in both.items()
        }
        found = {n: statistics.median(v) / CELL_S for n, v in in_turn(works, rounds).items()}
        print(f"{cell:15} torch {found['torch']:.4f}  onnx {found['onnx']:.4f}", flush=True)


def in_turn(works: dict[str, Callable[[], object]], rounds: int) -> dict[str, list]:
    """What each gives, one after the other, and the whole again; the first round is thrown away."""
    found: dict[str, list] = {name: [] for name in works}
    for number in range(rounds + 1):
        for name, work in works.items():
            result = work()
            if number:
                found[name].append(result)
    return found


def cpu(work: Callable[[], object]) -> float:
    """Processor time of some work [s]."""
    began = time.process_time()
    work()
    return time.process_time() - began


def live(transcriber: Transcriber, waveforms: list[np.ndarray]) -> None:
    """Hear LIVE_S of utterances in blocks, with what is known so far after each."""
    rate = transcriber.sample_rate
    size, left = round(BLOCK_S * rate), int(LIVE_S * rate)
    stream = transcriber.stream()
    samples = np.resize(np.concatenate(waveforms), left)
    for place in range(0, left, size):
        stream.push(samples[place : place + size])
        _ = stream.partial
    stream.finish()


def joined(waveforms: list[np.ndarray], draws: np.random.Generator, rate: int) -> np.ndarray:
    """LONG_S of utterances with pauses between."""
    parts, left = [], round(LONG_S * rate)
    for number in range(10**6):
        parts += [waveforms[number % len(waveforms)], noise(draws, PAUSE_S, PAUSE_DBFS, rate)]
        left -= len(parts[-1]) + len(parts[-2])
        if left < 0:
            break
    return np.concatenate(parts)


def own_decoder(model: Path, copy: Path) -> Path | None:
    """Write the settings of a model's folder where exports find the files of them, too."""
    own = decoder_file(model)
    if own is None:
        return None
    copy.write_text(yaml.safe_dump(read_own_decoder(own.resolve())))
    return copy


def command(model: Path, audio: Path, settings: Path | None) -> Cost:
    """What `asr transcribe` costs."""
    own = [] if settings is None else ["--decoder-config", settings]
    code = "from asr.cli.main import main\nmain(sys.argv[1:])"
    return cost(code, "transcribe", "--model", model, *own, audio)


if __name__ == "__main__":
    main()
