"""asr review: look through what a model heard, on the page, and learn from what was corrected."""

from __future__ import annotations

import logging
import threading
import webbrowser
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml  # type: ignore[import-untyped] # without types

from asr import __version__
from asr.atomic_file import replace_text
from asr.cli.decoder import add_decoder_options, decoder_settings, load_transcriber
from asr.cli.options import Parser, add_model_option, check_outputs
from asr.cli.processes import SAME_PROGRAM
from asr.cli.terminal import say, tell, track
from asr.finding import describe_error
from asr.starter_model import decoder_file

if TYPE_CHECKING:
    from asr.data.manifest import Utterance
    from asr.serve.learning import Lesson
    from asr.serve.review import Item, Review
    from asr.transcriber import Transcriber
    from asr.transcript import Segment, Transcript

HOST = "127.0.0.1"  # this machine alone: the page shows its files
WHOLE_S = 30.0  # [s] up to which a recording is looked through as one
BATCH_S = 240.0  # [s] of utterances that are read before they are transcribed
DEV_EVERY = 5  # of the reviewed, one is kept to measure by
FEWEST = 4  # reviewed recordings from which something can be learnt


def main(arguments: list[str]) -> int:
    """Transcribe, then serve the page until somebody ends it."""
    options = make_parser().parse_args(arguments)
    from asr.data.manifest import read_manifest

    output = options.output or _output_of(options.recordings)
    wanted = list(_utterances(options.recordings))
    audio = (each.audio_filepath for each in wanted)
    check_outputs([output], [options.model, *options.recordings, *audio])
    done = {each.id: each for each in read_manifest(output)} if output.exists() else {}
    settings = decoder_settings(options, decoder_file(options.model))
    try:
        from asr.serve.app import create_app
        from asr.serve.learning import Learning
        from asr.serve.limits import Limits
        from asr.serve.review import STATUS, Item, Review
        from asr.serve.server import listen, serve
        from asr.serve.service import Served, Service
    except ImportError as error:
        raise ValueError(
            f"{error.name} is not installed, which serves the page: pip install 'lstm-asr[serve]'"
        ) from error
    from asr.serve.access import Keys

    transcriber = load_transcriber(options.model, settings, options.device)
    found = _heard(transcriber, [each for each in wanted if each.id not in done])
    # Of a recording that was looked through in parts, some may be done.
    heard = (item for item in found if item.utterance.id not in done)
    known = (Item(each, status=_status(each.extra.get(STATUS))) for each in done.values())
    review = Review([*known, *heard], output, transcriber.sample_rate)
    if not review.items:
        raise ValueError("no recording that can be read, expected some")
    limits = Limits()
    listener = listen(HOST, options.port, limits.silence_s)
    plan = partial(_lesson, review, settings, options.model)
    learning = Learning(plan, SAME_PROGRAM)
    service = Service([Served(options.model.absolute().parent.name, transcriber)], limits)
    app = create_app(service, Keys([]), version=__version__, review=review, learning=learning)
    address = f"http://{HOST}:{listener.getsockname()[1]}/"
    logging.getLogger("asr").setLevel(logging.WARNING)

    def ready() -> None:
        left = sum(item.status is None for item in review.items.values())
        tell(f"{left} recordings to look through on {address} (Ctrl-C ends it); saved in {output}")
        if not options.no_browser:
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()

    try:
        serve(app, service, listener, ready)
    finally:
        learning.close()
    say(f"{len(review.kept)} recordings with their texts: {output}")
    return 0


def _output_of(recordings: Sequence[Path]) -> Path:
    """The manifest beside what is looked through."""
    first = recordings[0]
    stem = first.stem if first.is_file() else first.absolute().name
    return first.parent / f"{stem}-reviewed.jsonl"


def _status(value: object) -> Any:
    return value if value in ("accepted", "corrected") else "accepted"


def _utterances(recordings: Sequence[Path]) -> Iterator[Utterance]:
    """What is looked through: the lines of manifests, audio files, and those of folders."""
    from asr.audio import find_audio
    from asr.data.manifest import MANIFEST_SUFFIXES, Utterance, read_manifest

    for path in recordings:
        if path.suffix in MANIFEST_SUFFIXES:
            yield from read_manifest(path)
            continue
        files = find_audio(path)[0] if path.is_dir() else [path]
        if not files:
            raise ValueError(f"{path}: no audio, expected some")
        for file in files:
            yield Utterance(file, "", None, str(file))


