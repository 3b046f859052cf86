"""What a search over a decoder's weights found, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

from asr.metrics.error_rate import ErrorCounts

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FEWEST_FOR_SURFACE = 6  # trials; fewer are dots alone
LEVELS = 12


@dataclass(frozen=True, slots=True)
class Trial:
    """Weights of a decoder, and the errors on dev with them.

    Attributes:
        lm_weight: of the language model's log-probabilities.
        word_bonus: for each word [nats].
        unk_score: for each word that the language model has not [nats].
        words: word errors.
        characters: character errors.
    """

    lm_weight: float
    word_bonus: float
    unk_score: float
    words: ErrorCounts
    characters: ErrorCounts

    @property
    def cost(self) -> tuple[float, float]:
        """WER, and CER where it is equal; the lower the better."""
        return self.words.rate, self.characters.rate


def best(trials: Sequence[Trial]) -> Trial:
    """The trial with the lowest WER; of equals that with the lowest CER, then the first."""
    return min(trials, key=lambda trial: trial.cost)


def draw_tuning(trials: Sequence[Trial], baseline: float) -> bytes:
    """Draw a search as PNG: WER over both weights, over the unknown words' score, over time.

    Args:
        trials: in their order, at least one.
        baseline: WER without a language model, a fraction.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12.5, 3.9), layout="constrained")
    surface, unknown, course = figure.subplots(1, 3, width_ratios=(1.25, 1, 1))
    _surface(surface, trials)
    _dots(unknown, [trial.unk_score for trial in trials], trials)
    unknown.set_xlabel("unk_score [nats]")
    _course(course, trials, baseline)
    image = BytesIO()
    figure.savefig(image, format="png", dpi=120)
    return image.getvalue()


def _surface(axes: Axes, trials: Sequence[Trial]) -> None:
    """WER between the trials is interpolated; where none is near, it is left white."""
    x, y = ([getattr(t, name) for t in trials] for name in ("lm_weight", "word_bonus"))
    wers = [100 * trial.words.rate for trial in trials]
    ceiling = sorted(wers)[len(wers) * 3 // 4]  # the worst quarter would hide the valley
    shown = [min(wer, ceiling) for wer in wers]
    if len(set(zip(x, y, strict=True))) >= FEWEST_FOR_SURFACE and min(shown) < ceiling:
        axes.tricontourf(x, y, shown, levels=LEVELS, cmap="viridis_r", alpha=0.85)
    dots = axes.scatter(x, y, c=shown, cmap="viridis_r", s=18, edgecolors="white", linewidths=0.5)
    colours = axes.figure.colorbar(dots, ax=axes)
    colours.set_label(f"dev WER [%], {ceiling:.1f} and more in one colour")
    found = best(trials)
    axes.plot(found.lm_weight, found.word_bonus, marker="*", color="tab:red", markersize=14)
    axes.set_xlabel("lm_weight")
    axes.set_ylabel("word_bonus [nats]")
    axes.set_title(
        f"best: {100 * found.words.rate:.2f} %; dots of any unk_score", fontsize="medium"
    )


def _dots(axes: Axes, places: Sequence[float], trials: Sequence[Trial]) -> None:
    wers = [100 * trial.words.rate for trial in trials]
    axes.scatter(places, wers, s=18, alpha=0.6, linewidths=0)
    number = trials.index(best(trials))
    axes.plot(places[number], wers[number], marker="*", color="tab:red", markersize=14)
    axes.set_ylabel("dev WER [%]")
    _plain(axes)


def _course(axes: Axes, trials: Sequence[Trial], baseline: float) -> None:
    _dots(axes, range(1, len(trials) + 1), trials)
    lowest = [100 * best(trials[:count]).words.rate for count in range(1, len(trials) + 1)]
    axes.step(range(1, len(trials) + 1), lowest, where="post", color="tab:red")
    axes.axhline(100 * baseline, color="0.4", linestyle="dotted")
    axes.annotate("without a language model", (1, 100 * baseline), va="bottom", fontsize="small")
    axes.set_xlabel("trial")


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)
