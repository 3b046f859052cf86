"""Utterances to examples to batches: what is asked for, loaded and varied reproducibly, padded."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asr.audio import load_audio
from asr.augment import Pauses, WaveformAugment
from asr.data.checks import check_characters, check_text
from asr.data.manifest import Utterance
from asr.data.plan import Order, plan_epoch, plan_window
from asr.data.workers import SILENCE_S, Workers
from asr.finding import Finding, Kind, describe_error
from asr.text import CharTokenizer

Tokens = Sequence[int]  # label ids of an utterance, without blanks
# Of utterances and their tokens, what is wrong with each; None for one to train on.
Gate = Callable[[Sequence[Utterance], Sequence[Tokens]], Sequence[Finding | None]]


@dataclass(frozen=True)
class Request:
    """All that a loading process needs to make one example, wherever that process runs.

    Attributes:
        epoch: from 0.
        utterance: what to load.
        tokens: its label ids.
        audio: the encoded bytes; None where `utterance.audio_filepath` is to be read.
        is_varied: whether the waveform is augmented, if any is.
    """

    epoch: int
    utterance: Utterance
    tokens: Tokens
    audio: bytes | None = None
    is_varied: bool = True


@dataclass(frozen=True)
class Example:
    """One row of a batch: an utterance, several that were joined, or a sound without speech.

    Attributes:
        waveform: `(num_samples,)` float32.
        tokens: label ids, without blanks.
        seed: of whatever is still to be drawn for it in this epoch.
        utterances: where it comes from.
        is_varied: whether the waveform was augmented, and may be joined.
    """

    waveform: NDArray[np.float32]
    tokens: Tokens
    seed: int
    utterances: tuple[Utterance, ...]
    is_varied: bool = False


@dataclass(frozen=True)
class Batch:
    """Padded examples.

    Attributes:
        waveforms: `(B, N)` float32, zero padded.
        num_samples: `(B,)` int64.
        tokens: `(B, U)` int64, zero padded.
        token_lengths: `(B,)` int64.
        seeds: B seeds for draws on the features.
        rows: the utterances that each row has, mostly one.
        faults: utterances that should be here and cannot be used; they have no rows.
    """

    waveforms: Tensor
    num_samples: Tensor
    tokens: Tensor
    token_lengths: Tensor
    seeds: tuple[int, ...]
    rows: tuple[tuple[Utterance, ...], ...]
    faults: tuple[Finding, ...] = ()

    @property
    def utterances(self) -> tuple[Utterance, ...]:
        """Of all rows."""
        return tuple(utterance for row in self.rows for utterance in row)

    def to(self, device: torch.device) -> Batch:
        """The batch with its tensors on another device."""
        return self._with_tensors(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """The batch in page-locked memory."""
        return self._with_tensors(Tensor.pin_memory)

    def halves(self) -> tuple[Batch, Batch]:
        """The first and the second half of the rows, each padded to its own longest."""
        rows = torch.arange(len(self.rows))
        first = rows < (len(rows) + 1) // 2
        return self.keep(first).trimmed(), self.keep(~first).trimmed()

    def trimmed(self) -> Batch:
        """The batch without samples that are padding in every row."""
        longest = int(self.num_samples.max()) if len(self.num_samples) else 0
        return replace(self, waveforms=self.waveforms[:, :longest])

    def keep(self, rows: Tensor) -> Batch:
        """The batch without the rows where `(B,)` bool is False, nor its faults."""
        chosen = [row for row, kept in enumerate(rows.tolist()) if kept]
        return replace(
            self._with_tensors(lambda tensor: tensor[chosen]),
            seeds=tuple(self.seeds[row] for row in chosen),
            rows=tuple(self.rows[row] for row in chosen),
            faults=(),
        )

    def _with_tensors(self, change: Callable[[Tensor], Tensor]) -> Batch:
        return replace(
            self,
            waveforms=change(self.waveforms),
            num_samples=change(self.num_samples),
            tokens=change(self.tokens),
            token_lengths=change(self.token_lengths),
        )


# --- loading -----------------------------------------------------------------------------------


def draw_seed(seed: int, epoch: int, utterance_id: str) -> int:
    """A 63-bit seed for one utterance in one epoch, whichever process or order asks for it."""
    digest = hashlib.blake2b(f"{seed}/{epoch}/{utterance_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def load_utterance(utterance: Utterance, sample_rate: int) -> NDArray[np.float32]:
    """An utterance's waveform, `(num_samples,)` float32 at `sample_rate` [Hz]."""
    return load_audio(
        utterance.audio_filepath,
        sample_rate,
        offset=utterance.offset,
        duration=utterance.duration,
        channel=utterance.channel,
    )