def _heard(transcriber: Transcriber, wanted: Sequence[Utterance]) -> Iterator[Item]:
    """Transcribe; what cannot be read is told and left out."""
    from asr.data.dataset import load_utterance
    from asr.serve.review import Item

    rate = transcriber.sample_rate
    waiting: list[tuple[Utterance, Any]] = []

    def flush() -> Iterator[Item]:
        found = transcriber.transcribe([samples for _, samples in waiting], rate) if waiting else []
        for (utterance, samples), transcript in zip(waiting, found, strict=True):
            seconds = len(samples) / rate
            if utterance.duration is None and seconds > WHOLE_S:
                yield from _parts(utterance, transcript)
            else:
                yield Item(utterance, transcript.segments, seconds)
        waiting.clear()

    for utterance in track(wanted, "transcribing", "recordings"):
        try:
            waiting.append((utterance, load_utterance(utterance, rate)))
        except (ValueError, OSError) as error:
            tell(f"left out {utterance.where}: {describe_error(error)}")
        if sum(len(samples) for _, samples in waiting) >= BATCH_S * rate:
            yield from flush()
    yield from flush()


def _parts(utterance: Utterance, transcript: Transcript) -> Iterator[Item]:
    """The segments of a long recording, each to be looked through by itself."""
    from asr.serve.review import Item

    for segment in transcript.segments:
        duration = round(segment.end - segment.start, 3)
        part = replace(
            utterance, offset=segment.start, duration=duration, id=f"{utterance.id}@{segment.start}"
        )
        yield Item(part, (_from_zero(segment),), duration)


def _from_zero(segment: Segment) -> Segment:
    """A segment with times from its own beginning."""
    begin = segment.start
    words = tuple(
        replace(word, start=round(word.start - begin, 3), end=round(word.end - begin, 3))
        for word in segment.words
    )
    return replace(segment, start=0.0, end=round(segment.end - begin, 3), words=words)


# --- learning from what was reviewed -------------------------------------------------------------


def _lesson(review: Review, decoder: dict[str, Any], model: Path) -> Lesson:
    """Plan a training on what was reviewed, and the error rate before and after it.

    Raises:
        ValueError: there is too little.
    """
    from asr.cli.hydra_app import override  # here: Hydra is slow
    from asr.data.manifest import write_manifest
    from asr.serve.learning import Lesson

    kept = review.kept
    if len(kept) < FEWEST:
        raise ValueError(f"{len(kept)} reviewed recordings, expected at least {FEWEST}")
    folder = review.output.with_suffix("")
    folder.mkdir(exist_ok=True)
    runs, decoder_yaml = folder / "runs", folder / "decoder.yaml"
    number = 1
    while (runs / "train" / str(number)).exists():
        number += 1
    train, dev = folder / f"{number}-train.jsonl", folder / f"{number}-dev.jsonl"
    write_manifest(dev, kept[::DEV_EVERY])
    write_manifest(train, [each for k, each in enumerate(kept) if k % DEV_EVERY])
    replace_text(decoder_yaml, yaml.safe_dump(decoder))
    words = [override("data.train", str(train)), override("data.dev", str(dev))]
    where = override("paths.run_dir", str(runs))
    # The last: so few recordings do not tell which was best, and none of them chose anything.
    learnt = runs / "train" / str(number) / "last.safetensors"

    def evaluated(name: str, file: Path) -> list[str]:
        return [
            "evaluate", override("model_file", str(file)), override("manifest", str(dev)),
            f"name={name}", where, f"decoder={decoder_yaml}", "report.listen=0",
        ]  # fmt: skip

    before, after = f"{number}-before", f"{number}-after"
    commands = [
        evaluated(before, model),
        ["train", "experiment=few_recordings", override("init_from", str(model)), f"name={number}",
         where, *words],
        evaluated(after, learnt),
    ]  # fmt: skip
    return Lesson(commands, lambda: _outcome(runs / "evaluate", before, after, learnt))


def _outcome(folder: Path, before: str, after: str, learnt: Path) -> str:
    """Tell what a training brought, by two evaluations of the same recordings."""
    from asr.report.evaluation_file import read_evaluation

    old, new = (read_evaluation(folder / each / "evaluation.json") for each in (before, after))
    was, is_now = old.words.rate, new.words.rate
    return (
        f"On {len(new.utterances)} of the recordings, from which it did not learn: WER "
        f"{100 * was:.1f} % before, {100 * is_now:.1f} % now. "
        + ("The" if is_now < was else "That is no better: keep the old one, and review more. The")
        + f" new model: {learnt}"
    )


def make_parser() -> Parser:
    """Define the arguments of the command."""
    parser = Parser(
        prog="asr review",
        description="Look through what a model heard, the least sure first, on a page in the "
        "browser: right, corrected or skipped. What is right becomes a manifest, from which the "
        "page can begin a training.",
    )
    parser.add_argument(
        "recordings", nargs="+", type=Path,
        help="audio files, folders of them, or manifests, whose texts are not looked at",
    )  # fmt: skip
    add_model_option(parser)
    parser.add_argument(
        "--output", type=Path, metavar="FILE",
        help="the manifest; what is in it already is not asked for again; default: beside the "
        "recordings, NAME-reviewed.jsonl",
    )  # fmt: skip
    parser.add_argument(
        "--port", type=int, default=0, help="of the page; default: any that is free"
    )
    parser.add_argument("--no-browser", action="store_true", help="open no browser")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda; default: auto")
    add_decoder_options(parser)
    return parser
