"""Why a training does not learn: curves, advice, worst utterances, alignments, largest batch."""

from __future__ import annotations

import csv
import heapq
import itertools
import json
import math
import resource
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from asr.atomic_file import replace_bytes, replace_text
from asr.augment import WaveformAugment
from asr.data.dataset import Batch, Request, Window, load_request
from asr.data.manifest import Utterance
from asr.decoder import Greedy
from asr.memory import machine_memory
from asr.picture import png, tell_missing
from asr.recognizer import Recognizer
from asr.trainer.distributed import World
from asr.trainer.log import VALIDATION_FIELDS, RunLog, rows_of
from asr.trainer.step import Stepper

GIB = 1 << 30  # [bytes]
PATIENCE = 3  # validations that a judgement looks back on
SMALL = 0.01  # relative change of a loss that counts as none
MANY = 0.9  # share of steps that is nearly all of them
DRAWN = 3  # dev utterances in alignments.png
DRAW_EVERY_S = 60.0  # [s] between drawings of it
BLOCK = "grad_norm_"  # columns of steps.csv: gradient norms of the model's parts
COLORS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown")


class Diagnostics:
    """What a training finds out about itself with each validation, and leaves in the run's folder.

    Args:
        recognizer: what is trained.
        world: ranks and device.
        log: where it speaks.
        num_worst: training utterances of the highest loss that are listed.
    """

    def __init__(self, recognizer: Recognizer, world: World, log: RunLog, num_worst: int) -> None:
        self.recognizer = recognizer
        self.world = world
        self.log = log
        self.worst = Worst(num_worst)
        self._advice: str | None = None
        self._note = ""
        self._drew = -math.inf

    def validation(self, dev: Sequence[Utterance], is_last: bool) -> None:
        """Draw the curves, advise, list the worst utterances of the epoch, draw alignments.

        Args:
            dev: what was validated on.
            is_last: no later validation will draw them.
        """
        losses = self.worst.take()
        hypotheses = {
            each.id: each.hypothesis
            for each in self._decode_all([request for _, request in losses])
        }
        own = [
            WorstUtterance(
                request.utterance.id, str(request.utterance.audio_filepath), round(loss, 4),
                request.utterance.text, hypotheses.get(request.utterance.id, ""),
            )
            for loss, request in losses
        ]  # fmt: skip
        found = [each for some in self.world.gather(own) for each in some]
        worst = sorted(found, key=lambda each: -each.loss)[: self.worst.count]
        if not self.log.is_writer:
            return
        run_dir = self.log.run_dir
        draw_curves(run_dir, has_words=self.log.rate_name == "WER")
        advice = advise(read_points(run_dir / "validations.csv"))
        if advice is not None and advice != self._advice:
            self.log.warn("%s", advice)
        self._advice = advice
        if worst:
            write_worst(run_dir / "worst.jsonl", worst)
        if is_last or time.monotonic() - self._drew > DRAW_EVERY_S:
            chosen = dev[:: max(len(dev) // DRAWN, 1)][:DRAWN]
            requests = [Request(0, utterance, ()) for utterance in chosen]
            decoded = self._decode_all(requests)
            note = tell_missing(f"{each.id}{each.reference}{each.hypothesis}" for each in decoded)
            draw_alignments(run_dir / "alignments.png", decoded)
            if note and note != self._note:
                self.log.warn("%s", note)
            self._note = note
            self._drew = time.monotonic()

    def _decode_all(self, requests: Iterable[Request]) -> list[Decoded]:
        """What the model makes of utterances, one by one; without those that cannot be read."""
        was_training = self.recognizer.training
        self.recognizer.eval()
        found = []
        for request in requests:
            try:
                waveform = load_request(request, self.recognizer.features.sample_rate)
            except (OSError, ValueError):
                continue  # left out and named where it was to be learnt from
            found.append(decode(self.recognizer, request.utterance, waveform, self.world.device))
        self.recognizer.train(was_training)
        return found


# --- utterances --------------------------------------------------------------------------------


@dataclass(frozen=True)
class WorstUtterance:
    """A training utterance with a high loss: often one with a wrong transcript.

    Attributes:
        id: of the utterance.
        audio: its file.
        loss: [nats a character], while it was learnt from.
        reference: its text.
        hypothesis: of the model; empty where it was not decoded.
    """

    id: str
    audio: str
    loss: float
    reference: str
    hypothesis: str = ""


class Worst:
    """The utterances of an epoch with the highest loss a character.

    Args:
        count: how many are kept.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._heap: list[tuple[float, str, int, Request]] = []
        self._numbers = itertools.count()  # parts what has the same loss and id

    def add(self, losses: Iterable[tuple[str, float]], requests: Mapping[str, Request]) -> None:
        """Note utterances by id with their losses [nats a character], and how to load them."""
        for name, loss in losses:
            if len(self._heap) < self.count or (self._heap and loss > self._heap[0][0]):
                heapq.heappush(self._heap, (loss, name, next(self._numbers), requests[name]))
            if len(self._heap) > self.count:
                heapq.heappop(self._heap)

    def take(self) -> list[tuple[float, Request]]:
        """Losses and requests, the highest first; nothing is kept for the next epoch."""
        found, self._heap = sorted(self._heap, reverse=True), []
        return [(loss, request) for loss, *_, request in found]


def write_worst(path: Path, worst: Sequence[WorstUtterance]) -> None:
    """Write them as JSON lines, the highest loss first."""
    rows = [json.dumps(asdict(each), ensure_ascii=False) + "\n" for each in worst]
    replace_text(path, "".join(rows))


@dataclass(frozen=True)
class Decoded:
    """What the model makes of an utterance, frame by frame.

    Attributes:
        id: of the utterance.
        reference: its text.
        hypothesis: of the model.
        features: `(T, F)` float32.
        frame_shift_s: time between features [s].
        probs: `(T', V)` float32, probabilities of the labels in each output frame; 0 is the blank.
        output_shift_s: time between output frames [s].
        labels: characters, or names of phones, in the order of their ids, from 1.
    """

    id: str
    reference: str
    hypothesis: str
    features: NDArray[np.float32]
    frame_shift_s: float
    probs: NDArray[np.float32]
    output_shift_s: float
    labels: Sequence[str]


@torch.inference_mode()
def decode(
    recognizer: Recognizer,
    utterance: Utterance,
    waveform: NDArray[np.float32],
    device: torch.device,
) -> Decoded:
    """Decode one utterance greedily.

    Args:
        recognizer: in evaluation mode.
        utterance: of the waveform.
        waveform: `(num_samples,)` float32.
        device: of the recogniser.
    """
    waveforms = torch.from_numpy(waveform)[None].to(device)
    num_samples = torch.tensor([len(waveform)], device=device)
    features, lengths = recognizer.features(waveforms, num_samples)
    log_probs, log_prob_lengths = recognizer.model(features, lengths)
    tokens = Greedy()(log_probs.cpu().numpy(), log_prob_lengths.cpu().numpy())[0][0].tokens
    return Decoded(
        id=utterance.id,
        reference=recognizer.readable(utterance.text),
        hypothesis=recognizer.readable(recognizer.tokenizer.decode(tokens)),
        features=features[0, : lengths[0]].cpu().numpy(),
        frame_shift_s=recognizer.features.frame_shift_s,
        probs=log_probs[0, : log_prob_lengths[0]].exp().cpu().numpy(),
        output_shift_s=recognizer.frame_shift_s,
        labels=recognizer.label_names,
    )


# --- advice ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Point:
    """A training at one validation.

    Attributes:
        train_loss: mean over the steps since the one before [nats a character].
        dev_loss: [nats a character].
        cer: on dev, a fraction.
        blank_share: share of output frames whose best label is the blank, in training.
        clipped_share: share of the steps whose gradient was clipped.
    """

    train_loss: float
    dev_loss: float
    cer: float
    blank_share: float
    clipped_share: float


def read_points(path: Path) -> list[Point]:
    """The validations so far, oldest first."""
    rows = [dict(zip(VALIDATION_FIELDS, map(float, row), strict=True)) for row in rows_of(path)]
    return [
        Point(row["train_loss"], row["loss"], row["cer"], row["blank_share"], row["clipped_share"])
        for row in rows
    ]


def advise(points: Sequence[Point]) -> str | None:
    """What stands in the way of learning, with a suggestion; None where nothing does.

    Args:
        points: of all validations so far, oldest first.
    """
    if len(points) < PATIENCE:
        return None
    recent = points[-PATIENCE:]
    last = recent[-1]
    if all(point.blank_share > MANY and point.cer > MANY for point in recent):
        return (
            f"{100 * last.blank_share:.0f} % of the frames are blank and CER is "
            f"{100 * last.cer:.0f} %: usual in the first hundreds of steps; if it stays, try "
            "debug=overfit, a higher optim.lr or shorter utterances"
        )
    if all(point.clipped_share > MANY for point in recent) and _is_flat(recent):
        return (
            f"{100 * last.clipped_share:.0f} % of the gradients are clipped and the loss stands "
            "still: try a lower optim.lr"
        )
    if last.train_loss < (1 - SMALL) * recent[0].train_loss and all(
        point.dev_loss > (1 + SMALL) * min(p.dev_loss for p in points) for point in recent
    ):
        return (
            "the train loss falls and the dev loss has risen for "
            f"{PATIENCE} validations: it learns by heart; try augment=full, more model.dropout, a "
            "smaller model or more data"
        )
    if _is_flat(recent):
        return (
            f"neither loss has moved by {100 * SMALL:.0f} % in {PATIENCE} validations: try another "
            "optim.lr, or a larger model if the train loss is still high"
        )
    return None


def _is_flat(points: Sequence[Point]) -> bool:
    """Whether neither loss is below the first one by more than a trifle."""
    first = points[0]
    return all(
        point.train_loss > (1 - SMALL) * first.train_loss
        and point.dev_loss > (1 - SMALL) * first.dev_loss
        for point in points[1:]
    )


# --- memory ------------------------------------------------------------------------------------


def scan_memory(
    stepper: Stepper,
    log: RunLog,
    window: Window,
    batches: Sequence[tuple[int, ...]],
    augment: WaveformAugment | None,
    batch_duration_s: float,
) -> None:
    """Run the largest batch of a plan forward and backward, on noise, and tell what it takes.

    Args:
        stepper: whose model is tried; its gradients are zero afterwards, and no step is taken.
        log: what is told.
        window: of the utterances.
        batches: positions in it.
        augment: makes waveforms longer, by slow speed and pauses.
        batch_duration_s: setting that decides the size of batches [s].
    """
    durations = window.durations

    def padded_s(batch: tuple[int, ...]) -> float:
        return len(batch) * max((durations[position] for position in batch), default=0.0)

    largest = max(batches, key=padded_s, default=())
    if not largest:
        return  # a shard of which nothing can be trained on
    longest_s = max(durations[position] for position in largest)
    labels = [torch.tensor(window.tokens[position], dtype=torch.int64) for position in largest]
    if augment is not None:
        longest_s = longest_s / augment.slowest + augment.longest_pauses_s
        labels += [torch.zeros(0, dtype=torch.int64)] * augment.adds_row
    count, num_samples = len(labels), int(longest_s * stepper.features.sample_rate)
    generator = torch.Generator().manual_seed(0)
    batch = Batch(
        waveforms=torch.randn((count, num_samples), generator=generator) * 0.1,
        num_samples=torch.full((count,), num_samples, dtype=torch.int64),
        tokens=torch.nn.utils.rnn.pad_sequence(labels, batch_first=True),
        token_lengths=torch.tensor([len(row) for row in labels], dtype=torch.int64),
        seeds=tuple(range(count)),
        rows=tuple((Utterance(Path(), "", longest_s, f"#{row}"),) for row in range(count)),
    )
    device = stepper.world.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    notes = stepper.dry_run(batch)
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
        total = torch.cuda.get_device_properties(device).total_memory
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        total = machine_memory()
    log.say(
        "largest batch: %d utterances of up to %.1f s; %.1f of %.1f GiB of memory in use",
        count, longest_s, peak / GIB, total / GIB,
    )  # fmt: skip
    for note in notes:
        log.warn(
            "the largest batch does not fit: %s; expected a smaller trainer.batch_duration_s than "
            "%g", note, batch_duration_s,
        )  # fmt: skip


# --- pictures ----------------------------------------------------------------------------------


def draw_curves(run_dir: Path, has_words: bool = True) -> None:
    """Draw loss, error rates and gradient norms over the steps into <run_dir>/curves.png."""
    from matplotlib.figure import Figure

    steps = _columns(run_dir / "steps.csv")
    validations = _columns(run_dir / "validations.csv")
    figure = Figure(figsize=(13.5, 3.6), layout="constrained")
    loss, rate, norm = figure.subplots(1, 3)
    loss.plot(steps["step"], steps["loss"], color="0.75", linewidth=0.8, label="train")
    loss.plot(validations["step"], validations["loss"], color="tab:blue", marker=".", label="dev")
    loss.set(xlabel="step", ylabel="CTC loss [nats a character]", yscale="log")
    rates = {"wer": "tab:red", "cer": "tab:orange"}
    if not has_words:
        del rates["wer"]
    for key, color in rates.items():
        percent = [100 * value for value in validations[key]]
        rate.plot(validations["step"], percent, color=color, marker=".", label=f"dev {key.upper()}")
    blanks = [100 * value for value in steps["blank_share"]]
    rate.plot(steps["step"], blanks, color="0.75", linewidth=0.8, label="blank frames in train")
    rate.set(xlabel="step", ylabel="rate [%]", ylim=(0, None))
    norm.plot(steps["step"], steps["grad_norm"], color="0.75", linewidth=0.8, label="all")
    for number, name in enumerate(each for each in steps if each.startswith(BLOCK)):
        color, label = COLORS[number % len(COLORS)], name.removeprefix(BLOCK)
        norm.plot(steps["step"], steps[name], color=color, linewidth=0.8, label=label)
    norm.set(xlabel="step", ylabel="gradient norm", yscale="log")
    for axes in (loss, rate, norm):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize="small")
    replace_bytes(run_dir / "curves.png", png(figure), durable=False)


def _columns(path: Path) -> dict[str, list[float]]:
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
        return {name: [float(row[name]) for row in rows] for name in reader.fieldnames or ()}


def draw_alignments(path: Path, decoded: Sequence[Decoded]) -> None:
    """Draw each utterance's features, and below them the probability of every label over time.

    A model that has learnt to align shows one spike a character, in the order of the text and
    spread over the speech; one that has not shows the blank alone.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.4 * len(decoded)), layout="constrained")
    panels = figure.subplots(2 * len(decoded), 1, height_ratios=[1.0, 1.2] * len(decoded))
    for index, each in enumerate(decoded):
        above, below = panels[2 * index : 2 * index + 2]
        end_s = len(each.features) * each.frame_shift_s
        extent = (0.0, end_s, 0.0, each.features.shape[1])
        above.imshow(each.features.T, origin="lower", aspect="auto", extent=extent, cmap="magma")
        above.set(ylabel="mel bin", xticks=[], xlim=(0, end_s))
        above.set_title(
            f"{each.id}\nreference   {each.reference}\nhypothesis {each.hypothesis}",
            loc="left", fontsize="small", parse_math=False,
        )  # fmt: skip
        times = (np.arange(len(each.probs)) + 0.5) * each.output_shift_s
        below.plot(times, each.probs[:, 0], color="0.75", linewidth=0.8)
        best = each.probs.argmax(axis=1)
        for label in np.unique(best[best > 0]):
            color = COLORS[label % len(COLORS)]
            below.plot(times, each.probs[:, label], color=color, linewidth=1.0)
        for frame, label in enumerate(best):
            if label and (not frame or best[frame - 1] != label):
                character = each.labels[label - 1].replace(" ", "␣")
                below.text(
                    times[frame], each.probs[frame, label] + 0.03, character, ha="center",
                    fontsize="small", parse_math=False,
                )  # fmt: skip
        below.set(xlim=(0, end_s), ylim=(0, 1.15), xlabel="time [s]")
        below.set_ylabel("probability\n(grey: blank)")
        below.spines[["top", "right"]].set_visible(False)
    replace_bytes(path, png(figure), durable=False)
