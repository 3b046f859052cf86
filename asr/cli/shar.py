"""asr shar: write a manifest as shards, for a corpus that does not fit one disk or memory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from asr.cli.options import Parser, check_outputs
from asr.cli.terminal import say, track

if TYPE_CHECKING:
    from asr.data.shar import Shard

AUDIO_FORMATS = ("flac", "opus", "wav")
SECONDS_PER_HOUR = 3600.0


def main(arguments: list[str]) -> int:
    """Write the shards; after a kill the same command goes on."""
    options = make_parser().parse_args(arguments)
    if options.num_workers < 1:
        raise ValueError(f"--num-workers {options.num_workers}, expected at least 1")
    # Imported here: `--help` and a mistake in the call need none of it.
    from rich.console import Console

    from asr.data.corpus_record import prepared_rules
    from asr.data.manifest import read_manifest
    from asr.data.shar import INDEX_FILE
    from asr.data.shar_writer import SharSettings, SharWriter
    from asr.text import TextNormalizer

    utterances = read_manifest(options.manifest)
    settings = SharSettings(
        audio_format=options.format,
        shard_duration_s=options.shard_duration_h * SECONDS_PER_HOUR,
        shard_size=options.shard_size,
        seed=options.shuffle_seed,
        sample_rate=options.sample_rate,
        text=prepared_rules(options.manifest) or TextNormalizer(),
    )
    check_outputs(
        [options.folder / INDEX_FILE],
        [options.manifest, *(each.audio_filepath for each in utterances)],
    )
    writer = SharWriter(utterances, options.folder, settings)
    console = Console(stderr=True)
    shards: list[Shard] = []
    written = writer.write(options.num_workers)
    for shard in track(written, "writing", "shards", len(writer.shares)):
        shards.append(shard)
        if not console.is_terminal:
            say(f"{shard.recording}: {shard.utterances} utterances, {shard.duration_s:.0f} s")
    utterances_written = sum(shard.utterances for shard in shards)
    hours = sum(shard.duration_s for shard in shards) / SECONDS_PER_HOUR
    size = sum(shard.num_bytes or 0 for shard in shards) / 1e6
    say(
        f"{options.folder}: {len(shards)} shards, {utterances_written} utterances, {hours:.2f} h, "
        f"{size / hours:.1f} MB an hour; index in {INDEX_FILE}"
    )
    say(f"next: asr train data=shar data.train={options.folder} data.dev=DEV_MANIFEST")
    return 0


def make_parser() -> Parser:
    """Define the arguments of the command."""
    parser = Parser(
        prog="asr shar",
        description="Write a manifest as shuffled shards in Lhotse's Shar format. "
        "After a kill the same command goes on.",
    )
    parser.add_argument("manifest", type=Path, help="JSONL, CSV or TSV")
    parser.add_argument("folder", type=Path, help="of the shards; new or empty")
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--shard-duration-h", type=float, default=1.0, help="audio a shard [h]; default: 1"
    )
    length.add_argument("--shard-size", type=int, help="utterances a shard instead")
    parser.add_argument(
        "--format", choices=AUDIO_FORMATS, default="flac",
        help="of the audio; flac and wav 16-bit, opus lossy; default: flac",
    )  # fmt: skip
    parser.add_argument(
        "--sample-rate", type=int, help="of the audio [Hz]; default: each file's own"
    )
    parser.add_argument("--shuffle-seed", type=int, default=0, help="default: 0")
    parser.add_argument(
        "--num-workers", type=int, default=len(os.sched_getaffinity(0)),
        help="threads that encode; default: one a core",
    )  # fmt: skip
    return parser
