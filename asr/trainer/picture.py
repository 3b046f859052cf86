"""Pictures of a training: its curves, and what the model writes at which time."""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asr.atomic_file import replace_bytes

BLOCK = "grad_norm_"  # columns of steps.csv: gradient norms of the model's parts
COLORS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown")


@dataclass(frozen=True)
class Heard:
    """What the model makes of an utterance, frame by frame.

    Attributes:
        id: of the utterance.
        reference: its text.
        hypothesis: what the model hears.
        features: `(T, F)` float32.
        frame_shift_s: time between features [s].
        probs: `(T', V)` float32, probabilities of the labels in each output frame; 0 is the blank.
        output_shift_s: time between output frames [s].
        alphabet: characters in the order of their labels, from 1.
    """

    id: str
    reference: str
    hypothesis: str
    features: NDArray[np.float32]
    frame_shift_s: float
    probs: NDArray[np.float32]
    output_shift_s: float
    alphabet: str


def draw_curves(run_dir: Path) -> None:
    """Draw loss, error rates and gradient norms over the steps into <run_dir>/curves.png."""
    from matplotlib.figure import Figure

    steps = _columns(run_dir / "steps.csv")
    validations = _columns(run_dir / "validations.csv")
    figure = Figure(figsize=(13.5, 3.6), layout="constrained")
    loss, rate, norm = figure.subplots(1, 3)
    loss.plot(steps["step"], steps["loss"], color="0.75", linewidth=0.8, label="train")
    loss.plot(validations["step"], validations["loss"], color="tab:blue", marker=".", label="dev")
    loss.set(xlabel="step", ylabel="CTC loss [nats a character]", yscale="log")
    for key, color in (("wer", "tab:red"), ("cer", "tab:orange")):
        percent = [100 * value for value in validations[key]]
        rate.plot(validations["step"], percent, color=color, marker=".", label=f"dev {key.upper()}")
    blanks = [100 * value for value in steps["blank_share"]]
    rate.plot(steps["step"], blanks, color="0.75", linewidth=0.8, label="blank frames in train")
    rate.set(xlabel="step", ylabel="rate [%]", ylim=(0, None))
    norm.plot(steps["step"], steps["grad_norm"], color="0.75", linewidth=0.8, label="all")
    blocks = [name for name in steps if name.startswith(BLOCK)]
    for name, color in zip(blocks, _repeated(COLORS, len(blocks)), strict=True):
        label = name.removeprefix(BLOCK)
        norm.plot(steps["step"], steps[name], color=color, linewidth=0.8, label=label)
    norm.set(xlabel="step", ylabel="gradient norm", yscale="log")
    for axes in (loss, rate, norm):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize="small")
    _save(figure, run_dir / "curves.png")


def draw_alignments(path: Path, heard: Sequence[Heard]) -> None:
    """Draw each utterance's features, and below them the probability of every label over time.

    A model that has learnt to align shows one spike a character, in the order of the text and
    spread over the speech; one that has not shows the blank alone.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.4 * len(heard)), layout="constrained")
    panels = figure.subplots(2 * len(heard), 1, height_ratios=[1.0, 1.2] * len(heard))
    for index, each in enumerate(heard):
        above, below = panels[2 * index : 2 * index + 2]
        end_s = len(each.features) * each.frame_shift_s
        extent = (0.0, end_s, 0.0, each.features.shape[1])
        above.imshow(each.features.T, origin="lower", aspect="auto", extent=extent, cmap="magma")
        above.set(ylabel="mel bin", xticks=[], xlim=(0, end_s))
        above.set_title(
            f"{each.id}\nreference   {each.reference}\nhypothesis {each.hypothesis}",
            loc="left", fontsize="small", parse_math=False,
        )  # fmt: skip
        _draw_labels(below, each)
        below.set(xlim=(0, end_s), ylim=(0, 1.15), xlabel="time [s]")
        below.set_ylabel("probability\n(grey: blank)")
        below.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def _draw_labels(axes: Any, heard: Heard) -> None:
    times = (np.arange(len(heard.probs)) + 0.5) * heard.output_shift_s
    axes.plot(times, heard.probs[:, 0], color="0.75", linewidth=0.8)
    best = heard.probs.argmax(axis=1)
    for label in np.unique(best[best > 0]):
        color = COLORS[label % len(COLORS)]
        axes.plot(times, heard.probs[:, label], color=color, linewidth=1.0)
    for frame, label in enumerate(best):
        if label and (not frame or best[frame - 1] != label):
            character = heard.alphabet[label - 1].replace(" ", "␣")
            height = heard.probs[frame, label] + 0.03
            axes.text(
                times[frame], height, character, ha="center", fontsize="small", parse_math=False
            )


def _save(figure: Any, path: Path) -> None:
    # In memory first: the picture is replaced whole, and a full disk is told with the file's name.
    picture = io.BytesIO()
    with warnings.catch_warnings():
        # A text or a name may hold letters that the font lacks: boxes stand for them.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(picture, dpi=120, format="png")
    replace_bytes(path, picture.getbuffer(), durable=False)


def _repeated(colors: Sequence[str], count: int) -> list[str]:
    return [colors[index % len(colors)] for index in range(count)]


def _columns(path: Path) -> dict[str, list[float]]:
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
        return {name: [float(row[name]) for row in rows] for name in reader.fieldnames or ()}