def load_request(request: Request, sample_rate: int) -> NDArray[np.float32]:
    """The waveform asked for, `(num_samples,)` float32 at `sample_rate` [Hz].

    Raises:
        ValueError: audio that cannot be used; the message says where it lies.
        OSError: missing or unreadable.
    """
    utterance, audio = request.utterance, request.audio
    if audio is None:
        return load_utterance(utterance, sample_rate)
    try:
        return load_audio(audio, sample_rate, offset=utterance.offset, duration=utterance.duration)
    except ValueError as error:
        raise ValueError(f"{utterance.audio_filepath}: {error}") from error


def load_example(
    request: Request, sample_rate: int, seed: int = 0, augment: WaveformAugment | None = None
) -> Example | Finding:
    """Load and vary one utterance; a function of its arguments alone, in whichever process.

    Args:
        request: what to load.
        sample_rate: of the waveform [Hz].
        seed: of the run.
        augment: variation of the waveform, None for none.

    Returns:
        The example, or what is wrong with its audio: whether that stops anything is not decided
        in a loading process.

    Raises:
        ValueError: the audio is good, but a noise, say, cannot be read.
    """
    utterance = request.utterance
    try:
        waveform = load_request(request, sample_rate)
    except OSError as error:
        reason = f"{utterance.audio_filepath}: {error.strerror or error}"
        return utterance.finding(Kind.UNREADABLE_AUDIO, reason)
    except ValueError as error:
        return utterance.finding(Kind.UNREADABLE_AUDIO, str(error))
    generator = np.random.default_rng(draw_seed(seed, request.epoch, utterance.id))
    if augment is not None and request.is_varied:
        try:
            waveform = augment(waveform, sample_rate, generator)
        except (OSError, ValueError) as error:
            raise ValueError(f"cannot vary {utterance.id}: {describe_error(error)}") from error
    leftover = int(generator.integers(2**63 - 1))
    return Example(waveform, request.tokens, leftover, (utterance,), request.is_varied)


def join_examples(
    examples: Sequence[Example], pauses: Pauses, sample_rate: int, space: Tokens
) -> list[Example]:
    """Join examples of a batch with pauses between, and add a sound without speech, where drawn.

    Every utterance stays in one row. The draws depend on the examples alone.

    Args:
        examples: of one batch; those that are not varied stay as they are.
        pauses: what is drawn.
        sample_rate: of the waveforms [Hz].
        space: label ids between two texts.

    Returns:
        The rows.
    """
    # Not a number would spread to what it is joined with.
    fine = [each for each in examples if each.is_varied and np.isfinite(each.waveform.sum())]
    if not fine:
        return list(examples)
    kept = {id(each) for each in fine}
    rows = [each for each in examples if id(each) not in kept]
    generator = np.random.default_rng(fine[0].seed)
    durations = [len(each.waveform) / sample_rate for each in fine]
    speakers = [each.utterances[0].speaker for each in fine]
    for row in pauses.rows(durations, speakers, generator):
        members = [fine[position] for position in row]
        waveforms = [each.waveform for each in members]
        if len(members) == 1:
            rows += members
        elif members:
            tokens = list(members[0].tokens)
            for each in members[1:]:
                tokens += [*space, *each.tokens]
            waveform = pauses.join(waveforms, sample_rate, generator)
            utterances = tuple(utterance for each in members for utterance in each.utterances)
            rows.append(Example(waveform, tokens, members[0].seed, utterances, True))
        else:
            longest = max(len(each.waveform) for each in rows)
            sound = pauses.nothing(longest, sample_rate, generator)
            rows.append(Example(sound, (), int(generator.integers(2**63 - 1)), (), True))
    return rows


def collate(loaded: Sequence[Example | Finding]) -> Batch:
    """Pad examples to a batch, which also names what could not be loaded."""
    examples = [item for item in loaded if isinstance(item, Example)]
    waveforms = [example.waveform for example in examples]
    tokens = [np.asarray(example.tokens, dtype=np.int64) for example in examples]
    return Batch(
        waveforms=_pad(waveforms, np.float32),
        num_samples=torch.tensor([len(waveform) for waveform in waveforms], dtype=torch.int64),
        tokens=_pad(tokens, np.int64),
        token_lengths=torch.tensor([len(ids) for ids in tokens], dtype=torch.int64),
        seeds=tuple(example.seed for example in examples),
        rows=tuple(example.utterances for example in examples),
        faults=tuple(item for item in loaded if isinstance(item, Finding)),
    )


