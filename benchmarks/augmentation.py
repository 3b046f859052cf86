"""What each variation of training waveforms costs on one core, and what it looks like.

    OMP_NUM_THREADS=1 python benchmarks/augmentation.py
    python benchmarks/augmentation.py --picture docs/augmentation.png --audio <recording>

The first prints hours of audio that one core varies in an hour, every part with probability 1, so
that `augment=noisy`, which gives a room and noise to half of the utterances each, costs less than
all of them; beside it what that adds to the time of a training on one core. The audio is synthetic,
2 to 15 s long, at 16 kHz; the parts take turns in each round, and figures are medians over the
rounds. Rooms and the noise's cycles are made before and timed apart: a process makes each once.
The second draws log-mel features of one recording.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from asr.audio import load_audio
from asr.augment import Noise, Reverberation, SimulatedRooms, SyntheticNoise, WaveformAugment
from asr.augment.noise import NoiseFiles
from asr.augment.room import RoomFiles
from asr.features import LogMel

RATE = 16_000  # [Hz]
SECONDS = (2, 5, 10, 15)  # lengths of the utterances
SNR_DB = (5.0, 30.0)  # [dB]
SPEEDS = (0.9, 1.1)
TRAINING_RATE = 234  # hours of audio an hour that a training takes on one core (docs/results.md)

PICTURE_RT60_S = 0.6  # [s]
PICTURE_SNR_DB = 5.0  # [dB]


def parts(folder: Path) -> dict[str, WaveformAugment]:
    """Every part alone, and all; recordings are read from folders that are made here."""
    rooms, noises = SimulatedRooms(), SyntheticNoise()
    generator = np.random.default_rng(0)
    for _ in range(4000):  # all rooms and colours: none is left to be made
        rooms(RATE, generator)
        noises(1, RATE, generator)
    for kind, rate in (("wav", RATE), ("flac", 44_100)):
        (folder / kind).mkdir()
        for index in range(8):
            samples = generator.uniform(-0.1, 0.1, 60 * rate)
            soundfile.write(folder / kind / f"{index}.{kind}", samples, rate)
    (folder / "rooms").mkdir()
    for index in range(20):
        soundfile.write(folder / "rooms" / f"{index}.wav", rooms.response(index, RATE), RATE)
    room, noise = Reverberation(rooms), Noise(noises, SNR_DB)
    half_room, half_noise = Reverberation(rooms, 0.5), Noise(noises, SNR_DB, 0.5)
    gain_db = (-6.0, 3.0)
    return {
        "nothing": WaveformAugment(),
        "gain": WaveformAugment(gain_db=gain_db),
        "speed": WaveformAugment(SPEEDS),
        "simulated room": WaveformAugment(room=room),
        "synthetic noise": WaveformAugment(noise=noise),
        "all of them": WaveformAugment(SPEEDS, room, noise, gain_db),
        "as augment=noisy": WaveformAugment((0.9, 1.0, 1.1), half_room, half_noise, gain_db),
        "room from WAV files": WaveformAugment(room=Reverberation(RoomFiles(folder / "rooms"))),
        "noise from 16 kHz WAV files": WaveformAugment(
            noise=Noise(NoiseFiles(folder / "wav"), SNR_DB)
        ),
        "noise from 44.1 kHz FLAC files": WaveformAugment(
            noise=Noise(NoiseFiles(folder / "flac"), SNR_DB)
        ),
    }


def seconds_of(call: Callable[[], object]) -> float:
    """What a call takes of a core [s]; waiting for a core that others use does not count."""
    start = time.process_time()
    call()
    return time.process_time() - start


def measure(rounds: int) -> None:
    """Print the table."""
    waveforms = [
        np.random.default_rng(length).uniform(-0.1, 0.1, length * RATE).astype(np.float32)
        for length in SECONDS
    ]
    with tempfile.TemporaryDirectory() as folder:
        running = parts(Path(folder))
        times: dict[str, list[float]] = {name: [] for name in running}
        for seed in range(rounds + 1):
            for name, augment in running.items():

                def vary(augment: WaveformAugment = augment, seed: int = seed) -> None:
                    for number, waveform in enumerate(waveforms):
                        augment(waveform, RATE, np.random.default_rng([seed, number]))

                times[name].append(seconds_of(vary))
    table = Table(title=f"median of {rounds} rounds of {sum(SECONDS)} s of audio")
    table.add_column("part")
    table.add_column("hours of audio an hour", justify="right")
    table.add_column("beside a training", justify="right")
    for name, own in times.items():
        rate = sum(SECONDS) / statistics.median(own[1:])
        table.add_row(name, f"{rate:,.0f}", f"{TRAINING_RATE / rate:.1%}")
    console = Console()
    console.print(table)
    rooms, noises = SimulatedRooms(), SyntheticNoise(["pink"])
    room_s = statistics.median(seconds_of(lambda i=i: rooms.response(i, RATE)) for i in range(200))
    cycle_s = seconds_of(lambda: noises(1, RATE, np.random.default_rng(0)))
    console.print(
        f"made once in a process: a room {1000 * room_s:.1f} ms, a colour {1000 * cycle_s:.0f} ms"
    )


def draw(audio: Path, picture: Path) -> None:
    """Log-mel features of the first five seconds of a recording, as it is and varied."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    clean = load_audio(audio, RATE, duration=5.0)
    rooms = SimulatedRooms(rt60_s=[PICTURE_RT60_S, PICTURE_RT60_S], distance_m=[1.5, 1.5])
    room = Reverberation(rooms)
    noise = Noise(SyntheticNoise(["pink"]), [PICTURE_SNR_DB, PICTURE_SNR_DB])
    varied = {
        "as recorded": WaveformAugment(),
        f"in a simulated room, RT60 {PICTURE_RT60_S:g} s, 1.5 m away": WaveformAugment(room=room),
        f"in pink noise, SNR {PICTURE_SNR_DB:g} dB": WaveformAugment(noise=noise),
        "in both": WaveformAugment(room=room, noise=noise),
    }
    colours = colormaps["magma"].resampled(15)  # steps of 5 dB: noise makes no large file
    figure = Figure(figsize=(11, 6), layout="constrained")
    panels = figure.subplots(2, 2, sharex=True, sharey=True).reshape(-1)
    for axes, (title, augment) in zip(panels, varied.items(), strict=True):
        features = log_mel(augment(clean, RATE, np.random.default_rng(0)))
        image = axes.imshow(
            features.T, origin="lower", aspect="auto", vmin=-75, vmax=0, cmap=colours,
            interpolation="nearest",
            extent=(0, len(features) / 100, 0, features.shape[1]),
        )  # fmt: skip
        axes.set_title(title, loc="left", fontsize=10)
    for axes in panels[2:]:
        axes.set_xlabel("time [s]")
    for axes in panels[::2]:
        axes.set_ylabel("mel bin")
    figure.colorbar(image, ax=panels.tolist(), label="power [dB] below the loudest", shrink=0.8)
    figure.savefig(picture, dpi=100)


def log_mel(waveform: NDArray[np.float32]) -> NDArray[np.float32]:
    """Features `(T, F)` [dB], the largest 0."""
    layer = LogMel(sample_rate=RATE, normalizer="none")
    features, _ = layer(torch.from_numpy(waveform)[None], torch.tensor([len(waveform)]))
    decibels = 10 / np.log(10) * features[0].numpy()
    return decibels - decibels.max()


def main() -> None:
    """Measure, or draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--picture", type=Path, help="draw a picture there and measure nothing")
    parser.add_argument("--audio", type=Path, help="the recording that is drawn")
    arguments = parser.parse_args()
    if (arguments.picture is None) != (arguments.audio is None):
        parser.error("--picture and --audio go together")
    if arguments.picture:
        draw(arguments.audio, arguments.picture)
    else:
        measure(arguments.rounds)


if __name__ == "__main__":
    main()
