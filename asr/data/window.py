"""A window: the utterances that a training holds at a time, and the requests for their examples."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from asr.data.checks import check_characters, check_text
from asr.data.dataset import Request
from asr.data.manifest import Utterance
from asr.data.plan import Order, plan_epoch, plan_window
from asr.finding import Finding
from asr.text import CharTokenizer

Tokens = Sequence[int]  # label ids of an utterance, without blanks
# Of utterances and their tokens, what is wrong with each; None for one to train on.
Gate = Callable[[Sequence[Utterance], Sequence[Tokens]], Sequence[Finding | None]]


@dataclass(frozen=True)
class Window:
    """What is planned and trained as a whole: an epoch has one of them or many.

    Attributes:
        index: within the epoch, from 0.
        utterances: of all ranks, with normalised text and known durations.
        tokens: label ids of each, in arrays: a tuple takes eight bytes a character.
        left_out: utterances that belong here and cannot be trained on.
        shares: of the epoch's audio, before this window and after it, from 0 to 1.
        owners: the rank that holds each utterance's audio; None where any rank can read any file.
        audio: encoded bytes by position, of the utterances that this rank holds.
    """

    index: int
    utterances: tuple[Utterance, ...]
    tokens: tuple[Tokens, ...]
    left_out: tuple[Finding, ...] = ()
    shares: tuple[float, float] = (0.0, 1.0)
    owners: tuple[int, ...] | None = None
    audio: Mapping[int, bytes] = field(default_factory=dict)

    @property
    def durations(self) -> list[float]:
        """Of each utterance [s]."""
        return [utterance.duration or 0.0 for utterance in self.utterances]

    @property
    def num_bytes(self) -> int:
        """Encoded audio that this rank holds [bytes]."""
        return sum(map(len, self.audio.values()))

    def plan(
        self,
        *,
        seed: int,
        epoch: int,
        batch_duration_s: float,
        world_size: int = 1,
        accumulate: int = 1,
        order: Order = Order.SHUFFLED,
    ) -> list[tuple[int, ...]]:
        """The batches of all ranks; see `plan_epoch`, and `plan_window` where audio has owners."""
        if self.owners is None:
            return plan_epoch(
                self.durations,
                seed=seed,
                epoch=epoch,
                batch_duration_s=batch_duration_s,
                world_size=world_size,
                accumulate=accumulate,
                order=order,
            )
        return plan_window(
            self.durations,
            self.owners,
            seed=seed,
            epoch=epoch,
            window=self.index,
            batch_duration_s=batch_duration_s,
            world_size=world_size,
            accumulate=accumulate,
            order=order,
        )

    def requests(self, epoch: int, batches: Sequence[tuple[int, ...]]) -> Iterator[list[Request]]:
        """A rank's batches as what its loader asks for, each made when it is its turn."""
        for batch in batches:
            yield [self.request(epoch, position) for position in batch]

    def request(self, epoch: int, position: int) -> Request:
        """Ask for one utterance, whose audio this rank must hold if it has an owner."""
        audio = None if self.owners is None else self.audio[position]
        return Request(epoch, self.utterances[position], self.tokens[position], audio)


def no_gate(utterances: Sequence[Utterance], tokens: Sequence[Tokens]) -> Sequence[Finding | None]:
    """The gate that lets all pass."""
    return [None] * len(utterances)


def label(
    utterances: Sequence[Utterance], tokenizer: CharTokenizer, gate: Gate
) -> list[Tokens | Finding]:
    """Each utterance's tokens, or why it is left out: no text, unknown characters, or the gate."""
    found = [_tokens(utterance, tokenizer) for utterance in utterances]
    labels: dict[int, Tokens] = {
        position: each for position, each in enumerate(found) if not isinstance(each, Finding)
    }
    faults = gate([utterances[position] for position in labels], list(labels.values()))
    refused = dict(zip(labels, faults, strict=True))
    return [refused.get(position) or each for position, each in enumerate(found)]


def _tokens(utterance: Utterance, tokenizer: CharTokenizer) -> Tokens | Finding:
    fault = check_text(utterance) or check_characters(utterance, tokenizer)
    if fault is not None:
        return fault
    size = tokenizer.vocab_size
    code = "B" if size <= 1 << 8 else "H" if size <= 1 << 16 else "I"  # 1, 2 or 4 bytes an id
    return array(code, tokenizer.encode(utterance.text))
