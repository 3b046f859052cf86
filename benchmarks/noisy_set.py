"""Write a manifest's utterances anew, in noise and rooms, to measure what a model bears.

    python benchmarks/noisy_set.py data/mine/test.jsonl data/mine_noisy --snr-db 10
    asr evaluate model_file=runs/train/mine/best.safetensors manifest=data/mine_noisy/test.jsonl

Every utterance gets noise at the one ratio, synthetic or from a folder, and with `--rooms` a room.
What it gets is drawn from the seed and its id alone, so that models meet the same samples. Noises
and rooms should be others than those of the training.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile
from rich.progress import track

from asr.augment import Noise, Reverberation, SimulatedRooms, SyntheticNoise, WaveformAugment
from asr.augment.noise import KINDS, NoiseFiles
from asr.augment.room import RoomFiles
from asr.data.dataset import draw_seed, load_utterance
from asr.data.manifest import Utterance, read_manifest, write_manifest

SIMULATED = "simulated"


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command's arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("manifest", type=Path)
    parser.add_argument("folder", type=Path, help="a new folder, for the copy")
    parser.add_argument("--snr-db", type=float, help="speech over noise [dB]; none: no noise")
    parser.add_argument("--noise", type=Path, help="folder of noises; else synthetic ones")
    parser.add_argument("--kinds", nargs="+", default=KINDS, help="of synthetic noise")
    parser.add_argument("--rooms", help=f"{SIMULATED}, or a folder of impulse responses")
    parser.add_argument("--seed", type=int, default=1000, help="other than that of trainings")
    parser.add_argument("--sample-rate", type=int, default=16_000, help="[Hz]")
    return parser.parse_args(arguments)


def disturbance(options: argparse.Namespace) -> WaveformAugment:
    """What is done to every utterance."""
    room = noise = None
    if options.rooms is not None:
        simulated = SimulatedRooms(seed=options.seed)
        room = Reverberation(simulated if options.rooms == SIMULATED else RoomFiles(options.rooms))
    if options.snr_db is not None:
        noises = SyntheticNoise(options.kinds, options.seed)
        noise = Noise(
            NoiseFiles(options.noise) if options.noise else noises, [options.snr_db, options.snr_db]
        )
    if room is None and noise is None:
        raise ValueError("nothing to do, expected --snr-db, --rooms or both")
    return WaveformAugment(room=room, noise=noise)


def copy(
    number: int, utterance: Utterance, augment: WaveformAugment, options: argparse.Namespace
) -> Utterance:
    """Write one utterance's waveform, and return the utterance that points to it."""
    waveform = load_utterance(utterance, options.sample_rate)
    generator = np.random.default_rng(draw_seed(options.seed, 0, utterance.id))
    varied = augment(waveform, options.sample_rate, generator)
    path = options.folder / "audio" / f"{number:06d}.wav"
    # Floats: noise on loud speech goes beyond what integers hold.
    soundfile.write(path, varied, options.sample_rate, subtype="FLOAT")
    duration = len(varied) / options.sample_rate
    return replace(utterance, audio_filepath=path, offset=0.0, duration=duration)


def main() -> None:
    """Write the copy."""
    options = parse(sys.argv[1:])
    augment = disturbance(options)
    utterances = read_manifest(options.manifest)
    (options.folder / "audio").mkdir(parents=True)
    copies = [
        copy(number, utterance, augment, options)
        for number, utterance in enumerate(track(utterances, transient=True))
    ]
    write_manifest(options.folder / f"{options.manifest.stem}.jsonl", copies)


if __name__ == "__main__":
    main()
