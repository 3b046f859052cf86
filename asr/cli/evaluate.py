"""asr evaluate: a model and a manifest to WER, CER and a report."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.console import Console

from asr.cli.build import plain
from asr.cli.decoder import OF_MODEL, for_model, with_decoder_files
from asr.cli.hydra_app import run_hydra
from asr.cli.options import check_outputs
from asr.cli.terminal import say, tell, track
from asr.decoder_file import build_decoder
from asr.finding import Finding, Kind, describe_error
from asr.report.clips import Clips, CtcPath, SoundFormat, listed, make_clip, within
from asr.starter_model import decoder_file, model_path
from asr.untrusted import checked
from asr.word import Character

if TYPE_CHECKING:
    from asr.data.manifest import Utterance
    from asr.decoder import Hypothesis
    from asr.features import LogMel
    from asr.report.clips import Clip
    from asr.report.evaluation import EvaluatedUtterance, Evaluation
    from asr.report.wording import Setting
    from asr.transcriber import Transcriber

MAX_NAMED = 20  # utterances that are left out; evaluation.json has all
MAX_ROWS = 20  # of a table on the terminal; evaluation.json has all


@dataclass(frozen=True)
class Listening:
    """How much of an evaluation can be heard in its report: the settings under `report`.

    Attributes:
        listen: how many utterances at most; 0 for none.
        audio: "opus" or "wav".
        max_mb: what sound and pictures may take in the page [10^6 bytes].
    """

    listen: int
    audio: SoundFormat
    max_mb: float

    def __post_init__(self) -> None:
        if self.listen < 0:
            raise ValueError(f"report.listen is {self.listen}, expected 0 or more")
        if not self.max_mb >= 0:
            raise ValueError(f"report.max_mb is {self.max_mb}, expected 0 or more")


def main(arguments: list[str]) -> int:
    """Run `asr evaluate`; see conf/evaluate.yaml for its settings."""
    return run_hydra("evaluate", _job, with_decoder_files(arguments))


def _job(config: DictConfig) -> None:
    # Imported here: `asr evaluate --help` and completion need no torch.
    from asr.data.manifest import read_manifest
    from asr.report.evaluation import check_slice_by
    from asr.report.evaluation_file import read_calibration
    from asr.report.files import REPORT_FILES, write_report

    model_file, manifest = model_path(config.model_file), Path(config.manifest)
    if config.calibration and config.fit_calibration:
        raise ValueError(
            "calibration and fit_calibration are both given, expected one of them: a calibration "
            "is fitted to confidences as they come"
        )
    own, is_own = _own_decoder(model_file)
    utterances = read_manifest(manifest)
    run_dir = Path(HydraConfig.get().runtime.output_dir)
    check_outputs(
        [config.fit_calibration, *(run_dir / name for name in REPORT_FILES)],
        [model_file, manifest, config.calibration, own, config.decoder.get("language_model"),
         config.decoder.get("lexicon"), config.decoder.get("phrases"),
         *(each.audio_filepath for each in utterances)],
    )  # fmt: skip
    # Before the work, not after it.
    check_slice_by(config.slice_by, [each.extra for each in utterances])
    listening = checked(plain(config, "report"), Listening, "report")
    model_file.stat()  # a model that is missing is told before torch is imported
    from asr.loading import load_speech_model
    from asr.transcriber import Transcriber

    calibrate = config.calibration and read_calibration(Path(config.calibration)).apply
    recognizer, training = load_speech_model(model_file, str(config.device))
    if config.unit is not None:
        recognizer.text = replace(recognizer.text, unit=config.unit)
    settings = for_model(plain(config, "decoder"), recognizer)
    if own is not None and is_own:
        tell(f"decoder: {own}")
    decoder = build_decoder(settings, recognizer, tell)
    transcriber = Transcriber(recognizer, decoder, calibrate)
    start = time.perf_counter()  # of the real-time factor: loading the model is not part of it
    # Normalised before the work, which a rule that cannot be followed would else stop.
    references = {each.id: recognizer.text(each.text) for each in utterances}
    evaluated, left_out = evaluate_utterances(
        transcriber, utterances, references, config.batch_duration_s
    )
    seconds = time.perf_counter() - start
    _tell_left_out(left_out)
    if not evaluated:
        raise ValueError(_none_of(manifest, left_out))
    evaluation = _evaluation(
        config, settings, own if is_own else None, transcriber, training, evaluated, left_out,
        seconds,
    )  # fmt: skip
    clips = make_clips(transcriber, evaluation, utterances, listening)
    paths = write_report(evaluation, run_dir, clips)
    _print(evaluation, config.worst)
    say(f"report: {paths.html}")
    if config.fit_calibration:
        _fit_calibration(evaluation, Path(config.fit_calibration))
    if left_out:
        raise ValueError(f"{evaluation.completeness}: {paths.html} tells of the others")


def _own_decoder(model_file: Path) -> tuple[Path | None, bool]:
    """Find the decoder file of a model's folder, and tell whether it is the one that is used."""
    own, hydra = decoder_file(model_file), HydraConfig.get()
    if own is not None and not any(each.startswith("decoder=") for each in hydra.overrides.task):
        raise ValueError(  # in a sweep over models, whose jobs Hydra composes with one decoder
            f"{own}: the model has a decoder of its own, expected decoder=NAME for all models, "
            "greedy for none"
        )
    return own, hydra.runtime.choices["decoder"] == OF_MODEL


