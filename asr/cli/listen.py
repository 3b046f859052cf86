"""What the report plays and draws: sound, picture and CTC path of some utterances."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from asr.cli.progress import track
from asr.report.clips import Clips, CtcPath, SoundFormat, listed, make_clip, within
from asr.word import Character

if TYPE_CHECKING:
    from asr.data.manifest import Utterance
    from asr.decoder import Hypothesis
    from asr.decoder.alignment import Frames
    from asr.recognizer import Recognizer
    from asr.report.clips import Clip
    from asr.report.evaluation import Evaluation
    from asr.transcriber import Transcriber


@dataclass(frozen=True)
class Listening:
    """How much of an evaluation can be heard in its report.

    Attributes:
        listen: How many utterances at most; 0 for none.
        audio: "opus" or "wav".
        max_mb: What sound and pictures may take in the page [10^6 bytes].
    """

    listen: int
    audio: SoundFormat
    max_mb: float

    def __post_init__(self) -> None:
        if self.listen < 0:
            raise ValueError(f"report.listen is {self.listen}, expected 0 or more")
        if not self.max_mb >= 0:
            raise ValueError(f"report.max_mb is {self.max_mb}, expected 0 or more")


def make_clips(
    transcriber: Transcriber,
    evaluation: Evaluation,
    utterances: Sequence[Utterance],
    listening: Listening,
) -> Clips:
    """Clips of the worst utterances of an evaluation and some of the best, in one page's bound.

    Args:
        transcriber: That made the evaluation.
        evaluation: Of the utterances.
        utterances: Of its manifest.
        listening: How many clips, and how large.

    Raises:
        ValueError: Audio that cannot be used.
        OSError: Audio that is missing or unreadable.
    """
    chosen = listed(evaluation, listening.listen)
    sources = {each.id: each for each in utterances}
    wanted = [(sources[each.id], each.errors.reference) for each in chosen]
    clips = _clips(transcriber, wanted, listening.audio)
    made = list(within(clips, listening.max_mb * 1e6))
    return Clips({clip.id: clip for clip in made}, len(chosen) - len(made))


def _clips(
    transcriber: Transcriber,
    wanted: Sequence[tuple[Utterance, str]],
    audio_format: SoundFormat,
) -> Iterator[Clip]:
    for utterance, reference in track(wanted, "making the report", "clips"):
        yield _clip(transcriber, utterance, reference, audio_format)


def _clip(
    transcriber: Transcriber, utterance: Utterance, reference: str, audio_format: SoundFormat
) -> Clip:
    import torch

    from asr.data.dataset import load_utterance

    recognizer = transcriber.recognizer
    waveform = load_utterance(utterance, transcriber.sample_rate)
    batch = torch.from_numpy(waveform)[None].to(recognizer.device)
    num_samples = torch.tensor([len(waveform)], device=recognizer.device)
    with torch.inference_mode():
        features, _ = recognizer.features.log_mel(batch, num_samples)
    log_probs, lengths = recognizer.log_probs([waveform])
    best = transcriber.decoder(log_probs, lengths)[0][0]
    frames = log_probs[0, : int(lengths)].cpu().numpy()
    return make_clip(
        utterance.id,
        waveform,
        transcriber.sample_rate,
        features[0].cpu().numpy(),
        recognizer.features.frame_shift_s,
        [_reference_path(recognizer, frames, reference), _path("hypothesis", recognizer, best)],
        audio_format,
    )


def _reference_path(recognizer: Recognizer, log_probs: Frames, reference: str) -> CtcPath:
    """The most likely path of the reference, or why there is none."""
    from asr.decoder.alignment import forced_alignment

    try:
        tokens = recognizer.tokenizer.encode(reference)
        hypothesis = forced_alignment(log_probs, tokens, "reference")
    except ValueError as error:
        return CtcPath("reference", (), str(error))
    return _path("reference", recognizer, hypothesis)


def _path(name: str, recognizer: Recognizer, hypothesis: Hypothesis) -> CtcPath:
    spans = zip(
        hypothesis.tokens, hypothesis.starts, hypothesis.ends, hypothesis.log_probs, strict=True
    )
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