def _pad(rows: Sequence[NDArray[Any]], dtype: type[np.generic]) -> Tensor:
    # By NumPy: torch would copy in several threads, and take them from the training.
    padded = np.zeros((len(rows), max(map(len, rows), default=0)), dtype)
    for row, values in zip(padded, rows, strict=True):
        row[: len(values)] = values
    return torch.from_numpy(padded)


def batch_loader(
    sample_rate: int,
    seed: int = 0,
    augment: WaveformAugment | None = None,
    space: Tokens = (),
    num_workers: int = 0,
    pin_memory: bool = False,
    is_stop: Callable[[], bool] = lambda: False,
    silence_s: float = SILENCE_S,
) -> Workers[Request, Batch]:
    """What makes batches of requests, ahead of the training where there are loading processes.

    Args:
        sample_rate: of the waveforms [Hz].
        seed: of the run.
        augment: variation of the waveforms, None for none.
        space: label ids between the texts of utterances that are joined.
        num_workers: loading processes; 0 loads in this one, when asked.
        pin_memory: page-locked batches, for faster copies to a GPU.
        is_stop: asked while a batch does not come; True gives up waiting for it.
        silence_s: time that a process may take for an utterance [s]; another one then replaces it.
    """
    pauses = augment.pauses if augment is not None else None

    def finish(loaded: list[Example | Finding]) -> Batch:
        if pauses is not None:
            examples = [each for each in loaded if isinstance(each, Example)]
            faults = [each for each in loaded if isinstance(each, Finding)]
            loaded = [*join_examples(examples, pauses, sample_rate, space), *faults]
        batch = collate(loaded)
        return batch.pin_memory() if pin_memory else batch

    # `load_example` is looked up when a request is there.
    def load(request: Request) -> Example | Finding:
        return load_example(request, sample_rate, seed, augment)

    return Workers(
        load, finish, lambda request: request.utterance.id, num_workers, is_stop, silence_s
    )


# --- what an epoch asks for --------------------------------------------------------------------