def _tell_left_out(left_out: Sequence[Finding]) -> None:
    for each in left_out[:MAX_NAMED]:
        tell(f"left out {each.id}: {each.reason}")
    if len(left_out) > MAX_NAMED:
        tell(f"left out {len(left_out) - MAX_NAMED} more, all in evaluation.json")


def _none_of(manifest: Path, left_out: Sequence[Finding]) -> str:
    return (
        f"{manifest}: the audio of none of its {len(left_out)} utterances can be used, "
        f"expected some; first: {left_out[0].id}: {left_out[0].reason}"
    )


def _evaluation(
    config: DictConfig,
    decoder: Mapping[str, Any],
    own_decoder: Path | None,
    transcriber: Transcriber,
    training: Mapping[str, Setting],
    utterances: tuple[EvaluatedUtterance, ...],
    left_out: tuple[Finding, ...],
    seconds: float,
) -> Evaluation:
    """Describe the model and how it was evaluated, beside what came out."""
    from asr.report.evaluation import Evaluation, ModelDescription

    recognizer = transcriber.recognizer
    settings: dict[str, Setting] = {"decoder": str(decoder["_target_"]).rpartition(".")[-1]}
    for key, value in decoder.items():
        if key == "_target_":
            continue
        is_plain = value is None or isinstance(value, bool | int | float | str)
        settings[f"decoder.{key}"] = value if is_plain else json.dumps(value, ensure_ascii=False)
    if own_decoder is not None:
        settings["decoder_file"] = str(own_decoder)
    settings["device"] = recognizer.runs_on
    if config.calibration:
        settings["calibration"] = str(config.calibration)
    return Evaluation(
        title=str(config.title),
        model=ModelDescription(
            name=str(config.model_file),
            num_parameters=recognizer.num_parameters,
            training=training,
        ),
        manifest=str(config.manifest),
        real_time_factor=seconds / sum(each.duration_s for each in utterances),
        utterances=utterances,
        settings=settings,
        text_rules=replace(recognizer.text, unit=recognizer.unit).rules(),
        slice_by=tuple(config.slice_by),
        left_out=left_out,
    )


def _print(evaluation: Evaluation, num_worst: int) -> None:
    from asr.report.terminal import confusion_table, slice_table, summary, worst_utterances

    console = Console()
    for by in evaluation.slice_by:
        console.print(slice_table(evaluation, by, MAX_ROWS))
    console.print(confusion_table(evaluation))
    console.print(worst_utterances(evaluation, num_worst))
    console.print(summary(evaluation))


def _fit_calibration(evaluation: Evaluation, path: Path) -> None:
    """Fit on what was evaluated, write the file, say what it does to these words."""
    from asr.metrics.calibration import fit_calibration, reliability
    from asr.report.evaluation import word_outcomes
    from asr.report.evaluation_file import write_calibration

    confidences, is_correct = word_outcomes(evaluation.utterances)
    calibration = fit_calibration(confidences, is_correct)
    write_calibration(path, calibration)
    before = reliability(confidences, is_correct).ece
    after = reliability([calibration.apply(each) for each in confidences], is_correct).ece
    say(
        f"calibration: {path}: off by {before:.1%} before, {after:.1%} after, on the words it was "
        "fitted on"
    )


# --- utterances to scores ------------------------------------------------------------------------


def evaluate_utterances(
    transcriber: Transcriber,
    utterances: Sequence[Utterance],
    references: Mapping[str, str],
    batch_duration_s: float,
) -> tuple[tuple[EvaluatedUtterance, ...], tuple[Finding, ...]]:
    """Transcribe and score utterances, in their order.

    Args:
        transcriber: with the model.
        utterances: of a manifest.
        references: by id, their texts by the model's rules.
        batch_duration_s: largest padded batch [s of audio].

    Returns:
        Those that were scored, and those whose audio cannot be used.
    """
    from asr.audio import probe

    timed: list[Utterance] = []
    faults: dict[str, Finding] = {}  # by id, of those that cannot be used
    for each in utterances:
        try:
            duration = each.duration or probe(each.audio_filepath).duration
            timed.append(replace(each, duration=duration))
        except (ValueError, OSError) as error:
            faults[each.id] = each.finding(Kind.UNREADABLE_AUDIO, describe_error(error))
    # Read as the manifest has them: a duration that was found here cuts no part out of a file.
    sources = {each.id: each for each in utterances}
    batches = plan(timed, batch_duration_s) if timed else []
    scored: dict[str, EvaluatedUtterance] = {}
    for batch in track(batches, "evaluating", "batches"):
        members = [sources[timed[position].id] for position in batch]
        found = _evaluate(transcriber, members, references, faults)
        scored |= {each.id: each for each in found}
    return (
        tuple(scored[each.id] for each in utterances if each.id in scored),
        tuple(faults[each.id] for each in utterances if each.id in faults),
    )


