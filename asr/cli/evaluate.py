"""asr evaluate: a model and a manifest to WER, CER and a report."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import track

from asr.cli.decoder_options import with_decoder_files
from asr.cli.hydra_app import run_hydra

if TYPE_CHECKING:
    from asr.data.manifest import Utterance
    from asr.report import EvaluatedUtterance
    from asr.transcriber import Transcriber

Plan = Sequence[tuple[int, ...]]


def main(arguments: list[str]) -> int:
    """Run `asr evaluate`; see conf/evaluate.yaml for its settings."""
    return run_hydra("evaluate", _job, with_decoder_files(arguments))


def _notice(line: str) -> None:
    print(f"asr: {line}", file=sys.stderr)


def _job(config: DictConfig) -> None:
    # Imported here: `asr evaluate --help` and completion need no torch.
    from asr.checkpoint import load_model
    from asr.cli.build import build_decoder
    from asr.report import (
        Evaluation,
        ModelDescription,
        speaker_table,
        summary,
        worst_utterances,
        write_report,
    )
    from asr.transcriber import Transcriber, choose_device

    model_file, manifest = Path(config.model_file), Path(config.manifest)
    recognizer, training = load_model(model_file, choose_device(config.device))
    decoder = build_decoder(config.decoder, recognizer, _notice)
    transcriber = Transcriber(recognizer, decoder)
    start = time.perf_counter()
    utterances = evaluate_manifest(transcriber, manifest, config.batch_duration_s)
    seconds = time.perf_counter() - start
    evaluation = Evaluation(
        title=config.title,
        model=ModelDescription(
            name=str(model_file),
            num_parameters=sum(p.numel() for p in recognizer.model.parameters()),
            training=training,
        ),
        manifest=str(manifest),
        real_time_factor=seconds / sum(each.duration_s for each in utterances),
        utterances=utterances,
        settings={
            "decoder": config.decoder._target_.rsplit(".", 1)[-1],
            "device": str(transcriber.recognizer.features.window.device),
        },
    )
    paths = write_report(evaluation, Path(HydraConfig.get().runtime.output_dir))
    console = Console()
    console.print(speaker_table(evaluation))
    console.print(worst_utterances(evaluation, config.worst))
    console.print(summary(evaluation))
    console.print(f"report: {paths.html}", soft_wrap=True)


def evaluate_manifest(
    transcriber: Transcriber, manifest: Path, batch_duration_s: float
) -> tuple[EvaluatedUtterance, ...]:
    """Transcribe and score every utterance of a manifest, in its order.

    Args:
        transcriber: with the model and its text rules, which both texts go through.
        manifest: JSONL, CSV or TSV.
        batch_duration_s: largest padded batch [s of audio].
    """
    from asr.data.manifest import read_manifest

    utterances = read_manifest(manifest)
    batches = plan(utterances, batch_duration_s)
    console = Console(stderr=True)
    scored: dict[int, EvaluatedUtterance] = {}
    for batch in track(batches, "evaluating", console=console, disable=not console.is_terminal):
        members = [utterances[position] for position in batch]
        scored.update(zip(batch, _evaluate(transcriber, members), strict=True))
    return tuple(scored[position] for position in range(len(utterances)))


def plan(utterances: Sequence[Utterance], batch_duration_s: float) -> Plan:
    """Batches of like length, as positions."""
    from asr.audio import probe
    from asr.data.plan import plan_evaluation

    durations = [
        probe(each.audio_filepath).duration if each.duration is None else each.duration
        for each in utterances
    ]
    return plan_evaluation(durations, batch_duration_s=batch_duration_s)


def _evaluate(
    transcriber: Transcriber, utterances: Sequence[Utterance]
) -> list[EvaluatedUtterance]:
    from asr.data.dataset import load_utterance
    from asr.metrics.error_rate import score_utterance
    from asr.report import EvaluatedUtterance

    text = transcriber.recognizer.text
    waveforms = [load_utterance(each, transcriber.sample_rate) for each in utterances]
    transcripts = transcriber.transcribe(waveforms)
    return [
        EvaluatedUtterance(
            each.id,
            each.speaker,
            transcript.duration,
            str(each.audio_filepath),
            score_utterance(each.id, text(each.text), transcript.text),
        )
        for each, transcript in zip(utterances, transcripts, strict=True)
    ]