@dataclass(frozen=True)
class Window:
    """Utterances that are planned and held as a whole: a manifest in every epoch, or some shards.

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

    def request(self, epoch: int, position: int, is_varied: bool = True) -> Request:
        """Ask for one utterance, whose audio this rank must hold if it has an owner."""
        audio = None if self.owners is None else self.audio[position]
        return Request(epoch, self.utterances[position], self.tokens[position], audio, is_varied)


@dataclass(frozen=True)
class ManifestWindows:
    """The utterances of a manifest, which are the one window of every epoch.

    Attributes:
        window: what can be trained on.
        left_out: what cannot, known before the first epoch: no window names it again.
    """

    window: Window
    left_out: tuple[Finding, ...] = ()

    @property
    def num_utterances(self) -> int:
        """To train on."""
        return len(self.window.utterances)

    @property
    def seconds(self) -> float:
        """Of audio to train on [s]."""
        return sum(self.window.durations)

    @property
    def longest_s(self) -> float:
        """Of the utterances to train on [s]."""
        return max(self.window.durations, default=0.0)

    def of_one_rank(self) -> ManifestWindows:
        """As one rank alone would have them: the same, as any rank can read any file."""
        return self

    def count(self) -> int:
        """Windows of an epoch."""
        return 1

    def load(self, epoch: int, number: int) -> Window:
        """The window."""
        assert number == 0, "there is one"
        return self.window

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Window]:
        """The window, unless it is done."""
        yield from (self.window,)[start:]


def label_manifest(
    utterances: Sequence[Utterance], tokenizer: CharTokenizer, gate: Gate
) -> ManifestWindows:
    """The utterances that can be trained on, with their tokens, and the others."""
    labels = label(utterances, tokenizer, gate)
    rows = zip(utterances, labels, strict=True)
    kept = [(item, tokens) for item, tokens in rows if not isinstance(tokens, Finding)]
    window = Window(0, tuple(item for item, _ in kept), tuple(tokens for _, tokens in kept))
    return ManifestWindows(window, tuple(each for each in labels if isinstance(each, Finding)))


def label(
    utterances: Sequence[Utterance], tokenizer: CharTokenizer, gate: Gate
) -> list[Tokens | Finding]:
    """Each utterance's tokens, or why it is left out: no text, a character or label, or the gate.

    Args:
        utterances: with normalised text.
        tokenizer: turns texts into label ids.
        gate: says which of those that have ids are left out.
    """
    size = tokenizer.vocab_size
    code = "B" if size <= 1 << 8 else "H" if size <= 1 << 16 else "I"  # 1, 2 or 4 bytes a label
    found: list[Tokens | Finding] = []
    for each in utterances:
        fault = check_text(each) or check_characters(each, tokenizer)
        ids = [] if fault else tokenizer.encode(each.text)
        # torch takes an id that is out of range in silence, on a CPU.
        if ids and not 0 < min(ids) <= max(ids) < size:
            bad = next(one for one in ids if not 0 < one < size)
            blank = " (the blank)" if bad == 0 else ""
            reason = f"label {bad}{blank}, expected 1 to {size - 1}"
            fault = each.finding(Kind.BAD_LABEL, reason)
        found.append(fault or array(code, ids))
    labels = {place: each for place, each in enumerate(found) if not isinstance(each, Finding)}
    faults = gate([utterances[place] for place in labels], list(labels.values()))
    for place, fault in zip(labels, faults, strict=True):
        found[place] = fault or found[place]
    return found


@dataclass(frozen=True)
class PlannedStep:
    """What one optimiser step learns from.

    Attributes:
        window: its window, from 0 within the epoch.
        group: the step, from 0 within the window.
        epochs_done: epochs trained in its middle.
        num_utterances: of all ranks.
        num_tokens: of all ranks.
        audio_s: of all ranks [s].
        requests: this rank's batches; none for a window of which nothing can be trained on.
        left_out: with a window's first step, the utterances of it that cannot be trained on.
    """

    window: int
    group: int
    epochs_done: float
    num_utterances: int = 0
    num_tokens: int = 0
    audio_s: float = 0.0
    requests: tuple[list[Request], ...] = ()
    left_out: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Planner:
    """Cuts epochs into optimiser steps, as a pure function: the same on every rank.

    Attributes:
        seed: of the run.
        batch_duration_s: largest padded batch of a rank [s].
        accumulate: batches of a rank for one optimiser step.
        sort_first_epoch: start with the shortest utterances, of a window at a time.
        rank: of this process.
        world_size: number of processes.
    """

    seed: int
    batch_duration_s: float
    accumulate: int = 1
    sort_first_epoch: bool = False
    rank: int = 0
    world_size: int = 1

    def batches(self, window: Window, epoch: int) -> list[tuple[int, ...]]:
        """The batches of all ranks, of positions in a window: `plan_epoch` or `plan_window`."""
        is_sorted = epoch == 0 and self.sort_first_epoch
        order = Order.ASCENDING if is_sorted else Order.SHUFFLED
        settings: dict[str, Any] = {
            "seed": self.seed, "epoch": epoch, "batch_duration_s": self.batch_duration_s,
            "world_size": self.world_size, "accumulate": self.accumulate, "order": order,
        }  # fmt: skip
        if window.owners is None:
            return plan_epoch(window.durations, **settings)
        return plan_window(window.durations, window.owners, window=window.index, **settings)

    def steps(self, windows: Iterable[Window], epoch: int, group: int = 0) -> Iterator[PlannedStep]:
        """The steps of the windows that are left of an epoch, from number `group` of the first."""
        for window in windows:
            batches, durations = self.batches(window, epoch), window.durations
            size = self.world_size * self.accumulate
            groups = [batches[start : start + size] for start in range(0, len(batches), size)]
            if group > len(groups):
                raise ValueError(
                    f"the state is of step {group} of a window, expected at most {len(groups)}"
                )
            before, after = window.shares
            if not groups:
                yield PlannedStep(window.index, 0, epoch + after, left_out=window.left_out)
            for number in range(group, len(groups)):
                members = [position for batch in groups[number] for position in batch]
                own = groups[number][self.rank :: self.world_size]
                yield PlannedStep(
                    window=window.index,
                    group=number,
                    epochs_done=epoch + before + (after - before) * (number + 0.5) / len(groups),
                    num_utterances=len(members),
                    num_tokens=sum(len(window.tokens[position]) for position in members),
                    audio_s=sum(durations[position] for position in members),
                    requests=tuple([window.request(epoch, k) for k in batch] for batch in own),
                    left_out=() if number else window.left_out,
                )
            group = 0
