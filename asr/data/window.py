"""A window: the utterances that a training holds at a time, and the requests for their examples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from asr.data.dataset import Request
from asr.data.doctor.checks import check_characters, check_text
from asr.data.doctor.findings import Finding
from asr.data.manifest import Utterance
from asr.data.plan import Order, plan_epoch, plan_window
from asr.text.tokenizer import CharTokenizer

# Of some utterances, what is wrong with those that cannot be trained on, each with its id.
Gate = Callable[[Sequence[Utterance]], Sequence[Finding]]


@dataclass(frozen=True)
class Window:
    """What is planned and trained as a whole: an epoch has one of them or many.

    Attributes:
        index: within the epoch, from 0.
        utterances: of all ranks, with normalised text and known durations.
        tokens: label ids of each.
        left_out: utterances that belong here and cannot be trained on.
        shares: of the epoch's audio, before this window and after it, from 0 to 1.
        owners: the rank that holds each utterance's audio; None where any rank can read any file.
        audio: encoded bytes by position, of the utterances that this rank holds.
    """

    index: int
    utterances: tuple[Utterance, ...]
    tokens: tuple[tuple[int, ...], ...]
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


def no_gate(utterances: Sequence[Utterance]) -> Sequence[Finding]:
    """The gate that lets all pass."""
    return ()


def label(
    utterances: Sequence[Utterance], tokenizer: CharTokenizer, gate: Gate
) -> list[tuple[int, ...] | Finding]:
    """Each utterance's tokens, or why it is left out: no text, unknown characters, or the gate."""
    labels = [_tokens(utterance, tokenizer) for utterance in utterances]
    rows = list(zip(utterances, labels, strict=True))
    writable = [utterance for utterance, tokens in rows if not isinstance(tokens, Finding)]
    refused = {finding.id: finding for finding in gate(writable)}
    return [
        tokens if isinstance(tokens, Finding) else refused.get(utterance.id, tokens)
        for utterance, tokens in rows
    ]


def _tokens(utterance: Utterance, tokenizer: CharTokenizer) -> tuple[int, ...] | Finding:
    fault = check_text(utterance.text) or check_characters(utterance.text, tokenizer)
    if fault is not None:
        return Finding(fault.kind, fault.reason, utterance.id)
    return tuple(tokenizer.encode(utterance.text))