def plan(utterances: Sequence[Utterance], batch_duration_s: float) -> Sequence[tuple[int, ...]]:
    """Plan batches of like length, as positions of their utterances."""
    from asr.audio import probe
    from asr.data.plan import plan_evaluation

    durations = [
        probe(each.audio_filepath).duration if each.duration is None else each.duration
        for each in utterances
    ]
    return plan_evaluation(durations, batch_duration_s=batch_duration_s)


def _evaluate(
    transcriber: Transcriber,
    utterances: Sequence[Utterance],
    references: Mapping[str, str],
    faults: dict[str, Finding],
) -> list[EvaluatedUtterance]:
    """Score a batch, without the utterances that become faults."""
    from asr.data.dataset import load_utterance
    from asr.data.snr import estimate_snr
    from asr.metrics.error_rate import score_utterance
    from asr.report.evaluation import EvaluatedUtterance

    unit = transcriber.recognizer.unit
    loaded, waveforms = [], []
    for each in utterances:
        try:
            waveforms.append(load_utterance(each, transcriber.sample_rate))
            loaded.append(each)
        except (ValueError, OSError) as error:
            faults[each.id] = each.finding(Kind.UNREADABLE_AUDIO, describe_error(error))
    transcripts = transcriber.transcribe(waveforms)
    return [
        EvaluatedUtterance(
            each.id,
            each.speaker,
            transcript.duration,
            str(each.audio_filepath),
            score_utterance(each.id, references[each.id], transcript.text, unit),
            {  # a field of the manifest as it is where it is text, else as JSON writes it
                name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
                for name, value in each.extra.items()
            },
            estimate_snr(waveform, transcriber.sample_rate),
            transcript.words,
        )
        for each, waveform, transcript in zip(loaded, waveforms, transcripts, strict=True)
    ]


# --- what the report plays and draws -------------------------------------------------------------


def make_clips(
    transcriber: Transcriber,
    evaluation: Evaluation,
    utterances: Sequence[Utterance],
    listening: Listening,
) -> Clips:
    """Make clips of the worst utterances of an evaluation and some of the best, within a bound.

    Args:
        transcriber: that made the evaluation.
        evaluation: of the utterances.
        utterances: of its manifest.
        listening: how many clips, and how large.

    Raises:
        ValueError: audio that cannot be used.
        OSError: audio that is missing or unreadable.
    """
    sources = {each.id: each for each in utterances}
    chosen = listed(evaluation, listening.listen)
    if not chosen:
        return Clips({}, 0)
    from asr.recognizer import build_features

    features = build_features(transcriber.recognizer.spec)

    def clips() -> Iterator[Clip]:
        for each in track(chosen, "making the report", "clips"):
            reference = each.errors.reference
            yield _clip(transcriber, features, sources[each.id], reference, listening.audio)

    made = list(within(clips(), listening.max_mb * 1e6))
    return Clips({clip.id: clip for clip in made}, len(chosen) - len(made))


def _clip(
    transcriber: Transcriber,
    features: LogMel,
    utterance: Utterance,
    reference: str,
    audio_format: SoundFormat,
) -> Clip:
    """Make the sound, picture and CTC paths of an utterance."""
    import torch

    from asr.data.dataset import load_utterance
    from asr.decoder.alignment import forced_alignment

    recognizer = transcriber.recognizer
    waveform = load_utterance(utterance, transcriber.sample_rate)
    with torch.inference_mode():
        log_mel, _ = features.log_mel(
            torch.from_numpy(waveform)[None], torch.tensor([len(waveform)])
        )
    log_probs, lengths = recognizer.log_probs([waveform])
    hypothesis = transcriber.decoder(log_probs, lengths)[0][0]
    frames = log_probs[0, : lengths[0]]

    def path(name: str, labels: Hypothesis) -> CtcPath:
        spans = zip(labels.tokens, labels.starts, labels.ends, labels.log_probs, strict=True)
        return CtcPath(
            name,
            tuple(
                Character(
                    recognizer.tokenizer.decode([token]),
                    start * recognizer.frame_shift_s,
                    end * recognizer.frame_shift_s,
                    log_prob,
                )
                for token, start, end, log_prob in spans
            ),
        )

    try:  # the most likely path of the reference, or why there is none
        tokens = recognizer.tokenizer.encode(reference)
        expected = path("reference", forced_alignment(frames, tokens, "reference"))
    except ValueError as error:
        expected = CtcPath("reference", (), str(error))
    return make_clip(
        utterance.id,
        waveform,
        transcriber.sample_rate,
        log_mel[0].numpy(),
        features.frame_shift_s,
        [expected, path("hypothesis", hypothesis)],
        audio_format,
    )
