"""Validation: whether a split can be read, and its loss, WER and CER, for any count of ranks."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass

import torch

from asr.data.dataset import Batch
from asr.data.manifest import Utterance
from asr.decoder import Greedy
from asr.metrics.error_rate import ErrorCounts, unit_errors
from asr.model.ctc import ctc_loss
from asr.recognizer import Recognizer
from asr.trainer.distributed import World

logger = logging.getLogger(__name__)

TELL_EVERY_S = 20.0  # [s] between lines on how far a long reading is


@dataclass(frozen=True)
class Sample:
    """What the model makes of one utterance."""

    id: str
    reference: str
    hypothesis: str


@dataclass(frozen=True)
class Validation:
    """A split, scored over all ranks.

    Attributes:
        loss: CTC loss [nats a character]; inf where an utterance has no CTC path.
        words: word errors; `.rate` is the WER. Where the unit is the character, these are
            characters too.
        characters: character errors; `.rate` is the CER.
        samples: a few transcripts of this rank.
    """

    loss: float
    words: ErrorCounts
    characters: ErrorCounts
    samples: tuple[Sample, ...]


def check_readable(batches: Iterable[Batch], utterances: Sequence[Utterance], world: World) -> None:
    """Read a split's audio once, before a training that it would stop after its first epoch.

    Args:
        batches: this rank's share of what is to be read.
        utterances: of the whole split.
        world: the ranks, which all hear of what one of them finds.

    Raises:
        ValueError: audio that cannot be used; it names the first utterance, on every rank.
    """
    places: dict[str | None, int] = {each.id: place for place, each in enumerate(utterances)}
    found: list[tuple[int, str]] = []
    read, told = 0, time.monotonic()
    for batch in batches:
        found += [(places[fault.id], f"{fault.id}: {fault.reason}") for fault in batch.faults]
        read += len(batch.utterances) + len(batch.faults)
        if time.monotonic() - told > TELL_EVERY_S:
            told = time.monotonic()
            share = read * world.size / len(utterances)
            logger.info("reading dev audio, before the first step: %.0f %%", 100 * share)
    total = sum(world.gather(len(found)))
    if total:
        first = min(each for some in world.gather(sorted(found)[:1]) for each in some)
        raise ValueError(
            f"{total} of {len(utterances)} dev utterances cannot be used, expected all of them, as "
            f"error rates without them would be those of another split; first: {first[1]}"
        )


def validate(
    recognizer: Recognizer, batches: Iterable[Batch], world: World, num_samples: int = 3
) -> Validation:
    """Decode a split greedily and score it.

    Args:
        recognizer: is left in the mode it came in.
        batches: this rank's share of the split, all of whose utterances can be used.
        world: the counts are summed over its ranks.
        num_samples: transcripts to return.

    Returns:
        Totals over all ranks, samples of this one.
    """
    was_training = recognizer.training
    recognizer.eval()
    samples: list[Sample] = []
    loss, characters = 0.0, 0
    with torch.inference_mode():
        for batch in batches:
            assert not batch.faults, "rates without them would be those of another split"
            if not batch.utterances:
                continue
            batch = batch.to(world.device)
            log_probs, lengths = recognizer(batch.waveforms, batch.num_samples)
            losses = ctc_loss(log_probs, lengths, batch.tokens, batch.token_lengths)
            loss += float(losses.sum())
            characters += int(batch.token_lengths.sum())
            decoded = Greedy()(log_probs.cpu().numpy(), lengths.cpu().numpy())
            for utterance, best in zip(batch.utterances, decoded, strict=True):
                text = recognizer.tokenizer.decode(best[0].tokens)
                samples.append(Sample(utterance.id, utterance.text, text))
    recognizer.train(was_training)
    references = [sample.reference for sample in samples]
    hypotheses = [sample.hypothesis for sample in samples]
    words, letters = unit_errors(references, hypotheses, recognizer.unit)
    # One all-reduce for all ten; as float64, in which counts stay whole.
    row = [*astuple(words), *astuple(letters), loss, characters]
    sums = world.sum(torch.tensor(row, dtype=torch.float64, device=world.device)).tolist()
    return Validation(
        loss=sums[8] / max(sums[9], 1),
        words=ErrorCounts(*map(int, sums[:4])),
        characters=ErrorCounts(*map(int, sums[4:8])),
        samples=tuple(samples[:: max(len(samples) // num_samples, 1)][:num_samples]),
    )
